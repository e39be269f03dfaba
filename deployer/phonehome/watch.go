package phonehome

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// Between heartbeats the node looks at itself, and what has changed is reported before
// the next one is due: after a random part of an eighth of the interval, since what
// changes here often changes on all nodes at once, and a quarter of the interval after
// the last report at the earliest, so that a check that goes up and down costs the
// deployer no more than three reports in place of none.
const (
	watchEvery = 2 * time.Second // and twenty times as long as a look takes
	maxJitter  = 3 * time.Second
)

// watch looks at the node's VIPs and services.
type watch struct {
	announcer *announcer // nil: none on this node
	units     []string
	bus       string
	given     []string // VIPs of the command line, canonical

	last  observation
	vips  map[string]said // what the announcer said last, by VIP
	pause time.Duration   // to the next look
}

// said is the state of a VIP with its cause. Its reason is that of the moment when the
// two came: reasons count tries, and what changes with each would be a report that the
// deployer has to store.
type said struct {
	node.VIPState
	cause string
}

// observation is how the node stands.
type observation struct {
	announced []string        // VIPs, sorted
	others    []node.VIPState // that are not simply announced, sorted
	services  []node.Service
}

func (o observation) equal(p observation) bool {
	return slices.Equal(o.announced, p.announced) && slices.Equal(o.others, p.others) && slices.Equal(o.services, p.services)
}

// idle says whether there is nothing to look at.
func (w *watch) idle() bool { return w.announcer == nil && len(w.units) == 0 }

func (w *watch) look(ctx context.Context) {
	begin := time.Now()
	if w.announcer != nil {
		state, err := w.announcer.state(ctx)
		if ctx.Err() != nil {
			return // not the announcer's fault
		}
		w.hear(state, err)
	}
	seen := services(ctx, w.bus, w.units)
	if ctx.Err() != nil {
		return
	}
	w.last = observation{announced: slices.Clone(w.given), services: seen}
	for _, s := range w.vips {
		if s.State == node.VIPAnnounced {
			w.last.announced = append(w.last.announced, s.VIP)
		} else {
			w.last.others = append(w.last.others, s.VIPState)
		}
	}
	slices.SortFunc(w.last.announced, node.CompareVIPs)
	w.last.announced = slices.Compact(w.last.announced)
	slices.SortFunc(w.last.others, func(a, b node.VIPState) int { return node.CompareVIPs(a.VIP, b.VIP) })
	w.pause = max(watchEvery, 20*time.Since(begin))
}

// hear takes over what the announcer says. One that does not answer may have left its
// paths with the speaker, or not: of the VIPs that it had nothing is known.
func (w *watch) hear(state announcerState, err error) {
	now := make(map[string]said, len(state.Status.VIPs))
	if err != nil {
		for vip := range w.vips {
			now[vip] = said{node.VIPState{VIP: vip, State: node.VIPUnknown, Reason: err.Error()}, ""}
		}
	}
	for _, v := range state.Status.VIPs {
		vip, ok := node.CanonicalVIP(v.Address)
		if !ok || err != nil {
			continue
		}
		s := said{v.vip(state.Status.TableRead), v.Cause}
		s.VIP, s.Reason = vip, printable(s.Reason)
		if before := w.vips[vip]; before.State == s.State && before.cause == s.cause {
			s = before
		}
		now[vip] = s
	}
	w.vips = now
}

// maxVIPBytes is the share of the VIPs in the report, whose limit is
// api.MaxRequestBytes.
const maxVIPBytes = 40 << 10

// fit is what a report has room for: first the VIPs that are announced, by which the
// deployer knows that they are, then the others. What is left out is counted.
func (o observation) fit() (vips []string, states []node.VIPState, leftOut int) {
	room := maxVIPBytes
	for _, vip := range o.announced {
		if room -= len(vip) + len(`"",`); room < 0 || len(vips) == api.MaxVIPs {
			leftOut++
			continue
		}
		vips = append(vips, vip)
	}
	for _, s := range o.others {
		size, _ := json.Marshal(s) // strings alone
		if room -= len(size) + len(","); room < 0 || len(states) == api.MaxVIPs {
			leftOut++
			continue
		}
		states = append(states, s)
	}
	return vips, states, min(leftOut, api.MaxVIPsLeftOut)
}

// rest waits for the next heartbeat, for wait, or while the deployer listens until what
// the node sees of itself is not what it last reported. It says whether ctx still runs.
func (a *agent) rest(ctx context.Context, wait time.Duration, listens bool) bool {
	if a.watch.idle() || !listens {
		return sleep(ctx, wait)
	}
	due := time.Now().Add(wait)
	soonest := time.Now().Add(wait / 4)
	hastened := false
	for {
		left := time.Until(due)
		if hastened || left <= a.watch.pause {
			return sleep(ctx, left)
		}
		if !sleep(ctx, a.watch.pause) {
			return false
		}
		if a.watch.look(ctx); a.watch.last.equal(a.reported) {
			continue
		}
		soon := time.Now().Add(rand.N(min(wait/8, maxJitter)))
		if soon.Before(soonest) {
			soon = soonest
		}
		if soon.Before(due) {
			due = soon
		}
		hastened = true
	}
}

func canonicalVIPs(vips []string) []string {
	var all []string
	for _, vip := range vips {
		if canonical, ok := node.CanonicalVIP(vip); ok {
			all = append(all, canonical)
		}
	}
	return all
}

// printable makes a line of another program fit for a report.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		default:
			return utf8.RuneError
		}
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) <= api.MaxReasonBytes {
		return s
	}
	return strings.ToValidUTF8(s[:api.MaxReasonBytes-len("…")], "") + "…"
}
