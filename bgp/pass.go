package bgp

import (
	"context"
	"errors"
	"maps"
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
	clean bool      // nothing of ours can be announced or is held, as read at the start of the pass
	now   live      // as read at the start of the pass
}

// maxError is how much of an error is told: each of 100,000 VIPs may have one of its own.
const maxError = 2000

// confirmPause is how soon a pass looks again whether what was done had an effect.
const confirmPause = 20 * time.Millisecond

// pass reads the live state once, and does what it lacks of the desired state.
func (a *Announcer) pass(ctx context.Context, stopping bool) result {
	began := time.Now()
	cfg := a.config()
	now, speakerErr, addrsErr := a.read(ctx)
	if now.lost != nil { // it may be back already, with an empty table
		clear(a.sent)
		a.reportSpeaker(now.lost)
	}
	a.past.note(a.haste.fallen()) // before the checks are asked: a fall since is the next pass's, which finds it judged
	in := a.inputs(cfg, now)
	if !stopping && now.lost == nil && addrsErr == nil && speakerErr == nil && !a.haste.hasHurried() && in.same(a.rested) {
		a.stillIdle(now, began)
		a.log.Debug("pass", "took", time.Since(began), "vips", len(cfg.VIPs))
		return result{now: now}
	}
	if speakerErr == nil && a.onReady != nil {
		a.onReady(cfg)
		a.onReady = nil
	}
	defer a.offers.act()()
	a.rested, a.troubles = nil, newTroubles()
	wishes := desired(cfg, in.orders, in.state, a.past, began, now.internalPeer(cfg.ASN), stopping)
	before, released := a.haste.gone, a.released
	hurried := a.haste.decide(now, wishes)
	last := a.lastStatus()
	a.reportSpeaker(speakerErr)
	a.reportSessions(now)
	a.noteWishes(last, wishes, hurried)
	a.reportPrepend(cfg, now)
	a.reportForeign(wishes, now)

	a.delays.update(wishes, now)
	todo := plan(wishes, now)
	if speakerErr != nil {
		todo.announce = nil
	}
	a.released = map[netip.Addr]bool{}
	if now.lost == nil {
		a.noteGone("the path is out of the speaker's table", lostPaths(todo.announce, last, now, before, hurried))
	}
	todo.withdraw = slices.DeleteFunc(todo.withdraw, func(p netip.Prefix) bool { return hurried[p] }) // read before it was gone
	for _, addrs := range todo.bind {
		a.noteGone("the host does not hold it", lostHolds(addrs, last, now, released))
	}
	of := wishes.of
	leaving, lowerUntil, lowerErr := a.lower(ctx, cfg, todo.withdraw, wishes, now, speakerErr)
	withdrawErr := a.withdraw(ctx, leaving, before, of)
	bound, failed, bindErr := a.bind(ctx, todo.bind, of)
	// Traffic that comes for an address that is not held in any way is lost.
	maps.DeleteFunc(failed, func(addr netip.Addr, _ bool) bool { return now.addrs.Holds(addr, vip.Anyhow) })
	var unheld []netip.Prefix
	for addr := range failed {
		if p := speaker.HostPrefix(addr); now.table.Own[p].Prefix.IsValid() {
			unheld = append(unheld, p)
		}
	}
	slices.SortFunc(unheld, netip.Prefix.Compare)
	withdrawErr = errors.Join(withdrawErr, a.withdraw(ctx, unheld, before, func(netip.Addr) *wish { return &cannotBeHeld }))
	a.noteUnheld(cfg, now)
	moved, surplusErr := a.letGo(ctx, todo.surplus)
	announced, announceErr := a.announce(ctx, todo.announce, wishes, failed, now)
	next, drainErr := a.drain(ctx, cfg, todo.unwanted, now, of, stopping)
	if next.IsZero() || !lowerUntil.IsZero() && lowerUntil.Before(next) {
		next = lowerUntil
	}
	a.troubles.explain(speakerErr, addrsErr)
	stepErr := errors.Join(lowerErr, withdrawErr, bindErr, surplusErr, announceErr, drainErr)
	if len(a.haste.gone) > 0 && withdrawErr == nil || bound || moved || announced && announceErr == nil {
		next = time.Now().Add(confirmPause)
	}
	clean := isClean(now, speakerErr)
	if clean && stopping && time.Now().Before(a.until) {
		clean, next = false, a.until
	}

	for i := range wishes.all {
		if w := &wishes.all[i]; !w.until.IsZero() && (next.IsZero() || w.until.Before(next)) {
			next = w.until
		}
	}

	r := result{err: errors.Join(addrsErr, speakerErr, stepErr), next: next, now: now, clean: clean}
	a.reportError(errors.Join(addrsErr, stepErr))
	if a.idle(r) && !stopping {
		a.rested = in
	}
	a.publish(wishes, now, speakerErr, r, time.Since(began), stopping)
	a.log.Debug("pass", "took", time.Since(began), "vips", len(wishes.all))
	return r
}

