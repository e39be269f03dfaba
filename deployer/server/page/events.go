package page

import (
	"net/url"
	"slices"
	"strings"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// event is a line of the list of events.
type event struct {
	store.Event
	Moved bool   // the state did
	Tone  string // of what it came to
}

// newest are the last of the events that are taken, the newest first.
func newest(events []store.Event, limit int, takes func(store.Event) bool) []event {
	var list []event
	for _, e := range slices.Backward(events) {
		if len(list) == limit {
			break
		}
		if !takes(e) {
			continue
		}
		l := event{Event: e, Moved: e.From != e.To, Tone: "idle"}
		switch {
		case e.Event == store.EventRefused || e.Event == store.EventVIPUnannounced || e.Event == store.EventUnreadable:
			l.Tone = "bad"
		case e.Event == store.EventVIPAnnounced:
			l.Tone = "good"
		case l.Moved:
			l.Tone = tone(string(e.To))
		}
		list = append(list, l)
	}
	return list
}

// KeptEvents is how many of the newest events the page has.
const KeptEvents = 1000

// EventsPage is the list of events, the newest first. events are the newest, oldest
// first.
func EventsPage(frame Frame, events []store.Event, q url.Values) []byte {
	search, kind := cut(q.Get("q")), cut(q.Get("event"))
	all := newest(events, KeptEvents, func(e store.Event) bool {
		return (kind == "" || string(e.Event) == kind) &&
			(search == "" || strings.Contains(e.Node, strings.ToLower(search)) || strings.Contains(e.VIP, strings.ToLower(search)))
	})
	var kinds []string
	for _, e := range append(slices.Clone(node.Events), store.EventRefused, store.EventManifest, store.EventVIPAnnounced, store.EventVIPUnannounced) {
		if e != node.EventDeclared && e != node.EventUndeclared { // these are in histories only
			kinds = append(kinds, string(e))
		}
	}
	values := url.Values{}
	for key, value := range map[string]string{"q": search, "event": kind} {
		if value != "" {
			values.Set(key, value)
		}
	}
	narrowed := len(values) > 0
	values.Set("page", q.Get("page"))
	shown, at := paged(all, PathEvents, values)
	return render("events", view{frame, "Events", "events", struct {
		Events       []event
		Pager        pager
		Search, Kind string
		Narrowed     bool
		Kinds        []string
		Kept         int
	}{shown, at, search, kind, narrowed, kinds, KeptEvents}})
}
