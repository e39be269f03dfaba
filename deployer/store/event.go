package store

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
)

var (
	// ErrBadCursor: no store made that cursor.
	ErrBadCursor = errors.New("not a cursor of events")
	// ErrCursorGone: what happened after that cursor is not kept any more, at least
	// not all of it; or it is of another store's events.
	ErrCursorGone = errors.New("the events after that cursor are not kept any more")
)

// Events that are no line of a node's history.
const (
	EventRefused    = node.Event("refused")    // a report was refused, with Code
	EventManifest   = node.Event("manifest")   // a manifest was declared; of no node
	EventUnreadable = node.Event("unreadable") // what was stored cannot be read

	EventVIPAnnounced   = node.Event("vip_announced")   // a node announces VIP, where none did
	EventVIPUnannounced = node.Event("vip_unannounced") // no node announces VIP any more
)

// KeptEvents is how many events a store keeps, and how many entries of its audit log.
const KeptEvents = 10_000

// Event is one thing that happened.
type Event struct {
	Cursor string     `json:"-"` // the place behind it; the store's
	At     time.Time  `json:"at"`
	Node   string     `json:"node,omitempty"` // the id
	VIP    string     `json:"vip,omitempty"`  // a host prefix
	Event  node.Event `json:"event"`
	From   node.State `json:"from,omitempty"` // with To: of a line of the history
	To     node.State `json:"to,omitempty"`
	Code   string     `json:"code,omitempty"` // of EventRefused
	Reason string     `json:"reason,omitempty"`
	By     string     `json:"by,omitempty"`     // the operator whose doing it was
	Remote string     `json:"remote,omitempty"` // the address that the operator came from
	Token  string     `json:"token,omitempty"`  // name of a join token; in the audit log only
	Result Result     `json:"result,omitempty"` // in the audit log only
}

// Result is what became of what an operator wanted.
type Result string

// Results in an audit log.
const (
	ResultDone      Result = "done"
	ResultUnchanged Result = "unchanged" // it was so already
	ResultRefused   Result = "refused"   // with Code
)

// What operators do to tokens; in the audit log only.
const (
	EventTokenCreate = node.Event("token-create")
	EventTokenRevoke = node.Event("token-revoke")
)

// Page is events, oldest first.
type Page struct {
	Events []Event
	Next   string // the cursor to go on from, valid also where there are none
	More   bool   // there may be more already
}

// Happened is the events that storing n in place of old makes: the lines that its
// history has gained. Of a node that was not found, that is what happened last.
//
// Declarations are none: a manifest that changes thousands of nodes would push out all
// else. EventManifest stands for them.
func Happened(old node.Node, found bool, n node.Node) []Event {
	lines := n.History
	if found {
		lines = gained(old.History, lines)
	} else {
		for len(lines) > 0 && !lines[0].At.Equal(lines[len(lines)-1].At) {
			lines = lines[1:]
		}
	}
	var events []Event
	for _, t := range lines {
		if t.Event == node.EventDeclared || t.Event == node.EventUndeclared {
			continue
		}
		events = append(events, Event{At: t.At, Node: n.ID, Event: t.Event, From: t.From, To: t.To, Reason: t.Reason, By: t.By, Remote: t.Remote})
	}
	return events
}

// gained is the end of after that before, which drops its oldest lines, does not have.
func gained(before, after []node.Transition) []node.Transition {
	same := func(a, b node.Transition) bool {
		at := a.At.Equal(b.At)
		a.At = b.At
		return at && a == b
	}
	for kept := min(len(before), len(after)); kept > 0; kept-- {
		if slices.EqualFunc(before[len(before)-kept:], after[:kept], same) {
			return after[kept:]
		}
	}
	return after
}

// DecodeEvents reads what was stored of one or several events. What cannot be read is
// an event that says so: it must not keep anybody from those behind it.
func DecodeEvents(value []byte) []Event {
	var several []Event
	var one Event
	err := json.Unmarshal(value, &one)
	if err == nil {
		return []Event{one}
	}
	if json.Unmarshal(value, &several) == nil {
		return several
	}
	return []Event{{Event: EventUnreadable, Reason: err.Error()}}
}

// MakeCursor is a cursor of numbers. epoch is a name of the log that the store made
// at random, so that no other log takes the cursor for its own.
func MakeCursor(epoch string, numbers ...int64) string {
	cursor := epoch
	for _, n := range numbers {
		cursor += "." + strconv.FormatInt(n, 10)
	}
	return cursor
}

// ReadCursor gives back the numbers of MakeCursor, which are as many as want.
func ReadCursor(cursor, epoch string, want int) ([]int64, error) {
	parts := strings.Split(cursor, ".")
	if len(cursor) > 128 || len(parts) < 2 {
		return nil, ErrBadCursor
	}
	numbers := make([]int64, len(parts)-1)
	for i, part := range parts[1:] {
		n, err := strconv.ParseUint(part, 10, 63)
		if err != nil {
			return nil, ErrBadCursor
		}
		numbers[i] = int64(n)
	}
	if parts[0] != epoch || len(numbers) != want { // another kind of store's, maybe
		return nil, ErrCursorGone
	}
	return numbers, nil
}