// isClean reports whether a stop has nothing left to do. A speaker that is not
// running has no table, but its routers may keep our routes (graceful restart, RFC
// 4724): then a stop is clean only if nothing of ours is held.
func isClean(now live, speakerErr error) bool {
	switch {
	case !now.addrsKnown || len(now.addrs.Own) > 0:
		return false
	case now.tableKnown:
		return len(now.table.Own) == 0
	default:
		return errors.Is(speakerErr, speaker.ErrGone) || errors.Is(speakerErr, speaker.ErrNotConfigured)
	}
}

// noteUnheld keeps a stop waiting for the drain of what this pass withdrew and we do
// not hold: nothing in the live state tells of it, and whoever stops the speaker after
// us may do so before the withdraw is out.
func (a *Announcer) noteUnheld(cfg *Config, now live) {
	for p := range a.haste.gone {
		if addr := p.Addr(); now.addrs.Own[addr] == vip.None {
			if until := time.Now().Add(a.delays.of(addr, cfg.DrainDelay)); until.After(a.until) {
				a.until = until
			}
		}
	}
}

// read is the live state. The table of a speaker that is away is not known: its
// routers may go on sending to us until it comes back, so nothing follows from its
// absence. One with another ASN is not given anything, and told to take back what it has.
func (a *Announcer) read(ctx context.Context) (now live, speakerErr, addrsErr error) {
	now.addrs, addrsErr = a.holder.List(ctx)
	now.addrsKnown = addrsErr == nil
	if lost := a.lost.Swap(nil); lost != nil {
		now.lost = *lost
	}
	speakerErr = a.speaker.Ready(ctx)
	if speakerErr == nil || errors.Is(speakerErr, speaker.ErrWrongASN) {
		table, err := a.speaker.List(ctx)
		if err != nil {
			return now, err, addrsErr
		}
		if now.peers, err = a.speaker.Peers(ctx); err != nil {
			return now, err, addrsErr
		}
		now.table, now.tableKnown = table, true
	}
	return now, speakerErr, addrsErr
}

// withdraw withdraws what hurry has not; before is what the last pass did.
func (a *Announcer) withdraw(ctx context.Context, prefixes []netip.Prefix, before map[netip.Prefix]bool, of func(netip.Addr) *wish) error {
	if prefixes = a.haste.leave(prefixes); len(prefixes) == 0 {
		return nil
	}
	if err := a.speaker.Withdraw(ctx, prefixes); err != nil {
		a.haste.stay(prefixes)
		return err
	}
	var stuck []netip.Prefix
	for _, p := range prefixes {
		if before[p] {
			stuck = append(stuck, p)
		}
	}
	if len(stuck) == 0 {
		a.did("withdraw", addrsOf(prefixes), of)
	}
	return noEffect("withdraw", stuck, "did another client add it, with our path identifier and a source of its own?")
}

// bind holds each VIP as it should be. It returns those that could not be bound.
func (a *Announcer) bind(ctx context.Context, todo map[vip.How][]netip.Addr, of func(netip.Addr) *wish) (did bool, failed map[netip.Addr]bool, err error) {
	failed = map[netip.Addr]bool{}
	for how, addrs := range todo {
		bindErr := a.holder.Bind(ctx, how, addrs)
		err = errors.Join(err, bindErr)
		for _, addr := range unbound(bindErr, addrs) {
			failed[addr] = true
		}
		a.troubles.unbound(bindErr, addrs)
		if bound := slices.DeleteFunc(slices.Clone(addrs), func(addr netip.Addr) bool { return failed[addr] }); len(bound) > 0 {
			did = true
			a.did("bind", bound, of, "as", how.String())
		}
	}
	return did, failed, err
}

// letGo lets go of the ways in which VIPs need not be held any more: each was seen to
// be held as it should be.
func (a *Announcer) letGo(ctx context.Context, surplus map[vip.How][]netip.Addr) (did bool, err error) {
	for how, addrs := range surplus {
		releaseErr := a.holder.Release(ctx, how, addrs)
		err = errors.Join(err, releaseErr)
		if moved := without(addrs, unbound(releaseErr, addrs)); len(moved) > 0 {
			did = true
			from := wish{cause: CauseHold, why: "is held otherwise now, and not as " + how.String() + " any more"}
			a.did("move", moved, func(netip.Addr) *wish { return &from }, "from", how.String())
		}
	}
	return did, err
}

