package bgp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// result is how a pass ended.
type result struct {
	err   error     // what failed; other steps were done all the same
	next  time.Time // when there is something to do again; zero: nothing is pending
	clean bool      // nothing of ours is announced or held, as read at the start of the pass
	paths int       // of ours, as read; 0 where the table could not be read
	held  int       // addresses of ours, as read
}

// confirmPause is how soon a pass looks again whether a withdraw is out.
const confirmPause = 20 * time.Millisecond

// pass reads the live state once, and does what it lacks of the desired state.
func (a *Announcer) pass(ctx context.Context, stopping bool) result {
	began := time.Now()
	cfg := a.config()
	wishes := desired(cfg, a.health, stopping)
	now, speakerErr, addrsErr := a.read(ctx, stopping)
	a.reportSpeaker(speakerErr)
	a.reportForeign(wishes, now)

	todo := plan(wishes, now)
	if stopping && now.tableKnown {
		speakerErr = nil // one that is gone with its table is not needed any more
	}
	withdrawErr := a.withdraw(ctx, todo.withdraw)
	announced, announceErr := a.announce(ctx, todo, now)
	next, drainErr := a.drain(ctx, cfg, todo.unwanted, now, stopping)
	var offerErr error
	if now.tableKnown && !stopping {
		offerErr = a.checkOffered(ctx)
	}
	stepErr := errors.Join(withdrawErr, announceErr, drainErr, offerErr)
	// What was done is looked at soon, to see that it had an effect.
	if len(todo.withdraw) > 0 && withdrawErr == nil || announced && announceErr == nil {
		next = time.Now().Add(confirmPause)
	}

	r := result{
		err: errors.Join(addrsErr, speakerErr, stepErr), next: next, paths: len(now.table.Own), held: len(now.addrs.Own),
		clean: now.tableKnown && now.addrsKnown && len(now.table.Own) == 0 && len(now.addrs.Own) == 0,
	}
	a.reportError(errors.Join(addrsErr, stepErr))
	a.publish(wishes, now, speakerErr, r, stopping)
	a.log.Debug("pass", "took", time.Since(began), "vips", len(wishes))
	return r
}

// read is the live state. While the announcer runs, a table counts only if its
// speaker is ready; a speaker that is away may come back with routers still
// sending to us (graceful restart, RFC 4724), so nothing follows from its
// absence. Once we stop, a speaker that is not running has no table to wait for.
func (a *Announcer) read(ctx context.Context, stopping bool) (now live, speakerErr, addrsErr error) {
	now.addrs, addrsErr = a.holder.List(ctx)
	now.addrsKnown = addrsErr == nil
	speakerErr = a.speaker.Ready(ctx)
	switch {
	case speakerErr == nil, stopping && errors.Is(speakerErr, speaker.ErrWrongASN):
		table, err := a.speaker.List(ctx)
		if err != nil {
			return now, err, addrsErr
		}
		now.table, now.tableKnown = table, true
	case stopping && (errors.Is(speakerErr, speaker.ErrGone) || errors.Is(speakerErr, speaker.ErrNotConfigured)):
		now.tableKnown = true
	}
	return now, speakerErr, addrsErr
}

func (a *Announcer) withdraw(ctx context.Context, prefixes []netip.Prefix) error {
	before := a.gone
	a.gone = nil
	if len(prefixes) == 0 {
		return nil
	}
	if err := a.speaker.Withdraw(ctx, prefixes); err != nil {
		return err
	}
	a.sent.withdrawn(prefixes)
	a.gone = make(map[netip.Prefix]bool, len(prefixes))
	var stuck []netip.Prefix
	for _, p := range prefixes {
		a.gone[p] = true
		if before[p] {
			stuck = append(stuck, p)
		}
	}
	if len(stuck) == 0 {
		a.log.Info("withdrew", "count", len(prefixes), "prefixes", some(prefixes))
	}
	return noEffect("withdraw", stuck, "did another client add it, with our path identifier and a source of its own?")
}

