package bgp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/centra/plasmacloud/bgp/speaker"
)

// drains holds the addresses on their way out, with the time since when the delay
// of each runs; zero: not yet. It is the only thing that the announcer remembers;
// after a crash it starts anew.
type drains map[netip.Addr]time.Time

// update keeps exactly the unwanted addresses that have no path of ours. One that
// is wanted again, or announced again, starts from the beginning the next time.
func (d drains) update(unwanted []netip.Addr, own map[netip.Prefix]speaker.Path) {
	keep := make(map[netip.Addr]bool, len(unwanted))
	for _, addr := range unwanted {
		if _, announced := own[speaker.HostPrefix(addr)]; announced {
			continue
		}
		keep[addr] = true
		if _, known := d[addr]; !known {
			d[addr] = time.Time{}
		}
	}
	for addr := range d {
		if !keep[addr] {
			delete(d, addr)
		}
	}
}

// waiting reports whether the delay of any address does not run yet.
func (d drains) waiting() bool {
	for _, since := range d {
		if since.IsZero() {
			return true
		}
	}
	return false
}

// start starts every delay that does not run yet.
func (d drains) start(now time.Time) {
	for addr, since := range d {
		if since.IsZero() {
			d[addr] = now
		}
	}
}

// due returns the addresses whose delay is over, and when the next one's will be
// (zero: none runs).
func (d drains) due(delay time.Duration, now time.Time) (due []netip.Addr, next time.Time) {
	for addr, since := range d {
		if since.IsZero() {
			continue
		}
		if at := since.Add(delay); at.After(now) {
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

// drain moves the unwanted addresses on: from the path being out of the speaker's
// table, through the delay, to the release. It does nothing unless the table was
// read in this pass.
//
// The delay has to cover the way of the withdraw from the speaker to the routers,
// too. How far it has come cannot be asked: gobgpd computes its Adj-RIB-Out from
// the table, shows no queue, and its count of sent messages stands still for a
// router that reads nothing as it does when all are sent.
func (a *Announcer) drain(ctx context.Context, cfg *Config, unwanted []netip.Addr, now live, stopping bool) (next time.Time, err error) {
	if !now.tableKnown || !now.addrsKnown {
		return time.Time{}, nil
	}
	a.drains.update(unwanted, now.table.Own)
	if a.drains.waiting() {
		if err = a.told(ctx); err == nil {
			a.drains.start(time.Now())
		}
	}
	due, next := a.drains.due(cfg.DrainDelay, time.Now())
	if len(due) == 0 {
		return next, err
	}
	if err := errors.Join(err, a.holder.Release(ctx, due)); err != nil {
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

// errNoSession keeps an address held: whoever had a session with this speaker, or
// with the one that ran here before, may keep the route until it has one again, or
// until its restart time is over (RFC 4724), and the speaker does not know of it.
var errNoSession = errors.New("no router has a session with the speaker, so none has been told of the withdraw; one that waits for a graceful restart still sends traffic")

// told is nil if the speaker has somebody to tell of a withdraw, or is configured
// with nobody.
func (a *Announcer) told(ctx context.Context) error {
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
	default:
		a.log.Warn("not every router is told of the withdraw, for want of a session; one that waits for a graceful restart still sends traffic",
			"routers", some(without))
	}
	return nil
}
