// Package api is what travels between the deployer and those who talk to it: the
// JSON messages, in snake_case, and a client for them. It imports little, since
// the phone-home client carries it into the ISO.
package api

import (
	"time"

	"github.com/centra/plasmacloud/deployer/node"
)

// Paths below the deployer's base URL.
const (
	PathPhoneHome = "/api/v1/phone-home"
	PathNodes     = "/api/v1/nodes"
	PathEvents    = "/api/v1/events"
	PathVIPs      = "/api/v1/vips"
	PathTokens    = "/api/v1/tokens"
	PathAudit     = "/api/v1/audit"
	PathStatus    = "/api/v1/status"
	PathOpenAPI   = "/api/v1/openapi.json"
	PathHealth    = "/health"
	PathMetrics   = "/metrics"
)

// Limits of a phone-home request. What is over them is refused with a problem
// that names the field; Error alone is cut, since the news of a failure must not
// be lost for being long.
const (
	MaxRequestBytes = 64 << 10
	MaxErrorBytes   = 4 << 10
	MaxHostname     = 253 // RFC 1123 section 2.1
	MaxFacts        = 32
	MaxFactKey      = 64
	MaxFactValue    = 1024
	MaxVIPs         = 1024 // in vips, and in vip_states
	MaxVIPsLeftOut  = 1_000_000
	MaxServices     = 64
	MaxReasonBytes  = 256 // of a service and of a VIP; it is cut
	MaxID           = 128 // machine_id and boot_id
	MaxReason       = 512 // bytes of an operator's words
)

// PhoneHomeRequest is what a node says about itself: POST /api/v1/phone-home.
// NodeID and Phase are required. Each report is a whole: what is left out is not
// known, whatever an earlier report said.
type PhoneHomeRequest struct {
	NodeID     string            `json:"node_id"`              // RFC 1123 label
	MachineID  string            `json:"machine_id,omitempty"` // a UUID or another id of the hardware
	BootID     string            `json:"boot_id,omitempty"`    // differs for each boot; tells a reboot from a heartbeat
	IP         string            `json:"ip,omitempty"`
	Role       string            `json:"role,omitempty"` // control-plane or worker
	Hostname   string            `json:"hostname,omitempty"`
	ConfigHash string            `json:"config_hash,omitempty"` // "sha256:" and 64 hex digits, of cluster-config.json
	Phase      node.Phase        `json:"phase"`
	Error      string            `json:"error,omitempty"` // only with phase "failed"
	Facts      map[string]string `json:"facts,omitempty"`
	VIPs       []string          `json:"vips,omitempty"` // addresses or prefixes that the node announces

	Acknowledges string `json:"acknowledges,omitempty"` // AckDecommissioned, once the node has heard that
	// VIPStates are those of the VIPs that are not simply announced; one that is may be
	// here too. VIPsLeftOut counts the node's VIPs that are in neither list for want of room.
	VIPStates   []node.VIPState `json:"vip_states,omitempty"`
	VIPsLeftOut int             `json:"vips_left_out,omitempty"`
	Services    []node.Service  `json:"services,omitempty"`

	JoinToken string `json:"-"` // in the header Authorization: until the deployer knows Secret
	Secret    string `json:"-"` // in the header node.SecretHeader: the node's own
}

// AckDecommissioned is what a node says that has heard that it is decommissioned.
const AckDecommissioned = "decommissioned"

// PhoneHomeResponse is the answer to an accepted report.
type PhoneHomeResponse struct {
	NodeID                   string     `json:"node_id"`
	State                    node.State `json:"state"`
	Message                  string     `json:"message"`
	HeartbeatIntervalSeconds int        `json:"heartbeat_interval_seconds"`
	ExpectedConfigHash       string     `json:"expected_config_hash,omitempty"`
	Hold                     string     `json:"hold,omitempty"` // why the node must not be installed now; "" when it may
}

