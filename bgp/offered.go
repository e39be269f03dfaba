package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/centra/plasmacloud/bgp/speaker"
)

// What peers are offered is looked at beside the passes, and seldom: for each question
// gobgpd goes over its whole table, and a withdraw that comes meanwhile waits for that.
const (
	lookEvery  = time.Minute    // while nothing happens
	lookSettle = time.Second    // after what happened last, but not later than that
	lookShare  = 100            // one in so much time, at most, goes into looks,
	lookPause  = 10 * lookEvery // but this long after one the next may come
	vainShare  = 10             // the same of looks that came to nothing
)

// offers is what peers were offered when that was looked at last. A speaker that has a
// path in its table may offer it to nobody, by policy, and sees no error in that.
type offers struct {
	news chan struct{} // something happened

	mu           sync.Mutex
	acting       int       // passes and hurries that may change something just now
	acts         uint64    // all of them so far
	happened     time.Time // when they, or sessions, did change something last
	began, ended time.Time // of the last look
	rested       time.Time // not before that is the next

	found found // by the last look

	// Used by looks alone.
	none      map[netip.Addr]offer // of which it is told that they are offered to nobody
	failed    string               // why the last look failed
	noNextHop bool                 // it is told that some lack a next hop
}

// found is what a look found: most VIPs are offered to the same peers.
type found struct {
	asked  map[netip.Addr]bool // about these, but for what was sent since
	usual  []netip.Addr
	except map[netip.Addr]offer
}

// of is to whom addr is offered.
func (f found) of(addr netip.Addr) []netip.Addr {
	if one, is := f.except[addr]; is {
		return one.to
	}
	return f.usual
}

// noNextHop is what is wrong where lacksNextHop.
const noNextHop = "routers cannot use an IPv6 path with an IPv4 next hop, and over IPv4 sessions the speaker's own address is one; set next_hop.ipv6"

// lacksNextHop reports whether all that are offered vip get it with an IPv4 address for
// next hop (RFC 4760, section 3): the speaker gives its own address on the session.
func (n NextHop) lacksNextHop(vip netip.Addr, to []netip.Addr) bool {
	return vip.Is6() && !n.IPv6.IsValid() && len(to) > 0 && !slices.ContainsFunc(to, netip.Addr.Is6)
}

// offer is to whom a VIP is offered; why says why to nobody.
type offer struct {
	to  []netip.Addr
	why string
}

func newOffers() *offers {
	return &offers{news: make(chan struct{}, 1), ended: time.Now(), none: map[netip.Addr]offer{}}
}

// act begins what may change something, and returns what ends it.
func (o *offers) act() (end func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acting++
	o.acts++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.acting--
	}
}

// sent forgets what peers were offered of paths that the speaker was given, and has taken
// for all that err says.
func (o *offers) sent(prefixes []netip.Prefix, err error) {
	var refused *speaker.PathErrors
	some := errors.As(err, &refused)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range prefixes {
		if !some || refused.ByPrefix[p] == nil {
			delete(o.found.asked, p.Addr())
		}
	}
}

// passed takes the news of a pass; unknown is whether it found paths that no look was about.
func (o *offers) passed(before, now Status, unknown bool) {
	same := before.TableRead == now.TableRead && slices.EqualFunc(before.Peers, now.Peers, func(p, q speaker.Peer) bool {
		return p.Address == q.Address && p.Established == q.Established
	})
	if same && len(now.Steps) == 0 && !unknown {
		return
	}
	o.mu.Lock()
	o.happened = time.Now()
	o.mu.Unlock()
	poke(o.news)
}

// wait is how long it is until the next look.
func (o *offers) wait() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := o.ended.Add(lookEvery)
	if settled := o.happened.Add(lookSettle); o.happened.After(o.began) && settled.Before(next) {
		next = settled
	}
	if next.Before(o.rested) {
		next = o.rested
	}
	return max(0, time.Until(next))
}

