package bgp

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
)

// haste is what hurry and the pass under way, which it does not wait for, must know of
// each other. Hurry keeps it locked until it is done, a pass for moments only.
type haste struct {
	sync.Mutex
	known   bool                          // the last pass read the table
	own     map[netip.Prefix]speaker.Path // what it read
	decided *wishList                     // by the pass under way; nil: not yet, or there is none
	sending []map[netip.Prefix]bool       // is being announced just now, or next
	fresh   []map[netip.Prefix]bool       // announced by the last pass
	gone    map[netip.Prefix]bool         // withdrawn by the last pass, or in a hurry before it decided
	hurried map[netip.Prefix]bool         // withdrawn in a hurry since
	fell    map[netip.Addr]bool           // the same, since a pass has judged the checks
}

// decide has hurry go by what a pass read and decided. It returns what was withdrawn in a
// hurry before.
func (h *haste) decide(now live, wishes *wishList) (hurried map[netip.Prefix]bool) {
	h.Lock()
	defer h.Unlock()
	h.known, h.own, h.decided = now.tableKnown, now.table.Own, wishes
	h.gone, h.hurried, h.fresh = h.hurried, map[netip.Prefix]bool{}, nil
	return h.gone
}

// published ends the time between decide and the status that tells of it.
func (h *haste) published() {
	h.Lock()
	defer h.Unlock()
	h.decided = nil
}

// fallen are the VIPs withdrawn in a hurry since it was asked last.
func (h *haste) fallen() map[netip.Addr]bool {
	h.Lock()
	defer h.Unlock()
	fell := h.fell
	h.fell = map[netip.Addr]bool{}
	return fell
}

// hasHurried reports whether anything was withdrawn in a hurry since the last pass decided.
func (h *haste) hasHurried() bool {
	h.Lock()
	defer h.Unlock()
	return len(h.hurried) > 0
}

// hasFallen has hurry look at the VIPs of a check that went down.
func (a *Announcer) hasFallen(c health.Check) {
	a.mu.Lock()
	a.down[c] = true
	a.mu.Unlock()
	poke(a.fell)
}

// hurryOn hurries until ctx ends.
func (a *Announcer) hurryOn(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.fell:
			a.hurry(ctx)
		}
	}
}

