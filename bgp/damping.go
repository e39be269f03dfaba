package bgp

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"time"
)

// Damping keeps a VIP that goes up and down from being announced, after the idea of
// RFC 2439: each time that its checks take it down costs a penalty, which halves every
// HalfLife. From Suppress on it is withdrawn, whatever its checks say, until the
// penalty is below Reuse. The zero value is none.
type Damping struct {
	Penalty, Suppress, Reuse int
	HalfLife                 time.Duration
}

// DefaultDamping is what an empty object of the configuration means: the third time
// down within half a minute suppresses a VIP, for two minutes.
var DefaultDamping = Damping{Penalty: 1000, Suppress: 2500, Reuse: 750, HalfLife: time.Minute}

// ceiling bounds how long a VIP stays suppressed after it was down last.
func (d Damping) ceiling() float64 { return 4 * float64(d.Suppress) }

// DampingState is how damping stands with a VIP.
type DampingState struct {
	Penalty    float64
	Suppressed bool
	ReuseAt    time.Time // when it is not suppressed any more, if it does not go down again; zero unless Suppressed
}

// penalty is the sum of those that a VIP was given, with what they have lost since.
type penalty struct {
	points     float64
	at         time.Time
	suppressed bool
}

// decay brings p to now.
func (p *penalty) decay(d Damping, now time.Time) {
	if age := now.Sub(p.at); age > 0 {
		p.points *= math.Exp2(-float64(age) / float64(d.HalfLife))
		p.at = now
	}
	if p.points < float64(d.Reuse) {
		p.suppressed = false
	}
	if p.points < 1 {
		p.points = 0
	}
}

func (p *penalty) add(d Damping) {
	p.points = min(p.points+float64(d.Penalty), d.ceiling())
	p.suppressed = p.suppressed || p.points >= float64(d.Suppress)
}

func (p *penalty) state(d Damping) DampingState {
	s := DampingState{Penalty: p.points, Suppressed: p.suppressed}
	if p.suppressed {
		left := float64(d.HalfLife) * math.Log2(p.points/float64(d.Reuse))
		s.ReuseAt = p.at.Add(time.Duration(left) + time.Millisecond) // then it is below
	}
	return s
}

// history is what a VIP was like, as far as it matters later.
type history struct {
	was     Want      // what its checks said last, Announce or Withdraw; Leave: nothing yet
	since   time.Time // of was
	started bool      // the start delay is over
	fell    bool      // was withdrawn in a hurry since, whatever its checks say by now
	penalty penalty
}

// histories are those of the VIPs that have a start delay or damping. They do not
// outlive the process: what routers have then, the live table says.
type histories map[netip.Addr]*history

// note notes which VIPs were withdrawn in a hurry since they were judged.
func (h histories) note(fell map[netip.Addr]bool) {
	for addr := range fell {
		if past := h[addr]; past != nil {
			past.fell = true
		}
	}
}

// judge changes w, which is what the checks of v say, by what was before.
func (h histories) judge(v *VIP, w *wish, now time.Time) {
	if v.StartDelay == 0 && v.Damping == (Damping{}) {
		delete(h, v.Address)
		return
	}
	past := h[v.Address]
	if past == nil {
		past = &history{since: now, penalty: penalty{at: now}}
		h[v.Address] = past
	}
	fell := past.was == Announce && (w.want == Withdraw || past.fell) // once, where both did
	past.fell = false
	if w.want != Leave && (w.want != past.was || fell) {
		past.was, past.since = w.want, now
	}
	if v.Damping == (Damping{}) {
		past.penalty = penalty{at: now}
	} else {
		past.penalty.decay(v.Damping, now)
		if fell {
			past.penalty.add(v.Damping)
		}
		w.damping = past.penalty.state(v.Damping)
	}
	begins := past.since.Add(v.StartDelay)
	switch {
	case w.want != Announce:
	case w.damping.Suppressed:
		w.want, w.cause, w.until = Withdraw, CauseDamped, w.damping.ReuseAt
		w.why = fmt.Sprintf("went down too often; penalty %.0f, suppressed until %s", w.damping.Penalty, stamp(w.until))
	case !past.started && now.Before(begins):
		w.want, w.cause, w.until = Leave, CauseStarting, begins
		w.why += "; start_delay ends at " + stamp(begins)
	default:
		past.started = true
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// keep forgets VIPs that are not among wishes.
func (h histories) keep(wishes *wishList) {
	maps.DeleteFunc(h, func(addr netip.Addr, _ *history) bool {
		return !wishes.has(addr)
	})
}

// clone is a copy that may be changed.
func (h histories) clone() histories {
	c := make(histories, len(h))
	for addr, past := range h {
		p := *past
		c[addr] = &p
	}
	return c
}
