package metrics

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/centra/plasmacloud/bgp"
)

// MaxEvents is how many events one answer has at most.
const MaxEvents = 1000

// What GET /events answers, and GET /v1/events of the control socket.
type (
	// Event is one thing that happened. What it is not about is left out.
	Event struct {
		Cursor string    `json:"cursor"` // to go on behind it
		At     time.Time `json:"at"`
		Event  string    `json:"event"`
		VIP    string    `json:"vip,omitempty"`
		Peer   string    `json:"peer,omitempty"`
		Check  string    `json:"check,omitempty"`
		By     string    `json:"by,omitempty"`
		Cause  string    `json:"cause,omitempty"`
		Reason string    `json:"reason"`
	}
	// EventList is a part of them, oldest first.
	EventList struct {
		Events []Event `json:"events"`
		Next   string  `json:"next"` // what to give as after, to go on
		More   bool    `json:"more"` // there are others already
	}
)

// EventQuery is what is asked of events.
type EventQuery struct {
	After string     // cursor; "": from the oldest one that is kept
	VIP   netip.Addr // zero: any, and what is about none
	Limit int
}

// ParseEventQuery reads the query of a request; other keys than known are errors, but for
// those of more.
func ParseEventQuery(r *http.Request, more ...string) (EventQuery, error) {
	q := EventQuery{Limit: MaxEvents}
	known := map[string]bool{"after": true, "vip": true, "limit": true}
	for _, key := range more {
		known[key] = true
	}
	for key, values := range r.URL.Query() {
		if len(values) != 1 || !known[key] {
			return q, fmt.Errorf("%.60q: unknown, or there twice; known are after, vip, limit", key)
		}
		var err error
		switch value := values[0]; key {
		case "after":
			q.After = value
		case "vip":
			if q.VIP, err = netip.ParseAddr(value); err != nil || q.VIP.Zone() != "" || q.VIP.Is4In6() {
				return q, fmt.Errorf("vip: %.60q is no address of a VIP", value)
			}
		case "limit":
			if q.Limit, err = strconv.Atoi(value); err != nil || q.Limit < 1 || q.Limit > MaxEvents {
				return q, fmt.Errorf("limit: %.60q; want 1 to %d", value, MaxEvents)
			}
		}
	}
	return q, nil
}

// Ask reads events. The status is that of the answer, if there is an error.
func (q EventQuery) Ask(events *bgp.Events) (list EventList, status int, err error) {
	page, err := events.After(q.After, q.VIP, q.Limit)
	switch {
	case errors.Is(err, bgp.ErrCursorGone):
		return list, http.StatusGone, fmt.Errorf("after: %w; ask for the status, to know what is now, and begin anew without after", err)
	case err != nil:
		return list, http.StatusBadRequest, fmt.Errorf("after: %.60q is %w; take it from an event, or from next of a list", q.After, err)
	}
	list = EventList{Events: make([]Event, 0, len(page.Events)), Next: page.Next, More: page.More}
	for _, e := range page.Events {
		list.Events = append(list.Events, Event{e.Cursor, e.At.UTC().Truncate(time.Microsecond), string(e.Kind), text(e.VIP), text(e.Peer), e.Check, e.By, string(e.Cause), e.Reason})
	}
	return list, http.StatusOK, nil
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	q, err := ParseEventQuery(r)
	status := http.StatusBadRequest
	var list EventList
	if err == nil {
		list, status, err = q.Ask(s.announcer.Events())
	}
	if err != nil {
		http.Error(w, err.Error(), status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list) // what fails here is the connection
}