// announce announces what is held; did says whether anything changed.
func (a *Announcer) announce(ctx context.Context, paths []speaker.Path, wishes *wishList, failed map[netip.Addr]bool, now live) (did bool, err error) {
	if !now.tableKnown {
		clear(a.sent) // the speaker that comes back may know nothing of it
		return false, nil
	}
	a.sent.keep(wishes)
	a.sent.observe(now.table.Own)
	if len(a.sent) == 0 {
		a.sent = sentPaths{} // an empty map keeps the memory of what was in it
	}
	paths, changed, news := a.sent.filter(paths, now.table.Own)
	a.troubles.add(addrsOf(changed), changedWhy)
	a.noteChanged(news)
	paths = slices.DeleteFunc(paths, func(p speaker.Path) bool { return failed[p.Prefix.Addr()] })
	if len(paths) == 0 {
		return false, nil
	}
	dropped, news := a.sent.dropped(paths, now.table.Own)
	if len(news) > 0 { // the error of the pass is logged
		a.events.add(Event{Kind: EventDropped, Reason: droppedWhy}, addrsOf(news))
	}
	sent := prefixesOf(paths, nil)
	paths, err = a.announceUp(ctx, paths, wishes)
	a.offers.sent(sent, err)
	a.sent.sent(paths)
	a.troubles.add(addrsOf(dropped), droppedWhy)
	a.troubles.refused(err)
	a.did("announce", addrsOf(prefixesOf(paths, dropped)), wishes.of)
	return len(paths) > 0, errors.Join(err, noEffect("announce", dropped, "does an import policy drop it?"))
}

// prefixesOf are the prefixes of paths, without those of no effect.
func prefixesOf(paths []speaker.Path, without []netip.Prefix) []netip.Prefix {
	skip := make(map[netip.Prefix]bool, len(without))
	for _, p := range without {
		skip[p] = true
	}
	prefixes := make([]netip.Prefix, 0, len(paths))
	for _, p := range paths {
		if !skip[p.Prefix] {
			prefixes = append(prefixes, p.Prefix)
		}
	}
	return prefixes
}

// lostPaths are the VIPs of paths that were in the table in the pass before, are not now,
// and were not withdrawn in it, nor in a hurry since.
func lostPaths(paths []speaker.Path, last Status, now live, withdrawn, hurried map[netip.Prefix]bool) []netip.Addr {
	var lost []netip.Addr
	for _, p := range paths {
		addr := p.Prefix.Addr()
		if _, there := now.table.Own[p.Prefix]; there || withdrawn[p.Prefix] || hurried[p.Prefix] {
			continue
		}
		if was := last.vip(addr); was.Announced {
			lost = append(lost, addr)
		}
	}
	return lost
}

// lostHolds are those of addrs that we held in the pass before, do not now, and did not
// let go of in it.
func lostHolds(addrs []netip.Addr, last Status, now live, released map[netip.Addr]bool) []netip.Addr {
	var lost []netip.Addr
	for _, addr := range addrs {
		if was := last.vip(addr); was.As != vip.None && now.addrs.Own[addr] == vip.None && !released[addr] {
			lost = append(lost, addr)
		}
	}
	return lost
}

// publish makes the status of this pass the current one.
func (a *Announcer) publish(wishes *wishList, now live, speakerErr error, r result, took time.Duration, stopping bool) {
	s := Status{At: time.Now(), Took: took, Interval: a.interval(), Peers: now.peers, Speaker: Ready, TableRead: now.tableKnown, HostRead: now.addrsKnown,
		Stopping: stopping, VIPs: report(wishes, now, a.lowered, a.drains, a.troubles)}
	if speakerErr != nil {
		s.Speaker = speakerErr.Error()
	}
	if r.err != nil {
		s.Error = cut(r.err.Error(), maxError)
	}
	a.set(s)
}

// set makes s the current status, with the steps since the last one.
func (a *Announcer) set(s Status) {
	a.mu.Lock()
	s.Steps, a.steps = a.steps, nil
	before := a.status
	nobody, unknown := a.offers.over(&s, func(*VIPStatus, []netip.Addr, string) {})
	s.NotOffered = nobody
	a.status = s
	a.mu.Unlock()
	a.haste.published()
	a.offers.passed(before, s, unknown)
	for _, f := range a.onPass {
		f(s)
	}
}
