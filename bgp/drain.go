package bgp

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// drains holds the addresses on their way out. With delays it is the only thing that
// the announcer remembers; after a crash it starts anew.
type drains map[netip.Addr]drain

// drain is the way out of one address.
type drain struct {
	asked time.Time // since when it is asked whether peers are offered it still; zero: not yet
	since time.Time // since when the delay runs; zero: not yet
	delay time.Duration
}

// update keeps exactly the unwanted addresses that have no path of ours. One that
// is wanted again, or announced again, starts from the beginning the next time.
func (d drains) update(unwanted []netip.Addr, own map[netip.Prefix]speaker.Path, delay func(netip.Addr) time.Duration) {
	keep := make(map[netip.Addr]bool, len(unwanted))
	for _, addr := range unwanted {
		if _, announced := own[speaker.HostPrefix(addr)]; announced {
			continue
		}
		keep[addr] = true
		d[addr] = drain{d[addr].asked, d[addr].since, delay(addr)}
	}
	maps.DeleteFunc(d, func(addr netip.Addr, _ drain) bool { return !keep[addr] })
}

// waiting reports whether the delay of any address does not run yet; fresh is whether one
// of those was not asked about either.
func (d drains) waiting() (waiting, fresh bool) {
	for _, one := range d {
		waiting = waiting || one.since.IsZero()
		fresh = fresh || one.since.IsZero() && one.asked.IsZero()
	}
	return waiting, fresh
}

// due returns the addresses whose delay is over, and when the next one's will be
// (zero: none runs).
func (d drains) due(now time.Time) (due []netip.Addr, next time.Time) {
	for addr, one := range d {
		if one.since.IsZero() {
			continue
		}
		if at := one.since.Add(one.delay); at.After(now) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
		} else {
			due = append(due, addr)
		}
	}
	slices.SortFunc(due, netip.Addr.Compare)
	return due, next
}

// delays has the drain's delay of each VIP that is configured, or was when it was
// last: one that leaves the configuration drains as long as it would have before.
type delays struct {
	wishes *wishList                    // of the last pass
	left   map[netip.Addr]time.Duration // of those that are configured no more
}

func newDelays() delays { return delays{newWishList(0), map[netip.Addr]time.Duration{}} }

func (d *delays) update(wishes *wishList, now live) {
	for i := range d.wishes.all {
		if w := &d.wishes.all[i]; !wishes.has(w.addr) {
			d.left[w.addr] = w.drain
		}
	}
	d.wishes = wishes
	maps.DeleteFunc(d.left, func(addr netip.Addr, _ time.Duration) bool {
		_, announced := now.table.Own[speaker.HostPrefix(addr)]
		gone := now.addrsKnown && now.tableKnown && now.addrs.Own[addr] == vip.None && !announced
		return gone || wishes.has(addr)
	})
}

// of is the delay of addr, or otherwise.
func (d *delays) of(addr netip.Addr, otherwise time.Duration) time.Duration {
	if d.wishes.has(addr) {
		return d.wishes.of(addr).drain
	}
	if delay, ok := d.left[addr]; ok {
		return delay
	}
	return otherwise
}

// longestDrain is how long the drain of everything may take, what comes before its
// withdraw included.
func (a *Announcer) longestDrain(cfg *Config) time.Duration {
	longest := cfg.DrainDelay
	for _, v := range cfg.VIPs {
		longest = max(longest, v.DrainDelay)
	}
	for i := range a.delays.wishes.all {
		longest = max(longest, a.delays.wishes.all[i].drain)
	}
	for _, delay := range a.delays.left {
		longest = max(longest, delay)
	}
	return cfg.GracefulShutdown.Delay + longest
}

// drain moves the unwanted addresses on: from the path being out of the speaker's
// table, and of what it offers its peers, through the delay, to the release. It does
// nothing unless the table was read in this pass.
//
// The delay has to cover the way of the withdraw from the speaker to the routers,
// too. How far it has come cannot be asked: gobgpd computes its Adj-RIB-Out from
// the table, shows no queue, and its count of sent messages stands still for a
// router that reads nothing as it does when all are sent.
func (a *Announcer) drain(ctx context.Context, cfg *Config, unwanted []netip.Addr, now live, of func(netip.Addr) *wish, stopping bool) (next time.Time, err error) {
	if !now.tableKnown || !now.addrsKnown {
		return time.Time{}, nil
	}
	a.drains.update(unwanted, now.table.Own, func(addr netip.Addr) time.Duration { return a.delays.of(addr, cfg.DrainDelay) })
	var again time.Time
	if waiting, fresh := a.drains.waiting(); waiting {
		if err = a.told(ctx, fresh); err == nil {
			again, err = a.startDrains(ctx, cfg.Speaker.Timeout)
		}
	}
	due, next := a.drains.due(time.Now())
	if next.IsZero() || !again.IsZero() && again.Before(next) {
		next = again
	}
	if len(due) == 0 {
		return next, err
	}
	releaseErr := a.holder.Release(ctx, vip.Anyhow, due)
	released := without(due, unbound(releaseErr, due))
	for _, addr := range released {
		delete(a.drains, addr)
		a.released[addr] = true
	}
	a.did("release", released, of)
	if stopping && len(released) > 0 {
		next = time.Now() // to see that nothing is left
	}
	return next, errors.Join(err, releaseErr)
}

// errNoSession keeps an address held: whoever had a session with this speaker, or
// with the one that ran here before, may keep the route until it has one again, or
// until its restart time is over (RFC 4724), and the speaker does not know of it.
var errNoSession = errors.New("no router has a session with the speaker, so none has been told of the withdraw; one that waits for a graceful restart still sends traffic")

// told is nil if the speaker has somebody to tell of a withdraw, or is configured
// with nobody. With note it notes who is not told.
func (a *Announcer) told(ctx context.Context, note bool) error {
	peers, err := a.speaker.Peers(ctx)
	if err != nil {
		return err
	}
	var without []netip.Addr
	for _, p := range peers {
		if !p.Established {
			without = append(without, p.Address)
		}
	}
	switch {
	case len(without) == 0:
	case len(without) == len(peers):
		return errNoSession
	case note:
		a.Note(slog.LevelWarn, "not every router is told of the withdraw, for want of a session; one that waits for a graceful restart still sends traffic",
			Event{Kind: EventNotAllTold, Reason: "no session with " + some(without) + ", who may still send traffic"}, "routers", some(without))
	}
	return nil
}