// hurry withdraws what checks have just taken down, ahead of the pass that they start and
// beside the one that is under way: over 100,000 VIPs a pass takes a second and more. What
// was found announced, or announced since, needs no look, since withdrawing what is not
// there does nothing. All else, and what fails here, is left to the pass.
func (a *Announcer) hurry(ctx context.Context) {
	h := &a.haste
	h.Lock()
	defer h.Unlock()
	a.mu.Lock()
	cfg, last, orders, down, users := a.cfg, a.status, a.orders, a.down, a.users
	a.down = map[health.Check]bool{}
	a.mu.Unlock()
	if !h.known || cfg.GracefulShutdown.applies(CauseHealth) {
		return
	}
	wishes := newWishList(0)
	var prefixes []netip.Prefix
	var untold []netip.Addr
	later := map[health.Check]bool{} // once the speaker has taken what it gets
	for c := range down {
		for _, v := range users[c] {
			prefix := speaker.HostPrefix(v.Address)
			if isIn(h.sending, prefix) {
				later[c] = true
				continue
			}
			again := wishes.has(v.Address)
			_, drained := orders.of(v.Address)
			_, announced := h.own[prefix]
			announced = announced && !h.gone[prefix] || isIn(h.fresh, prefix)
			was := wish{want: last.vip(v.Address).Want}
			if h.decided != nil {
				was = *h.decided.of(v.Address)
			}
			if again || drained || !announced || h.hurried[prefix] || was.want == Withdraw && was.cause != CauseHealth {
				continue
			}
			w := wish{}
			if w.want, w.cause, w.why = healthOf(v, a.health); w.want == Withdraw {
				wishes.add(v.Address, w)
				prefixes = append(prefixes, prefix)
				if was.want != Withdraw {
					untold = append(untold, v.Address)
				}
			}
		}
	}
	a.mu.Lock()
	maps.Copy(a.down, later)
	a.mu.Unlock()
	if len(prefixes) == 0 {
		return
	}
	defer a.offers.act()()
	if a.speaker.Withdraw(ctx, prefixes) != nil {
		return
	}
	for _, p := range prefixes {
		h.hurried[p], h.fell[p.Addr()] = true, true
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	slices.SortFunc(untold, netip.Addr.Compare)
	a.noteWant(EventUnwanted, untold, wishes.of)
	a.did("withdraw", addrsOf(prefixes), wishes.of)
	a.trigger() // to see that it is gone
}

// leave returns those of prefixes that hurry has not withdrawn, and leaves them to the
// pass from now on.
func (h *haste) leave(prefixes []netip.Prefix) []netip.Prefix {
	h.Lock()
	defer h.Unlock()
	var left []netip.Prefix
	for _, p := range prefixes {
		if !h.hurried[p] {
			left = append(left, p)
			h.gone[p] = true
		}
	}
	return left
}

// stay takes back leave, after a failure.
func (h *haste) stay(prefixes []netip.Prefix) {
	h.Lock()
	defer h.Unlock()
	for _, p := range prefixes {
		delete(h.gone, p)
	}
}

// isIn reports whether any of sets has p.
func isIn(sets []map[netip.Prefix]bool, p netip.Prefix) bool {
	return slices.ContainsFunc(sets, func(set map[netip.Prefix]bool) bool { return set[p] })
}

// announceAtOnce is how many paths the speaker gets before hurry has its turn with them.
const announceAtOnce = 10_000

// announceUp announces those of paths whose checks have not gone down since they were
// wanted. While the speaker takes some of them the next are got ready. It returns, in the
// memory of paths, those that it has taken.
func (a *Announcer) announceUp(ctx context.Context, paths []speaker.Path, wishes *wishList) (taken []speaker.Path, err error) {
	refused := &speaker.PathErrors{ByPrefix: map[netip.Prefix]error{}}
	taken = paths[:0]
	parts := slices.Collect(slices.Chunk(paths, announceAtOnce))
	now := a.willSend(parts[0], wishes)
	for i := range parts {
		var next []speaker.Path
		var meanwhile sync.WaitGroup
		if i+1 < len(parts) {
			meanwhile.Go(func() { next = a.willSend(parts[i+1], wishes) })
		}
		err := a.speaker.Announce(ctx, now)
		meanwhile.Wait()
		var some *speaker.PathErrors
		if errors.As(err, &some) {
			maps.Copy(refused.ByPrefix, some.ByPrefix)
			err = nil
		}
		a.haveSent(err == nil)
		if err != nil {
			if len(refused.ByPrefix) > 0 {
				err = errors.Join(refused, err)
			}
			return taken, err
		}
		for _, p := range now {
			if refused.ByPrefix[p.Prefix] == nil {
				taken = append(taken, p)
			}
		}
		now = next
	}
	if len(refused.ByPrefix) > 0 {
		err = refused
	}
	return taken, err
}

// willSend has hurry wait for those of paths that are still to be announced. It returns
// them, in the memory of paths.
func (a *Announcer) willSend(paths []speaker.Path, wishes *wishList) []speaker.Path {
	h := &a.haste
	h.Lock()
	defer h.Unlock()
	sending := make(map[netip.Prefix]bool, len(paths))
	h.sending = append(h.sending, sending)
	return slices.DeleteFunc(paths, func(p speaker.Path) bool {
		want, _, _ := healthOf(wishes.of(p.Prefix.Addr()).vip, a.health)
		sending[p.Prefix] = want != Withdraw && !h.hurried[p.Prefix]
		return !sending[p.Prefix]
	})
}

// haveSent has hurry look at what waited for the paths sent first, which the speaker has,
// or after an error perhaps. Unless there is more to come, none waits any more.
func (a *Announcer) haveSent(more bool) {
	h := &a.haste
	h.Lock()
	h.fresh = append(h.fresh, h.sending[0])
	if h.sending = h.sending[1:]; !more {
		h.sending = nil
	}
	h.Unlock()
	poke(a.fell)
}
