package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// Status is what the last pass found and did.
type Status struct {
	At        time.Time // end of the pass; zero before the first
	Speaker   string    // "ready", or what is wrong with it
	TableRead bool      // the speaker's table is known; without it no VIP counts as announced
	HostRead  bool      // what the host holds is known; without it no VIP counts as held
	Stopping  bool
	Error     string      // what failed in the pass; "" if nothing
	VIPs      []VIPStatus // by address; also those of ours that are not configured any more
}

// String is the status in one line.
func (s Status) String() string {
	wanted, announced, others := 0, 0, 0
	for _, v := range s.VIPs {
		switch {
		case v.Want == Announce && v.Announced:
			wanted, announced = wanted+1, announced+1
		case v.Want == Announce:
			wanted++
		case v.Announced:
			others++
		}
	}
	text := fmt.Sprintf("announced %d of %d healthy VIPs", announced, wanted)
	if !s.TableRead {
		text = fmt.Sprintf("announced unknown of %d healthy VIPs", wanted)
	}
	if others > 0 {
		text += fmt.Sprintf(", and %d others", others)
	}
	if s.Stopping {
		text = "stopping; " + text
	}
	text += "; speaker: " + s.Speaker
	if s.Error != "" && s.Error != s.Speaker {
		text += "; " + s.Error
	}
	return cut(strings.ReplaceAll(text, "\n", "; "), 400)
}

// VIPStatus is one VIP of a Status.
type VIPStatus struct {
	Address   netip.Addr
	Want      Want
	Why       string  // the reason of Want
	Announced bool    // a path of ours is in the speaker's table
	Held      bool    // by the host, whoever made it so
	As        vip.How // how we hold it
	Foreign   bool    // the address, or a path for it, is somebody else's; it is left alone
	Draining  bool    // withdrawn, and held until the drain is over
}

// Status returns a copy of the last pass' result.
func (a *Announcer) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.status
	s.VIPs = slices.Clone(s.VIPs)
	return s
}

// report builds the VIPs of a Status.
func report(wishes map[netip.Addr]wish, now live, waiting drains) []VIPStatus {
	all := make(map[netip.Addr]wish, len(wishes))
	for addr, w := range wishes {
		all[addr] = w
	}
	for prefix := range now.table.Own {
		if _, ok := all[prefix.Addr()]; !ok {
			all[prefix.Addr()] = notConfigured
		}
	}
	for addr := range now.addrs.Own {
		if _, ok := all[addr]; !ok {
			all[addr] = notConfigured
		}
	}
	list := make([]VIPStatus, 0, len(all))
	for addr, w := range all {
		prefix := speaker.HostPrefix(addr)
		_, announced := now.table.Own[prefix]
		_, draining := waiting[addr]
		list = append(list, VIPStatus{
			Address: addr, Want: w.want, Why: w.why, Announced: announced,
			Held: now.addrs.Holds(addr, vip.Anyhow), As: now.addrs.Own[addr],
			Foreign:  now.addrs.Foreign[addr] || now.table.Foreign[prefix] > 0,
			Draining: draining,
		})
	}
	slices.SortFunc(list, func(a, b VIPStatus) int { return a.Address.Compare(b.Address) })
	return list
}