// lookOn looks until ctx ends.
func (a *Announcer) lookOn(ctx context.Context) {
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.offers.news:
		case <-timer.C:
		}
		wait := a.offers.wait()
		if wait == 0 {
			a.look(ctx)
			wait = a.offers.wait()
		}
		timer.Reset(wait)
	}
}

// look asks what peers are offered, and tells what is new. Where something was done
// meanwhile the answer may be of before or of after it, and is not taken.
func (a *Announcer) look(ctx context.Context) {
	o := a.offers
	o.mu.Lock()
	o.began = time.Now()
	acts, busy := o.acts, o.acting > 0
	o.mu.Unlock()
	var now found
	var none map[netip.Addr]offer
	var err error
	s := a.lastStatus()
	if !busy {
		now, none, err = a.lookAt(ctx, s)
	}
	o.mu.Lock()
	o.ended = time.Now()
	took := o.ended.Sub(o.began)
	if busy || o.acts != acts {
		o.happened = o.ended // so that the next look does not wait for news
		o.rested = o.ended.Add(min(vainShare*took, lookEvery))
		o.mu.Unlock()
		return
	}
	o.rested = o.ended.Add(min(lookShare*took, lookPause))
	o.found = now
	o.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if failed := fmt.Sprint(err); err != nil && failed != o.failed {
		a.log.Warn("cannot ask what peers are offered; tried again", "error", err)
		o.failed = failed
	} else if err == nil {
		o.failed = ""
	}
	if now.asked != nil {
		a.noteOffers(s, none)
		a.noteNextHops(s, now)
	}
}

// lookAt asks what peers are offered of what s has in the speaker's table, and which of
// the VIPs that are wanted nobody is. Without a session there is nothing to ask.
func (a *Announcer) lookAt(ctx context.Context, s Status) (f found, none map[netip.Addr]offer, err error) {
	var prefixes []netip.Prefix
	for _, v := range s.VIPs {
		if v.Announced {
			prefixes = append(prefixes, speaker.HostPrefix(v.Address))
		}
	}
	if s.Stopping || len(prefixes) == 0 || len(s.established()) == 0 {
		return found{}, nil, nil
	}
	got, err := a.speaker.Advertised(ctx, prefixes)
	if err != nil || got.Established == 0 {
		return found{}, nil, err
	}
	first := func(to []netip.Addr) *netip.Addr { return &to[0] } // of one slice for each set of peers
	count := map[*netip.Addr]int{}
	for _, to := range got.To {
		if count[first(to)]++; f.usual == nil || count[first(to)] > count[first(f.usual)] {
			f.usual = to
		}
	}
	f.asked, f.except, none = map[netip.Addr]bool{}, map[netip.Addr]offer{}, map[netip.Addr]offer{}
	var missing []netip.Prefix
	for _, v := range s.VIPs {
		if !v.Announced {
			continue
		}
		f.asked[v.Address] = true
		prefix := speaker.HostPrefix(v.Address)
		to := got.To[prefix]
		if len(to) == 0 || first(to) != first(f.usual) {
			f.except[v.Address] = offer{to: to}
		}
		if len(to) == 0 && v.Want == Announce {
			missing = append(missing, prefix)
		}
	}
	if len(missing) == 0 {
		return f, none, nil
	}
	filtered, err := a.speaker.Filtered(ctx, missing)
	if err != nil {
		return found{}, nil, err
	}
	for _, prefix := range missing {
		addr, why := prefix.Addr(), "another path is preferred, or it is of an address family that no peer takes"
		if filtered[prefix] {
			why = "an export policy of the speaker drops it"
		}
		none[addr] = offer{why: why}
		f.except[addr] = none[addr]
	}
	return f, none, nil
}

