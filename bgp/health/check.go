// Package health asks local services whether they work, and turns single answers
// into a state by rise and fall, so that one lost packet moves no traffic.
package health

import (
	"net/netip"
	"time"
)

// Kind is how a check asks.
type Kind string

const (
	HTTP Kind = "http" // GET; any 2xx is good; redirects are not followed, so a 3xx is bad
	TCP  Kind = "tcp"  // a connection that is accepted is good
)

// Check is one question and how often to ask it. It is comparable: two equal
// checks are one, asked once, however many VIPs use it, and it keeps its state
// over a change of configuration as long as it stays equal.
type Check struct {
	Kind     Kind
	URL      string        // HTTP: http or https; a certificate is not verified
	Address  string        // TCP: host:port
	Interval time.Duration // from the start of one probe to the start of the next, ±10 %; shorter at first, see eager
	Timeout  time.Duration // of one probe, connecting included
	Rise     int           // good answers in a row until up
	Fall     int           // bad answers in a row until down

	// NotAddr must not be dialled: the VIP that depends on this check. It is set
	// only where the target is a name, whose addresses show when it is dialled.
	NotAddr netip.Addr
}

// Target is what the check dials, for people.
func (c Check) Target() string {
	if c.Kind == HTTP {
		return c.URL
	}
	return c.Address
}

// Status is what is known of a check's target.
type Status int

const (
	Unknown Status = iota // not asked often enough yet
	Up
	Down
)

func (s Status) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	default:
		return "unknown"
	}
}

// State is the status of one check.
type State struct {
	Status Status
	Reason string    // for people: the last answer, and how many of it count so far
	Since  time.Time // when Status became what it is
}
