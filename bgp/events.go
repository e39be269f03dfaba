package bgp

import (
	"crypto/rand"
	"errors"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// EventKind is what happened.
type EventKind string

// The kinds of events, by what they are about.
const (
	EventStarted       EventKind = "started" // the announcer
	EventStopping      EventKind = "stopping"
	EventHandedOver    EventKind = "handed_over"
	EventReloaded      EventKind = "reloaded"
	EventReloadRefused EventKind = "reload_refused"
	EventPassFailed    EventKind = "pass_failed"
	EventPassWorks     EventKind = "pass_works"

	EventSpeakerReady    EventKind = "speaker_ready" // the speaker, and its sessions
	EventSpeakerNotReady EventKind = "speaker_not_ready"
	EventSessionUp       EventKind = "session_up"
	EventSessionDown     EventKind = "session_down"

	EventWanted       EventKind = "wanted" // a VIP: what should become of it
	EventUnwanted     EventKind = "unwanted"
	EventUndecided    EventKind = "undecided"
	EventCheckUp      EventKind = "check_up"
	EventCheckDown    EventKind = "check_down"
	EventDrained      EventKind = "drained"
	EventUndrained    EventKind = "undrained"
	EventDamped       EventKind = "damped"
	EventUndamped     EventKind = "undamped"
	EventHeld         EventKind = "held" // and what did
	EventMoved        EventKind = "moved"
	EventAnnounced    EventKind = "announced"
	EventLowered      EventKind = "lowered"
	EventWithdrawn    EventKind = "withdrawn"
	EventReleased     EventKind = "released"
	EventGone         EventKind = "gone" // by somebody else's hand
	EventConflict     EventKind = "conflict"
	EventConflictOver EventKind = "conflict_over"
	EventNotOffered   EventKind = "not_offered" // to any peer, though announced
	EventOffered      EventKind = "offered"     // again
	EventChanged      EventKind = "changed"     // the speaker gives its path other attributes
	EventDropped      EventKind = "dropped"     // or drops it

	EventNotAllTold     EventKind = "not_all_told" // routers without a session, of a withdraw
	EventPrependLeftOut EventKind = "prepend_left_out"
)

// Event is one thing that happened. What it is not about is zero.
type Event struct {
	Cursor string // to go on behind it
	At     time.Time
	Kind   EventKind
	VIP    netip.Addr
	Peer   netip.Addr // of a session
	Check  string     // what it asks
	By     string     // who ordered it
	Cause  Cause
	Reason string
}

// EventPage is a part of what happened, oldest first.
type EventPage struct {
	Events []Event
	Next   string // cursor behind the last one that was looked at
	More   bool   // there are others behind it already
}

// The errors of Events.After; test with errors.Is.
var (
	ErrBadCursor  = errors.New("not a cursor of this announcer")
	ErrCursorGone = errors.New("events after the cursor are not kept any more")
)

// How much is kept: so many happenings, with so many VIPs between them.
const (
	maxHappenings = 10_000
	maxMentions   = 250_000
)

// happening is one event for each of its VIPs, or one that is about none. What is done to
// 100,000 VIPs at once takes no more memory than their addresses.
type happening struct {
	first uint64 // number of its first event
	event Event  // without VIP and cursor
	vips  []netip.Addr
}

func (h happening) size() int { return max(1, len(h.vips)) }

// Events keeps what happened last, in memory. Methods may be called concurrently.
type Events struct {
	process string // of cursors: those of another one come before all events of this one

	mu       sync.Mutex
	kept     []happening
	mentions int
	next     uint64        // number of the next event; the first one is 1
	news     chan struct{} // closed by the next event
}

func newEvents() *Events {
	return &Events{process: strings.ToLower(rand.Text()[:8]), next: 1, news: make(chan struct{})}
}

// add keeps e, once for each of vips. It keeps vips, too.
func (l *Events) add(e Event, vips []netip.Addr) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	e.Reason = cut(e.Reason, maxEventReason)
	l.mu.Lock()
	defer l.mu.Unlock()
	h := happening{l.next, e, vips}
	l.kept = append(l.kept, h)
	l.next += uint64(h.size())
	l.mentions += h.size()
	for len(l.kept) > 1 && (len(l.kept) > maxHappenings || l.mentions > maxMentions) {
		l.mentions -= l.kept[0].size()
		l.kept[0] = happening{}
		l.kept = l.kept[1:]
	}
	close(l.news)
	l.news = make(chan struct{})
}

// maxEventReason is how much of a reason is kept, in bytes.
const maxEventReason = 400

// News is closed once there are events that After did not see before.
func (l *Events) News() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.news
}

// After is what happened behind a cursor, at most limit events; "" is before the oldest
// that is kept. With a valid vip it is what happened to that one.
func (l *Events) After(cursor string, vip netip.Addr, limit int) (EventPage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := l.next
	if len(l.kept) > 0 {
		oldest = l.kept[0].first
	}
	seen, err := l.position(cursor)
	switch {
	case err != nil:
		return EventPage{}, err
	case cursor == "":
		seen = oldest - 1
	case seen+1 < oldest:
		return EventPage{}, ErrCursorGone
	}
	page := EventPage{}
	start := sort.Search(len(l.kept), func(i int) bool { return l.kept[i].first+uint64(l.kept[i].size()) > seen+1 })
	for _, h := range l.kept[start:] {
		for i := range h.size() {
			number := h.first + uint64(i)
			if number <= seen {
				continue
			}
			e := h.event
			if len(h.vips) > 0 {
				e.VIP = h.vips[i]
			}
			if vip.IsValid() && e.VIP != vip {
				continue
			}
			if len(page.Events) == limit {
				page.Next, page.More = page.Events[limit-1].Cursor, true
				return page, nil
			}
			e.Cursor = l.cursor(number)
			page.Events = append(page.Events, e)
		}
	}
	page.Next = l.cursor(l.next - 1)
	return page, nil
}

func (l *Events) cursor(number uint64) string {
	return l.process + "." + strconv.FormatUint(number, 10)
}

// position is the number of the event that a cursor is behind.
func (l *Events) position(cursor string) (uint64, error) {
	if cursor == "" {
		return 0, nil
	}
	process, digits, ok := strings.Cut(cursor, ".")
	number, err := strconv.ParseUint(digits, 10, 62)
	switch {
	case !ok || err != nil || len(process) != len(l.process):
		return 0, ErrBadCursor
	case process != l.process: // an announcer that ran before
		return 0, nil
	case number >= l.next:
		return 0, ErrBadCursor
	}
	return number, nil
}
