// Package health asks local services whether they work, and turns single answers
// into a state by rise and fall, so that one lost packet moves no traffic.
package health

import (
	"net/netip"
	"strings"
	"time"
)

// Kind is how a check asks.
type Kind string

const (
	HTTP    Kind = "http"    // GET; good if the status is one of Status, and the body is as wanted
	TCP     Kind = "tcp"     // a connection that is accepted is good
	GRPC    Kind = "grpc"    // grpc.health.v1; SERVING is good
	Exec    Kind = "exec"    // a program that exits with 0 is good
	Systemd Kind = "systemd" // a unit that is active is good
)

// Check is one question and how often to ask it. It is comparable: two equal
// checks are one, asked once, however many VIPs use it, and it keeps its state
// over a change of configuration as long as it stays equal.
type Check struct {
	Kind Kind

	URL       string   // HTTP: http or https
	Status    Statuses // HTTP
	Body      string   // HTTP: what the first 64 KiB of the body have; "" is anything
	BodyRegex string   // HTTP: what they match, in Go's syntax (RE2); "" is anything
	Headers   List     // HTTP: name, value, name, value
	Redirects int      // HTTP: how many are followed, on the same host; one more counts as the answer
	Address   string   // TCP, GRPC: host:port
	Service   string   // GRPC: what is asked for; "" is the server as a whole
	TLS       bool     // GRPC
	Host      string   // HTTP, GRPC: name to ask for and to verify, in place of the one that is dialled
	CAFile    string   // HTTP, GRPC: PEM file with who signs the certificate; "" does not verify it
	Command   List     // Exec: an absolute path, and arguments
	Unit      string   // Systemd: with its suffix

	Interval time.Duration // from the start of one probe to the start of the next, ±10 %; shorter at first, see eager
	Fast     time.Duration // the same, between the first answer that contradicts the status and its change; 0: Interval
	Timeout  time.Duration // of one probe, connecting included
	Rise     int           // good answers in a row until up
	Fall     int           // bad answers in a row until down

	// NotAddr must not be dialled: the VIP that depends on this check. It is set
	// only where the target is a name, whose addresses show when it is dialled, or
	// may lead elsewhere.
	NotAddr netip.Addr
}

// Target is what the check asks, for people.
func (c Check) Target() string {
	switch c.Kind {
	case HTTP:
		return c.URL
	case GRPC:
		if c.Service != "" {
			return c.Address + "/" + c.Service
		}
		return c.Address
	case Exec:
		return printable(strings.Join(c.Command.Words(), " "))
	case Systemd:
		return c.Unit
	default:
		return c.Address
	}
}

// List is a list of words without NUL, comparable.
type List string

// ListOf makes a List. One empty word alone is no word.
func ListOf(words ...string) List { return List(strings.Join(words, "\x00")) }

// Words are the words of the list.
func (l List) Words() []string {
	if l == "" {
		return nil
	}
	return strings.Split(string(l), "\x00")
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
	// NotAsked is why the last try was none, for want of something on this host, and the
	// rest is what was known before; "" if it was one.
	NotAsked string
}
