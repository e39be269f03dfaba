package bgp

import (
	"context"
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

	found found               // by the last look
	fresh map[netip.Addr]bool // announced since

	// Used by looks alone.
	none   map[netip.Addr]offer // of which it is told that they are offered to nobody
	failed string               // why the last look failed
}

// found is what a look found: most VIPs are offered to the same peers.
type found struct {
	known  bool
	usual  []netip.Addr
	except map[netip.Addr]offer
}

// offer is to whom a VIP is offered; why says why to nobody.
type offer struct {
	to  []netip.Addr
	why string
}

func newOffers() *offers {
	return &offers{news: make(chan struct{}, 1), ended: time.Now(), fresh: map[netip.Addr]bool{}, none: map[netip.Addr]offer{}}
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

// announced notes VIPs that were not looked at yet.
func (o *offers) announced(vips []netip.Addr) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.found.known {
		for _, addr := range vips {
			o.fresh[addr] = true
		}
	}
}

// passed takes the news of a pass.
func (o *offers) passed(before, now Status) {
	same := before.TableRead == now.TableRead && slices.EqualFunc(before.Peers, now.Peers, func(p, q speaker.Peer) bool {
		return p.Address == q.Address && p.Established == q.Established
	})
	if same && len(now.Steps) == 0 {
		return
	}
	o.mu.Lock()
	o.happened = time.Now()
	o.mu.Unlock()
	select {
	case o.news <- struct{}{}:
	default:
	}
}

// wait is how long it is until the next look.
func (o *offers) wait() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := o.ended.Add(lookEvery)
	if settled := o.happened.Add(lookSettle); o.happened.After(o.began) && settled.Before(next) {
		next = settled
	}
	if rested := o.ended.Add(min(lookShare*o.ended.Sub(o.began), lookPause)); !o.began.IsZero() && next.Before(rested) {
		next = rested
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
	if !busy {
		now, none, err = a.lookAt(ctx, a.lastStatus())
	}
	o.mu.Lock()
	o.ended = time.Now()
	if busy || o.acts != acts {
		o.happened = o.ended // so that the next look comes soon
		o.mu.Unlock()
		return
	}
	o.found = now
	clear(o.fresh)
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
	if now.known {
		a.noteOffers(none)
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
	f.known, f.except, none = true, map[netip.Addr]offer{}, map[netip.Addr]offer{}
	var missing []netip.Prefix
	for _, v := range s.VIPs {
		if !v.Announced {
			continue
		}
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

// noteOffers tells which VIPs are offered to nobody now, and which are offered again.
func (a *Announcer) noteOffers(none map[netip.Addr]offer) {
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
	s := a.lastStatus()
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

// fill says of the VIPs of s to whom they are offered.
func (o *offers) fill(s *Status) {
	if !s.TableRead {
		return
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
		case !o.found.known || o.fresh[v.Address], len(to) == 0 && !(other && len(one.to) == 0):
			continue // not looked at yet, or not since sessions changed
		}
		v.Looked, v.Offered = true, to
		if v.Want == Announce && len(to) == 0 {
			s.NotOffered++
			if v.Trouble == "" && why != "" {
				v.Trouble = "offered to nobody: " + why
			}
		}
	}
}

// nobody is how many VIPs of s are wanted, announced and offered to nobody.
func (o *offers) nobody(s Status) (n int) {
	if len(s.established()) == 0 {
		for i := range s.VIPs {
			if v := &s.VIPs[i]; v.Announced && v.Want == Announce {
				n++
			}
		}
		return n
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, one := range o.found.except {
		if one.why != "" {
			n++
		}
	}
	return n
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
