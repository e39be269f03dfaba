package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
)

// Events are what happened last.
func (a *Announcer) Events() *Events { return a.events }

// Note logs what happened, and keeps it for those who ask for events. All that happens
// comes this way.
func (a *Announcer) Note(level slog.Level, msg string, e Event, attrs ...any) {
	var vips []netip.Addr
	if e.VIP.IsValid() {
		vips = []netip.Addr{e.VIP}
	}
	a.note(level, msg, e, vips, attrs...)
}

func (a *Announcer) note(level slog.Level, msg string, e Event, vips []netip.Addr, attrs ...any) {
	a.log.Log(context.Background(), level, msg, attrs...)
	a.events.add(e, vips)
}

// deeds are what a pass does to VIPs, by the names of steps.
var deeds = map[string]struct {
	msg      string
	kind     EventKind
	prefixes bool // the log names prefixes, and why
}{
	"bind":     {"bound", EventHeld, false},
	"announce": {"announced", EventAnnounced, true},
	"lower":    {"lowered", EventLowered, true},
	"withdraw": {"withdrew", EventWithdrawn, true},
	"release":  {"released", EventReleased, false},
	"move":     {"moved", EventMoved, false},
}

// did notes a step of the pass under way, and counts it by cause. More of what the log
// says of it is in attrs.
func (a *Announcer) did(step string, vips []netip.Addr, of func(netip.Addr) *wish, attrs ...any) {
	if len(vips) == 0 {
		return
	}
	deed, grounds := deeds[step], groundsOf(vips, of)
	about := []any{"count", len(vips)}
	if deed.prefixes {
		about = append(about, "prefixes", some(hostPrefixes(vips)), "why", reasons(grounds))
	} else {
		about = append(about, "addresses", some(vips))
	}
	a.log.Info(deed.msg, append(about, attrs...)...)
	counts := map[Cause]int{}
	for _, g := range grounds {
		counts[g.cause] += len(g.vips)
		a.events.add(Event{Kind: deed.kind, Cause: g.cause, Reason: g.why}, g.vips)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range slices.Sorted(maps.Keys(counts)) {
		a.steps = append(a.steps, Step{step, c, counts[c]})
	}
}

// ground is why something is done to VIPs.
type ground struct {
	because
	vips []netip.Addr
}

type because struct {
	cause Cause
	why   string
}

// groundsOf puts VIPs together that have the same cause and the same reason, in the order
// in which those come first.
func groundsOf(vips []netip.Addr, of func(netip.Addr) *wish) []ground {
	var grounds []ground
	index := map[because]int{}
	i := 0
	for _, addr := range vips {
		w := of(addr)
		key := because{w.cause, w.why}
		if i >= len(grounds) || grounds[i].because != key { // else it has that of the one before
			var ok bool
			if i, ok = index[key]; !ok {
				i = len(grounds)
				index[key] = i
				grounds = append(grounds, ground{because: key})
			}
		}
		grounds[i].vips = append(grounds[i].vips, addr)
	}
	return grounds
}

// reasons says why, of many reasons the first few.
func reasons(grounds []ground) string {
	const most = 4
	if len(grounds) == 1 {
		return grounds[0].why
	}
	var texts []string
	for i, g := range grounds {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d reasons more", len(grounds)-most))
			break
		}
		texts = append(texts, some(g.vips)+": "+g.why)
	}
	return strings.Join(texts, "; ")
}

// hostPrefixes are as many of the prefixes of vips as some shows, and one more.
func hostPrefixes(vips []netip.Addr) []netip.Prefix {
	vips = vips[:min(len(vips), mostShown+1)]
	prefixes := make([]netip.Prefix, len(vips))
	for i, addr := range vips {
		prefixes[i] = speaker.HostPrefix(addr)
	}
	return prefixes
}

var wantKinds = map[Want]EventKind{Announce: EventWanted, Withdraw: EventUnwanted, Leave: EventUndecided}

// noteWishes tells what is wanted of VIPs now and was not before; of hurried it is told already.
func (a *Announcer) noteWishes(before Status, wishes *wishList, hurried map[netip.Prefix]bool) {
	changed := map[EventKind][]netip.Addr{}
	for i := range wishes.all {
		w := &wishes.all[i]
		was := before.vip(w.addr)
		if hurried[speaker.HostPrefix(w.addr)] {
			was.Want = Withdraw
		}
		if w.want != was.Want {
			kind := wantKinds[w.want]
			changed[kind] = append(changed[kind], w.addr)
		}
		switch is := w.damping.Suppressed; {
		case is && !was.Damping.Suppressed:
			changed[EventDamped] = append(changed[EventDamped], w.addr)
		case !is && was.Damping.Suppressed:
			changed[EventUndamped] = append(changed[EventUndamped], w.addr)
		}
	}
	for _, was := range before.VIPs {
		if !wishes.has(was.Address) && was.Want != Withdraw {
			changed[EventUnwanted] = append(changed[EventUnwanted], was.Address)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(changed)) {
		vips := changed[kind]
		slices.SortFunc(vips, netip.Addr.Compare)
		a.noteWant(kind, vips, wishes.of)
	}
}

// noteWant tells what is wanted of VIPs now.
func (a *Announcer) noteWant(kind EventKind, vips []netip.Addr, of func(netip.Addr) *wish) {
	for _, g := range groundsOf(vips, of) {
		if kind == EventUndamped {
			g.why = "its penalty has decayed; " + g.why
		}
		a.note(slog.LevelDebug, "want", Event{Kind: kind, Cause: g.cause, Reason: g.why}, g.vips,
			"event", string(kind), "count", len(g.vips), "vips", some(g.vips), "why", g.why)
	}
}

// noteGone tells of what was there in the pass before, is not now, and was not taken away by us.
func (a *Announcer) noteGone(what string, vips []netip.Addr) {
	if len(vips) > 0 {
		a.note(slog.LevelWarn, "gone by somebody else's hand; put back", Event{Kind: EventGone, Reason: what + ", by somebody else's hand; it is put back"}, vips,
			"what", what, "count", len(vips), "addresses", some(vips))
	}
}

// noteHealth takes the news of a check.
func (a *Announcer) noteHealth(c health.Check, s health.State) {
	users := a.usersOf(c)
	vips := make([]netip.Addr, len(users))
	for i, v := range users {
		vips[i] = v.Address
	}
	if s.Status == health.Down {
		defer a.hasFallen(c)
	}
	kind, level := EventCheckUp, slog.LevelInfo
	if s.Status == health.Down {
		kind, level = EventCheckDown, slog.LevelWarn
	}
	a.note(level, "health changed", Event{Kind: kind, Check: c.Target(), Reason: s.Reason}, vips,
		"target", c.Target(), "status", s.Status.String(), "reason", s.Reason, "vips", some(vips))
	a.trigger()
}