// announce binds, then announces; did says whether anything changed. A VIP that
// could not be bound is not announced.
func (a *Announcer) announce(ctx context.Context, todo steps, now live) (did bool, err error) {
	var bindErr error
	failed := map[netip.Addr]bool{}
	if len(todo.bind) > 0 {
		bindErr = a.holder.Bind(ctx, todo.bind)
		for _, addr := range unbound(bindErr, todo.bind) {
			failed[addr] = true
		}
		if bound := slices.DeleteFunc(todo.bind, func(addr netip.Addr) bool { return failed[addr] }); len(bound) > 0 {
			did = true
			a.log.Info("bound", "count", len(bound), "addresses", some(bound))
		}
	}
	if !now.tableKnown {
		clear(a.sent) // the speaker that comes back may know nothing of it
		return did, bindErr
	}
	a.sent.observe(now.table.Own)
	paths, changed := a.sent.filter(todo.announce, now.table.Own)
	if len(changed) > 0 {
		a.log.Warn("the speaker changes the attributes of what we announce; is there an import policy?", "count", len(changed), "prefixes", some(changed))
	}
	paths = slices.DeleteFunc(paths, func(p speaker.Path) bool { return failed[p.Prefix.Addr()] })
	if len(paths) == 0 {
		return did, bindErr
	}
	dropped := a.sent.dropped(paths, now.table.Own)
	err = a.speaker.Announce(ctx, paths)
	var refused *speaker.PathErrors
	if err != nil && !errors.As(err, &refused) {
		return did, errors.Join(bindErr, err)
	}
	if refused != nil {
		paths = slices.DeleteFunc(paths, func(p speaker.Path) bool { return refused.ByPrefix[p.Prefix] != nil })
	}
	a.sent.sent(paths)
	if len(paths) > len(dropped) {
		a.log.Info("announced", "count", len(paths), "prefixes", somePaths(paths))
	}
	return did || len(paths) > 0, errors.Join(bindErr, err,
		noEffect("announce", dropped, "does an import policy drop it?"))
}

// unbound are the addresses that err says are not bound: those it names, or all.
func unbound(err error, all []netip.Addr) []netip.Addr {
	if err == nil {
		return nil
	}
	parts := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		parts = joined.Unwrap()
	}
	var named []netip.Addr
	for _, part := range parts {
		var one *vip.AddrError
		if !errors.As(part, &one) {
			return all
		}
		named = append(named, one.Addr)
	}
	return named
}

// drain moves the unwanted addresses on: from the withdraw being out, through the
// delay, to the release. It does nothing unless the table was read in this pass.
func (a *Announcer) drain(ctx context.Context, cfg *Config, unwanted []netip.Addr, now live, stopping bool) (next time.Time, err error) {
	if !now.tableKnown || !now.addrsKnown {
		return time.Time{}, nil
	}
	a.drains.update(unwanted, now.table.Own, time.Now())
	if prefixes := a.drains.unconfirmed(); len(prefixes) > 0 {
		var offered speaker.Advertised
		// A table that is empty because its speaker is gone is offered to nobody.
		if now.table.Own != nil {
			if offered, err = a.speaker.Advertised(ctx, prefixes); err != nil && !(stopping && errors.Is(err, speaker.ErrGone)) {
				return time.Time{}, err
			}
		}
		waiting, late := a.drains.confirm(offered.To, time.Now(), patience*cfg.Speaker.Timeout)
		if len(late) > 0 {
			a.log.Warn("withdraw did not leave the speaker; draining all the same", "count", len(late), "addresses", some(late))
		}
		if len(waiting) > 0 {
			next = time.Now().Add(confirmPause)
		}
	}
	due, at := a.drains.due(cfg.DrainDelay, time.Now())
	if !at.IsZero() && (next.IsZero() || at.Before(next)) {
		next = at
	}
	if len(due) == 0 {
		return next, nil
	}
	slices.SortFunc(due, netip.Addr.Compare)
	if err := a.holder.Release(ctx, due); err != nil {
		return next, err
	}
	for _, addr := range due {
		delete(a.drains, addr)
	}
	a.log.Info("released", "count", len(due), "addresses", some(due))
	if stopping {
		next = time.Now() // to see that nothing is left
	}
	return next, nil
}

// publish makes the status of this pass the current one.
func (a *Announcer) publish(wishes map[netip.Addr]wish, now live, speakerErr error, r result, stopping bool) {
	s := Status{At: time.Now(), Speaker: "ready", Stopping: stopping, VIPs: report(wishes, now, a.drains)}
	if speakerErr != nil {
		s.Speaker = speakerErr.Error()
	}
	if r.err != nil {
		s.Error = r.err.Error()
	}
	a.mu.Lock()
	a.status = s
	a.mu.Unlock()
}
