package bgp

import (
	"net/netip"
	"time"

	"github.com/centra/plasmacloud/bgp/speaker"
)

// drain is one address of ours on its way out. It is the only thing that the
// announcer remembers; after a crash it starts anew.
type drain struct {
	since time.Time // first seen unwanted and without a path
	out   time.Time // when no peer was offered the path any more; zero until then
}

// drains holds the addresses on their way out.
type drains map[netip.Addr]*drain

// update keeps exactly the unwanted addresses that have no path of ours. One that
// is wanted again, or announced again, starts from the beginning the next time.
func (d drains) update(unwanted []netip.Addr, own map[netip.Prefix]speaker.Path, now time.Time) {
	keep := make(map[netip.Addr]bool, len(unwanted))
	for _, addr := range unwanted {
		if _, announced := own[speaker.HostPrefix(addr)]; announced {
			continue
		}
		keep[addr] = true
		if d[addr] == nil {
			d[addr] = &drain{since: now}
		}
	}
	for addr := range d {
		if !keep[addr] {
			delete(d, addr)
		}
	}
}

// unconfirmed are the prefixes of which it is not known that no peer is offered them.
func (d drains) unconfirmed() []netip.Prefix {
	var prefixes []netip.Prefix
	for addr, dr := range d {
		if dr.out.IsZero() {
			prefixes = append(prefixes, speaker.HostPrefix(addr))
		}
	}
	return prefixes
}

// confirm starts the delay of every address that is offered to nobody, and returns
// those still on offer. After bound it gives up waiting for them, and returns
// them as late.
func (d drains) confirm(offered map[netip.Prefix][]netip.Addr, now time.Time, bound time.Duration) (waiting, late []netip.Addr) {
	for addr, dr := range d {
		if !dr.out.IsZero() {
			continue
		}
		switch {
		case len(offered[speaker.HostPrefix(addr)]) == 0:
			dr.out = now
		case now.Sub(dr.since) >= bound:
			dr.out = now
			late = append(late, addr)
		default:
			waiting = append(waiting, addr)
		}
	}
	return waiting, late
}

// due returns the addresses whose delay is over, and when the next one's will be
// (zero: none waits).
func (d drains) due(delay time.Duration, now time.Time) (due []netip.Addr, next time.Time) {
	for addr, dr := range d {
		if dr.out.IsZero() {
			continue
		}
		if at := dr.out.Add(delay); at.After(now) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
		} else {
			due = append(due, addr)
		}
	}
	return due, next
}
