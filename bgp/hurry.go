package bgp

import (
	"context"
	"net/netip"
	"slices"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
)

// hasFallen has hurry look at the VIPs of a check that went down.
func (a *Announcer) hasFallen(c health.Check) {
	a.mu.Lock()
	a.down = append(a.down, c)
	a.mu.Unlock()
	select {
	case a.fell <- struct{}{}:
	default:
	}
}

// hurry withdraws what checks have just taken down, ahead of the pass that they start: a
// pass reads everything first, which takes a second for 100,000 VIPs. What the last pass
// found announced, or announced itself, needs no look, since withdrawing what is not there does nothing. All
// else, and what fails here, is left to the pass.
func (a *Announcer) hurry(ctx context.Context) {
	a.mu.Lock()
	cfg, last, orders, down := a.cfg, a.status, a.orders, a.down
	a.down = nil
	var suspects []*VIP
	for _, c := range down {
		suspects = append(suspects, a.users[c]...)
	}
	a.mu.Unlock()
	if !last.TableRead || cfg.GracefulShutdown.applies(CauseHealth) {
		return
	}
	wishes := map[netip.Addr]wish{}
	var prefixes []netip.Prefix
	for _, v := range suspects {
		prefix := speaker.HostPrefix(v.Address)
		_, again := wishes[v.Address]
		_, drained := orders.of(v.Address)
		if was := last.vip(v.Address); again || drained || !was.Announced && !a.fresh[prefix] || was.Want == Withdraw || a.hurried[prefix] {
			continue
		}
		w := wish{}
		if w.want, w.cause, w.why = healthOf(*v, a.health); w.want == Withdraw {
			wishes[v.Address] = w
			prefixes = append(prefixes, prefix)
		}
	}
	if len(prefixes) == 0 || a.speaker.Withdraw(ctx, prefixes) != nil {
		return
	}
	for _, p := range prefixes {
		a.hurried[p] = true
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	a.noteWant(EventUnwanted, addrsOf(prefixes), wishFor(wishes))
	a.did("withdraw", addrsOf(prefixes), wishFor(wishes))
}

// readOn is read, with hurry meanwhile.
func (a *Announcer) readOn(ctx context.Context) (now live, speakerErr, addrsErr error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		now, speakerErr, addrsErr = a.read(ctx)
	}()
	for {
		select {
		case <-done:
			return now, speakerErr, addrsErr
		case <-a.fell:
			a.hurry(ctx)
		}
	}
}