// Node is one node as GET /api/v1/nodes/{id} shows it.
type Node struct {
	ID           string            `json:"node_id"`
	Role         string            `json:"role,omitempty"`
	IP           string            `json:"ip,omitempty"`
	Declared     bool              `json:"declared"` // in the deployer's manifest now
	Labels       map[string]string `json:"labels,omitempty"`
	State        node.State        `json:"state"`
	Since        time.Time         `json:"since"` // when State was entered
	Deadline     *time.Time        `json:"deadline,omitempty"`
	Attempt      int               `json:"attempt"`
	Reachability node.Reachability `json:"reachability"`
	LastSeen     *time.Time        `json:"last_seen,omitempty"`
	Config       node.Config       `json:"config"`
	ConfigHash   string            `json:"config_hash,omitempty"`   // expected
	ReportedHash string            `json:"reported_hash,omitempty"` // what the node runs
	ReportedIP   string            `json:"reported_ip,omitempty"`
	Phase        node.Phase        `json:"phase,omitempty"`
	Hold         string            `json:"hold,omitempty"`
	Held         *node.Mark        `json:"held,omitempty"`         // by an operator, until it is released
	Waiting      bool              `json:"waiting,omitempty"`      // the machine waits for an operator's approval
	Machine      string            `json:"machine,omitempty"`      // that the node is bound to, in words; what an approval is for
	Approved     *node.Mark        `json:"approved,omitempty"`     // by an operator
	Reinstall    *node.Mark        `json:"reinstall,omitempty"`    // an operator lets the machine be installed once more
	Acknowledged *time.Time        `json:"acknowledged,omitempty"` // of a decommissioned node: when its machine had heard of it
	LastError    *node.Error       `json:"last_error,omitempty"`
	MachineID    string            `json:"machine_id,omitempty"`
	Hostname     string            `json:"hostname,omitempty"`
	VIPs         []string          `json:"vips,omitempty"`          // that it announces
	VIPStates    []node.VIPState   `json:"vip_states,omitempty"`    // of its other VIPs
	VIPsLeftOut  int               `json:"vips_left_out,omitempty"` // VIPs that its report had no room for
	Services     []node.Service    `json:"services,omitempty"`
	Facts        map[string]string `json:"facts,omitempty"`
	History      []node.Transition `json:"history,omitempty"` // oldest first; left out of a NodeList
}

// Status is GET /api/v1/status: the fleet at a glance.
type Status struct {
	Version      string                    `json:"version"` // of the deployer
	Leader       bool                      `json:"leader"`  // it looks after the deadlines; with bbolt it always does
	Nodes        int                       `json:"nodes"`
	States       map[node.State]int        `json:"states"`
	Reachability map[node.Reachability]int `json:"reachability"`
	Config       map[node.Config]int       `json:"config"`
	Held         int                       `json:"held"`       // by an operator
	Waiting      int                       `json:"waiting"`    // for an operator's approval
	Undeclared   int                       `json:"undeclared"` // the manifest does not have them
	Unreadable   int                       `json:"unreadable"` // their record cannot be read; in no other number
	VIPs         map[node.VIPStatus]int    `json:"vips"`       // the declared ones
	Warnings     []string                  `json:"warnings"`   // what somebody should look after, the gravest first
}

// OperateRequest is POST /api/v1/nodes/{id}/{verb}, with one of node.Verbs. All of it may
// be left out, also the body.
type OperateRequest struct {
	Reason  string `json:"reason,omitempty"`  // for the node's history; at most MaxReason
	Machine string `json:"machine,omitempty"` // with approve: the Machine that is meant, so that no other one gets in
}

// NodeList is GET /api/v1/nodes: all nodes by ascending id, without their history. With
// after or limit it is a page of them.
type NodeList struct {
	Nodes []Node `json:"nodes"`
	Next  string `json:"next,omitempty"` // what to send as after for those behind; none at the end
}

