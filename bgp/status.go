package bgp

import (
	"net/netip"
	"slices"
	"time"

	"github.com/centra/plasmacloud/bgp/speaker"
)

// Status is what the last pass found and did.
type Status struct {
	At       time.Time // end of the pass; zero before the first
	Speaker  string    // "ready", or what is wrong with it
	Stopping bool
	Error    string      // what failed in the pass; "" if nothing
	VIPs     []VIPStatus // by address; also those of ours that are not configured any more
}

// VIPStatus is one VIP of a Status.
type VIPStatus struct {
	Address   netip.Addr
	Want      Want
	Why       string // the reason of Want
	Announced bool   // a path of ours is in the speaker's table
	Held      bool   // the address is on the host
	Foreign   bool   // the address, or a path for it, is somebody else's; it is left alone
	Draining  bool   // withdrawn, and held until the drain is over
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
	orphan := wish{want: Withdraw, why: "is not in the configuration"}
	for prefix := range now.table.Own {
		if _, ok := all[prefix.Addr()]; !ok {
			all[prefix.Addr()] = orphan
		}
	}
	for addr := range now.addrs.Own {
		if _, ok := all[addr]; !ok {
			all[addr] = orphan
		}
	}
	list := make([]VIPStatus, 0, len(all))
	for addr, w := range all {
		prefix := speaker.HostPrefix(addr)
		_, announced := now.table.Own[prefix]
		_, draining := waiting[addr]
		list = append(list, VIPStatus{
			Address: addr, Want: w.want, Why: w.why, Announced: announced,
			Held:     now.addrs.Holds(addr),
			Foreign:  now.addrs.Foreign[addr] || now.table.Foreign[prefix] > 0,
			Draining: draining,
		})
	}
	slices.SortFunc(list, func(a, b VIPStatus) int { return a.Address.Compare(b.Address) })
	return list
}
