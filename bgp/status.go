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

// Ready is Status.Speaker of a speaker with which nothing is wrong.
const Ready = "ready"

// Status is what the last pass found and did.
type Status struct {
	At        time.Time // end of the pass; zero before the first
	Took      time.Duration
	Interval  time.Duration  // at most this long until the next pass starts
	Steps     []Step         // what the pass did
	Speaker   string         // "ready", or what is wrong with it
	Peers     []speaker.Peer // of the speaker; none while TableRead is false
	TableRead bool           // the speaker's table is known; without it no VIP counts as announced
	HostRead  bool           // what the host holds is known; without it no VIP counts as held
	Stopping  bool
	Refused   string      // why the last reload was refused; "" if it was not
	Error     string      // what failed in the pass; "" if nothing
	VIPs      []VIPStatus // by address; also those of ours that are not configured any more
	// NotOffered is how many VIPs are wanted, announced, and offered to nobody.
	NotOffered int
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
	if s.NotOffered > 0 {
		text += fmt.Sprintf("; %d offered to no peer", s.NotOffered)
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

// Step is something that a pass did to one or more VIPs, and that was not without effect.
type Step struct {
	Do    string // "announce", "lower", "withdraw", "bind", "release" or "move"
	Cause Cause
	Count int
}

// VIPStatus is one VIP of a Status.
type VIPStatus struct {
	Address   netip.Addr
	Want      Want
	Cause     Cause   // of Want
	Why       string  // the same in words
	Announced bool    // a path of ours is in the speaker's table
	Lowered   bool    // announced with the lowest preference, before its withdraw
	Held      bool    // by the host, whoever made it so
	As        vip.How // how we hold it
	Foreign   string  // "the address", "a path", or both, of somebody else's; it is left alone; "" if there is nothing
	Draining  bool    // withdrawn, and held until the drain is over
	Damping   DampingState

	Trouble string       // why it is not announced although it is wanted, or not as it should be, in words; "" if nothing is wrong
	Looked  bool         // Offered is known: gobgpd was asked since it is announced
	Offered []netip.Addr // the peers that are offered our path; shared, to be read only
}

// Status returns a copy of the last pass' result.
func (a *Announcer) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.status
	s.Refused = a.refused
	s.VIPs, s.Steps, s.Peers = slices.Clone(s.VIPs), slices.Clone(s.Steps), slices.Clone(s.Peers)
	a.offers.fill(&s, a.cfg.NextHop)
	return s
}

// vip is what s says of one VIP; zero if it does not know it.
func (s Status) vip(addr netip.Addr) VIPStatus {
	i, ok := slices.BinarySearchFunc(s.VIPs, addr, func(v VIPStatus, addr netip.Addr) int { return v.Address.Compare(addr) })
	if !ok {
		return VIPStatus{}
	}
	return s.VIPs[i]
}

// lastStatus is the last pass' result itself, to be read only.
func (a *Announcer) lastStatus() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

// report builds the VIPs of a Status.
func report(wishes *wishList, now live, leaving map[netip.Prefix]lowering, waiting drains, troubles troubles) []VIPStatus {
	list := make([]VIPStatus, 0, len(wishes.all))
	add := func(addr netip.Addr, w *wish) {
		prefix := speaker.HostPrefix(addr)
		_, announced := now.table.Own[prefix]
		_, isLowered := leaving[prefix]
		_, draining := waiting[addr]
		list = append(list, VIPStatus{
			Address: addr, Want: w.want, Cause: w.cause, Why: w.why, Announced: announced, Lowered: announced && isLowered,
			Held: now.addrs.Holds(addr, vip.Anyhow), As: now.addrs.Own[addr],
			Foreign: foreignAt(addr, now), Draining: draining, Damping: w.damping, Trouble: troubles.of(addr, w, announced),
		})
	}
	for i := range wishes.all {
		add(wishes.all[i].addr, &wishes.all[i])
	}
	for prefix := range now.table.Own {
		if !wishes.has(prefix.Addr()) {
			add(prefix.Addr(), &notConfigured)
		}
	}
	for addr := range now.addrs.Own {
		if _, announced := now.table.Own[speaker.HostPrefix(addr)]; !announced && !wishes.has(addr) {
			add(addr, &notConfigured)
		}
	}
	slices.SortFunc(list, func(a, b VIPStatus) int { return a.Address.Compare(b.Address) })
	return list
}

// addrsOf are the addresses of host prefixes.
func addrsOf(prefixes []netip.Prefix) []netip.Addr {
	addrs := make([]netip.Addr, len(prefixes))
	for i, p := range prefixes {
		addrs[i] = p.Addr()
	}
	return addrs
}