// Event is one thing that happened.
type Event struct {
	Cursor string     `json:"cursor"` // the place behind it, to go on from
	At     time.Time  `json:"at"`
	NodeID string     `json:"node_id,omitempty"` // none where a manifest was declared, and of a VIP
	VIP    string     `json:"vip,omitempty"`     // of "vip_announced" and "vip_unannounced"
	Event  node.Event `json:"event"`             // that of a history, or one of those, "refused", "manifest", "unreadable"
	From   node.State `json:"from,omitempty"`
	To     node.State `json:"to,omitempty"`   // equal to From where the state stayed
	Code   string     `json:"code,omitempty"` // of the problem, with "refused"
	Reason string     `json:"reason,omitempty"`
	By     string     `json:"by,omitempty"` // the operator whose doing it was
}

// EventList is GET /api/v1/events: oldest first.
type EventList struct {
	Events []Event `json:"events"`
	Next   string  `json:"next"` // cursor to go on from, also where there are no events
	More   bool    `json:"more"` // there may be more already
}

// AuditEntry is one thing that an operator did, or wanted to.
type AuditEntry struct {
	Cursor string     `json:"cursor"` // the place behind it, to go on from
	At     time.Time  `json:"at"`
	By     string     `json:"by"`                // the operator's name
	Remote string     `json:"remote,omitempty"`  // the address that they came from
	Action node.Event `json:"action"`            // one of node.Verbs, token-create or token-revoke
	NodeID string     `json:"node_id,omitempty"` // of an action on a node
	Token  string     `json:"token,omitempty"`   // the name, of an action on a token
	Result string     `json:"result"`            // done, unchanged or refused
	Code   string     `json:"code,omitempty"`    // of the problem, where it was refused
	Reason string     `json:"reason,omitempty"`  // the operator's words
}

// AuditLog is GET /api/v1/audit: oldest first.
type AuditLog struct {
	Entries []AuditEntry `json:"entries"`
	Next    string       `json:"next"` // cursor to go on from, also where there are no entries
	More    bool         `json:"more"` // there may be more already
}

// Token is a join token as GET /api/v1/tokens shows it: not the token itself.
type Token struct {
	Name      string     `json:"name"`
	Node      string     `json:"node,omitempty"` // the one node that may join with it; left out, any
	Role      string     `json:"role,omitempty"` // the role of the nodes that may; left out, any
	Expires   *time.Time `json:"expires,omitempty"`
	Uses      int        `json:"uses,omitempty"` // how many machines may join with it; left out, any number
	Used      int        `json:"used"`           // how many have
	Created   time.Time  `json:"created"`
	CreatedBy string     `json:"created_by,omitempty"`
	LastUsed  *time.Time `json:"last_used,omitempty"`
	LastNode  string     `json:"last_node,omitempty"` // that joined then
}

// TokenList is GET /api/v1/tokens, by ascending name.
type TokenList struct {
	Tokens []Token `json:"tokens"`
}

// TokenRequest is POST /api/v1/tokens. Name is required.
type TokenRequest struct {
	Name    string    `json:"name"` // letters, digits, dash and underscore, at most 63
	Node    string    `json:"node,omitempty"`
	Role    string    `json:"role,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	Uses    int       `json:"uses,omitempty"`
}

// NewToken answers a TokenRequest. Nobody can ask for the token itself again.
type NewToken struct {
	Token
	Secret string `json:"token"`
}

// EventStreamType is what a watcher of GET /api/v1/events accepts.
const EventStreamType = "text/event-stream"

// MaxList is how many events an EventList has at most, and nodes a NodeList that was
// asked for with a limit.
const MaxList = 1000

// Health is GET /health. Its status code is 503 when Status is "failing", else 200.
type Health struct {
	Status  string `json:"status"`           // "ok", "degraded" (some nodes are left out) or "failing"
	Version string `json:"version"`          // of the deployer
	Reason  string `json:"reason,omitempty"` // what is wrong
}
