// Package node says what a node is: its record, the lifecycle that its reports
// drive, and who may speak as it. It is pure: no I/O and no clock of its own, so
// every rule in it can be tested as a table.
package node

import (
	"fmt"
	"net/netip"
	"time"
)

// State is where a node stands in its lifecycle. Whether it is reachable and
// whether its configuration is current are separate axes: see [Rules.Reachability]
// and [Node.Config].
type State string

const (
	Pending        State = "Pending"        // declared, and not a word from it yet
	Provisioning   State = "Provisioning"   // coming up; it has until Deadline
	Active         State = "Active"         // said ready
	Failed         State = "Failed"         // said failed, or missed its deadline
	Decommissioned State = "Decommissioned" // taken out by an operator; its reports are refused
)

// States lists every state in lifecycle order.
var States = []State{Pending, Provisioning, Active, Failed, Decommissioned}

// Phase is what a node says about itself in a report.
type Phase string

const (
	PhaseBooted     Phase = "booted"     // the ISO or the installed system is up
	PhaseInstalling Phase = "installing" // about to write the disk
	PhaseInstalled  Phase = "installed"  // the disk is written
	PhaseReady      Phase = "ready"      // does its work
	PhaseFailed     Phase = "failed"     // cannot go on; Error says why
)

// Phases lists every phase in the order in which a node goes through them.
var Phases = []Phase{PhaseBooted, PhaseInstalling, PhaseInstalled, PhaseReady, PhaseFailed}

// Valid says whether p is a phase that a node may report.
func (p Phase) Valid() bool { return p.order() >= 0 }

func (p Phase) order() int {
	for i, known := range Phases {
		if p == known {
			return i
		}
	}
	return -1
}

// MaxHistory is how many transitions a node keeps; older ones are dropped.
const MaxHistory = 32

// Node is one record. Times are UTC with millisecond resolution.
type Node struct {
	ID string `json:"id"` // RFC 1123 label

	// What the manifest says.
	Declared   bool              `json:"declared"` // false: joined unknown, or no longer in the manifest
	Role       string            `json:"role,omitempty"`
	IP         netip.Addr        `json:"ip,omitzero"`
	ConfigHash string            `json:"config_hash,omitempty"` // expected: "sha256:" and 64 hex digits
	Identity   Identity          `json:"identity,omitzero"`     // of the machine that may be this node
	Labels     map[string]string `json:"labels,omitempty"`

	// Where the node stands.
	State       State        `json:"state"`
	Since       time.Time    `json:"since"`                 // when State was entered
	Deadline    time.Time    `json:"deadline,omitzero"`     // of Provisioning only
	Attempt     int          `json:"attempt"`               // provisioning attempts since it was last Active
	Provisioned bool         `json:"provisioned,omitempty"` // this machine said installed or ready once: never install over it unasked, nor, unless it waits, let another take its place
	LastError   *Error       `json:"last_error,omitempty"`  // stays until the node is Active
	History     []Transition `json:"history,omitempty"`     // oldest first, at most MaxHistory

	// What operators said of it.
	Held         *Mark     `json:"held,omitempty"`        // stands against an installation until it is released
	Approved     *Mark     `json:"approved,omitempty"`    // of the machine that this node is bound to
	Reinstall    *Mark     `json:"reinstall,omitempty"`   // lets the machine be installed over once
	Acknowledged time.Time `json:"acknowledged,omitzero"` // when the machine had heard that it is decommissioned

	// What the node said of itself in its last accepted report.
	MachineID    string            `json:"machine_id,omitempty"` // with MACs and Serial: the machine that this node is bound to
	MACs         []string          `json:"macs,omitempty"`       // canonical, sorted
	Serial       string            `json:"serial,omitempty"`
	SecretHash   string            `json:"secret_hash,omitempty"` // HashSecret of what it joined with; "" where the deployer wanted none
	TokenHash    string            `json:"token_hash,omitempty"`  // of the token of the store that it joined with
	Joined       time.Time         `json:"joined,omitzero"`       // when it used that token
	BootID       string            `json:"boot_id,omitempty"`
	Hostname     string            `json:"hostname,omitempty"`
	ReportedIP   netip.Addr        `json:"reported_ip,omitzero"`
	ReportedHash string            `json:"reported_hash,omitempty"`
	Phase        Phase             `json:"phase,omitempty"`
	Facts        map[string]string `json:"facts,omitempty"`
	VIPs         []string          `json:"vips,omitempty"` // that it announces
	VIPStates    []VIPState        `json:"vip_states,omitempty"`
	VIPsLeftOut  int               `json:"vips_left_out,omitempty"` // VIPs of its own that its report had no room for
	Services     []Service         `json:"services,omitempty"`
	LastSeen     time.Time         `json:"last_seen,omitzero"`
	Heartbeat    int64             `json:"heartbeat_ms,omitempty"` // the interval that it was told, see HeartbeatInterval
}

// Error is the last thing that went wrong on a node.
type Error struct {
	At      time.Time `json:"at"`
	Phase   Phase     `json:"phase,omitempty"` // the phase that the node was in before
	Message string    `json:"message"`
}

// Transition is one line of a node's history. From and To are equal when
// something worth knowing happened that did not move the state.
type Transition struct {
	At     time.Time `json:"at"`
	From   State     `json:"from"`
	To     State     `json:"to"`
	Event  Event     `json:"event"`
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`     // the operator whose doing it was
	Remote string    `json:"remote,omitempty"` // the address that the operator came from
}

// Declaration is what the manifest says about one node.
type Declaration struct {
	ID         string
	Role       string
	IP         netip.Addr
	ConfigHash string
	Identity   Identity
	Labels     map[string]string
}

// Check says what is wrong with d.
func (d Declaration) Check() error {
	switch {
	case !ValidID(d.ID):
		return fmt.Errorf("node %q: the id is not a lower-case host label (RFC 1123)", d.ID)
	case d.Role == "":
		return fmt.Errorf("node %s: no role is declared", d.ID)
	case d.ConfigHash != "" && !ValidConfigHash(d.ConfigHash):
		return fmt.Errorf("node %s: config hash %q is not sha256: and 64 hex digits", d.ID, d.ConfigHash)
	}
	for _, mac := range d.Identity.MACs {
		if canonical, ok := CanonicalMAC(mac); !ok || canonical != mac {
			return fmt.Errorf("node %s: identity.macs: %q is not a MAC address such as 52:54:00:12:34:56, in lower case", d.ID, mac)
		}
	}
	return nil
}

// Report is what a node says about itself. It is a whole: what is empty in it is
// not known, whatever an earlier report said. Its values are already validated.
type Report struct {
	MachineID string   // canonical, see CanonicalMachineID; "" is not known
	MACs      []string // canonical, see CanonicalMACs
	Serial    string   // see CanonicalSerial
	BootID    string   // differs for each boot of the machine; "" when not known
	IP        netip.Addr
	Role      string
	Hostname  string
	Hash      string
	Phase     Phase
	Error     string // with PhaseFailed
	Facts     map[string]string
	VIPs      []string

	Acknowledges bool // that its node is decommissioned
	VIPStates    []VIPState
	VIPsLeftOut  int
	Services     []Service

	Credentials *Credentials // nil: the deployer wants none
}

// New is a node that nobody has heard of before.
func New(id string, now time.Time) Node {
	return Node{ID: id, State: Pending, Since: instant(now)}
}

// instant gives t the resolution that survives being stored.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
