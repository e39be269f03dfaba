package node

import (
	"regexp"
	"slices"
)

// What a node says of its own health, in its last accepted report. None of it moves
// the state.

// Service is a unit of the node's system.
type Service struct {
	Name   string `json:"name"`             // of the unit, such as gobgpd.service
	State  string `json:"state"`            // systemd's ActiveState, or "unknown"
	Reason string `json:"reason,omitempty"` // why it is not active
}

// Active says whether the service does its work, as `systemctl is-active` sees it.
func (s Service) Active() bool {
	return s.State == "active" || s.State == "reloading" || s.State == "refreshing"
}

var unitName = regexp.MustCompile(`^[0-9A-Za-z:_.@\\-]{1,255}$`)

// ValidUnit says whether name may be that of a unit; see systemd.unit(5).
func ValidUnit(name string) bool { return unitName.MatchString(name) }

// VIPState is what becomes of a VIP on the node, where it is not simply announced.
type VIPState struct {
	VIP    string `json:"vip"` // a host prefix, see CanonicalVIP
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// The states of a VIP on a node.
const (
	VIPAnnounced = "announced" // the speaker has its path
	VIPLowered   = "lowered"   // announced with the lowest preference, to be withdrawn
	VIPMissing   = "missing"   // should be announced, and is not
	VIPDrained   = "drained"   // by an operator's order
	VIPWithdrawn = "withdrawn" // Reason says why
	VIPUnknown   = "unknown"   // the announcer does not answer, or cannot tell
)

// VIPStates lists every state of a VIP on a node.
var VIPStates = []string{VIPAnnounced, VIPLowered, VIPMissing, VIPDrained, VIPWithdrawn, VIPUnknown}

// SameVIPs says whether n and m say the same about their VIPs.
func (n Node) SameVIPs(m Node) bool {
	return n.VIPsLeftOut == m.VIPsLeftOut && slices.Equal(n.VIPs, m.VIPs) && slices.Equal(n.VIPStates, m.VIPStates)
}

// VIPStatus says whether any node announces a VIP. It is an axis of the VIP's own.
type VIPStatus string

const (
	Announced           VIPStatus = "announced"
	Unannounced         VIPStatus = "unannounced" // no node that is online says that it announces it
	AnnouncementUnknown VIPStatus = "unknown"     // its nodes have had no time to speak, or did not say all
)

// VIPStatuses lists every status of a VIP.
var VIPStatuses = []VIPStatus{Announced, Unannounced, AnnouncementUnknown}