// noteOffers tells which VIPs are offered to nobody now, and which are offered again, of
// those that s has.
func (a *Announcer) noteOffers(s Status, none map[netip.Addr]offer) {
	before := a.offers.none
	a.offers.none = none
	news := map[string][]netip.Addr{}
	for addr, one := range none {
		if before[addr].why != one.why {
			news[one.why] = append(news[one.why], addr)
		}
	}
	for _, why := range slices.Sorted(maps.Keys(news)) {
		vips := news[why]
		slices.SortFunc(vips, netip.Addr.Compare)
		a.note(slog.LevelWarn, "announced, and offered to no peer", Event{Kind: EventNotOffered, Reason: why}, vips,
			"count", len(vips), "prefixes", some(hostPrefixes(vips)), "why", why)
	}
	var again []netip.Addr
	for addr := range before {
		if v := s.vip(addr); v.Announced && v.Want == Announce && none[addr].why == "" {
			again = append(again, addr)
		}
	}
	if len(again) > 0 {
		slices.SortFunc(again, netip.Addr.Compare)
		a.note(slog.LevelInfo, "offered", Event{Kind: EventOffered, Reason: "peers are offered it again"}, again,
			"count", len(again), "prefixes", some(hostPrefixes(again)))
	}
	if len(news) > 0 || len(again) > 0 {
		a.trigger() // for whoever reads the status of passes
	}
}

// noteNextHops tells once of VIPs that routers cannot use for want of a next hop.
func (a *Announcer) noteNextHops(s Status, f found) {
	hop, before := a.config().NextHop, a.offers.noNextHop
	a.offers.noNextHop = slices.ContainsFunc(s.VIPs, func(v VIPStatus) bool {
		return v.Announced && v.Want == Announce && hop.lacksNextHop(v.Address, f.of(v.Address))
	})
	if a.offers.noNextHop && !before {
		a.log.Warn(noNextHop)
	}
}

// fill says of the VIPs of s to whom they are offered.
func (o *offers) fill(s *Status, hop NextHop) {
	s.NotOffered, _ = o.over(s, func(v *VIPStatus, to []netip.Addr, why string) {
		v.Looked, v.Offered = true, to
		if v.Want == Announce && len(to) == 0 && v.Trouble == "" && why != "" {
			v.Trouble = "offered to nobody: " + why
		}
		if v.Want == Announce && v.Trouble == "" && hop.lacksNextHop(v.Address, to) {
			v.Trouble = noNextHop
		}
	})
}

// over calls tell for the VIPs of s of which it is known to whom they are offered. It
// returns how many are wanted and offered to nobody, and whether no look was about some.
func (o *offers) over(s *Status, tell func(v *VIPStatus, to []netip.Addr, why string)) (nobody int, unknown bool) {
	if !s.TableRead {
		return 0, false
	}
	established := s.established()
	here := func(to []netip.Addr) []netip.Addr { // those that have a session still
		if all := !slices.ContainsFunc(to, func(p netip.Addr) bool { return !established[p] }); all {
			return to
		}
		return slices.DeleteFunc(slices.Clone(to), func(p netip.Addr) bool { return !established[p] })
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	usual := here(o.found.usual)
	for i := range s.VIPs {
		v := &s.VIPs[i]
		if !v.Announced {
			continue
		}
		to, why := usual, ""
		one, other := o.found.except[v.Address]
		if other {
			to, why = here(one.to), one.why
		}
		switch {
		case len(s.Peers) == 0:
			to, why = nil, "the speaker has no peers"
		case len(established) == 0:
			to, why = nil, "no router has a session with the speaker"
		case !o.found.asked[v.Address]:
			unknown = true
			continue
		case len(to) == 0 && !(other && len(one.to) == 0):
			continue // not since sessions changed
		}
		if v.Want == Announce && len(to) == 0 {
			nobody++
		}
		tell(v, to, why)
	}
	return nobody, unknown
}

// established are the peers with a session.
func (s Status) established() map[netip.Addr]bool {
	peers := map[netip.Addr]bool{}
	for _, p := range s.Peers {
		if p.Established {
			peers[p.Address] = true
		}
	}
	return peers
}
