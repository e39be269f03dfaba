package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func manyVIPs(n int) []netip.Addr {
	vips := make([]netip.Addr, n)
	a := netip.MustParseAddr("2001:db8::1")
	for i := range vips {
		vips[i], a = a, a.Next()
	}
	return vips
}

// all reads page after page.
func all(t *testing.T, l *Events, after string, vip netip.Addr, limit int) (events []Event, next string) {
	t.Helper()
	for {
		page, err := l.After(after, vip, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Events) > limit {
			t.Fatalf("%d events, limit %d", len(page.Events), limit)
		}
		events = append(events, page.Events...)
		if after = page.Next; !page.More {
			return events, after
		}
	}
}

// Whatever the size of a page, it is the same events once each, in order; and those of one
// VIP are those that name it.
func TestEventPages(t *testing.T) {
	l, vips := newEvents(), manyVIPs(5)
	l.add(Event{Kind: EventStarted}, nil)
	l.add(Event{Kind: EventHeld, Reason: "up"}, vips)
	l.add(Event{Kind: EventAnnounced}, vips[:2])
	l.add(Event{Kind: EventSessionUp, Peer: netip.MustParseAddr("192.0.2.1")}, nil)
	text := func(events []Event) string {
		var s []string
		for _, e := range events {
			about := ""
			if e.VIP.IsValid() {
				about = strings.TrimPrefix(e.VIP.String(), "2001:db8::")
			}
			s = append(s, string(e.Kind)+about)
		}
		return strings.Join(s, " ")
	}
	const want = "started held1 held2 held3 held4 held5 announced1 announced2 session_up"
	for limit := 1; limit <= 10; limit++ {
		events, next := all(t, l, "", netip.Addr{}, limit)
		if text(events) != want {
			t.Errorf("pages of %d: %s", limit, text(events))
		}
		if again, _ := all(t, l, next, netip.Addr{}, limit); len(again) != 0 {
			t.Errorf("behind the last: %s", text(again))
		}
		for i, e := range events {
			if rest, _ := all(t, l, e.Cursor, netip.Addr{}, limit); len(rest) != len(events)-i-1 {
				t.Errorf("behind %d of pages of %d: %s", i, limit, text(rest))
			}
		}
		if own, next := all(t, l, "", vips[1], limit); text(own) != "held2 announced2" || next != events[len(events)-1].Cursor {
			t.Errorf("pages of %d: %s, next %s", limit, text(own), next)
		}
	}
	select {
	case <-l.News():
		t.Error("news, and nothing happened")
	default:
	}
	news := l.News()
	l.add(Event{Kind: EventStopping}, nil)
	<-news
}

// What is kept is bounded, by happenings and by VIPs; a cursor that is too old is told so.
func TestEventsAreBounded(t *testing.T) {
	l := newEvents()
	l.add(Event{Kind: EventStarted, Reason: strings.Repeat("x", 2*maxEventReason)}, nil)
	first, err := l.After("", netip.Addr{}, 1)
	if err != nil || len(first.Events[0].Reason) > maxEventReason+len("…") {
		t.Fatalf("%+v, %v", first, err)
	}
	for i := range maxHappenings + 5 {
		l.add(Event{Kind: EventHeld, Reason: fmt.Sprint(i)}, nil)
	}
	if events, _ := all(t, l, "", netip.Addr{}, 1000); len(events) != maxHappenings || events[0].Reason != "5" {
		t.Errorf("%d are kept, from %s on", len(events), events[0].Reason)
	}
	many := manyVIPs(100_000)
	for range 4 {
		l.add(Event{Kind: EventHeld}, many)
	}
	if len(l.kept) != 2 || l.mentions != 200_000 {
		t.Errorf("%d happenings with %d VIPs are kept", len(l.kept), l.mentions)
	}
	for cursor, want := range map[string]error{
		first.Next: ErrCursorGone, "anotherp.7": ErrCursorGone, // of an announcer before, and some of ours are gone
		"x": ErrBadCursor, "1": ErrBadCursor, ".": ErrBadCursor, "short.1": ErrBadCursor,
		l.process + ".-1": ErrBadCursor, l.process + ".99999999999999999999": ErrBadCursor, l.process + ".9999999999": ErrBadCursor,
	} {
		if _, err := l.After(cursor, netip.Addr{}, 1); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", cursor, err, want)
		}
	}
	fresh := newEvents()
	fresh.add(Event{Kind: EventStarted}, nil)
	if page, err := fresh.After(first.Next, netip.Addr{}, 10); err != nil || len(page.Events) != 1 {
		t.Errorf("a cursor of the announcer before: %+v, %v", page, err)
	}
}

func FuzzEventCursor(f *testing.F) {
	l := newEvents()
	l.add(Event{Kind: EventHeld}, manyVIPs(3))
	page, _ := l.After("", netip.Addr{}, 1)
	for _, cursor := range []string{"", ".", "x.1", page.Next, l.process + ".0", l.process + ".3", l.process + ".4", l.process + ".+1", "abcdefgh.2"} {
		f.Add(cursor)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		page, err := l.After(cursor, netip.Addr{}, 2)
		if err == nil && len(page.Events) > 2 || err != nil && !errors.Is(err, ErrBadCursor) && !errors.Is(err, ErrCursorGone) {
			t.Errorf("%q: %+v, %v", cursor, page, err)
		}
	})
}
