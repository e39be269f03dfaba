package node

import (
	"fmt"
	"time"
)

// Reachability says whether a node has been heard lately.
type Reachability string

const (
	Online  Reachability = "online"  // heard within OfflineAfter
	Unknown Reachability = "unknown" // never heard, or heard in the future, or the deployer has not listened long enough to tell
	Offline Reachability = "offline" // silent for longer than OfflineAfter while the deployer listened
)

// Config compares the configuration that a node reports with the expected one.
type Config string

const (
	InSync        Config = "in_sync"
	Drifted       Config = "drifted"
	ConfigUnknown Config = "unknown" // one of the two hashes is missing
)

// ClockSlack is how far from now a clock may put what has just happened. A time
// further ahead was written before the clock was set back, and tells nothing.
const ClockSlack = time.Minute

// Later says whether a node heard at next is heard later than at last. A next far
// before last is: news is never that old, so the clock was set back.
func Later(last, next time.Time) bool {
	return next.After(last) || last.Sub(next) > ClockSlack
}

// Rules are the policies that a lifecycle needs.
type Rules struct {
	ProvisioningTimeout time.Duration // from entering Provisioning to Failed
	OfflineAfter        time.Duration // silence after which a node counts as offline, if it is to be heard each HeartbeatInterval
	HeartbeatInterval   time.Duration // see OfflineAfter
	Told                time.Duration // the interval that nodes are told now; whole seconds where it is longer than HeartbeatInterval
	ListeningSince      time.Time     // when this deployer began to hear reports
	Approval            Approval      // "" is ApproveNone
}

// Reachability of n at now. A deployer that has just started has no right to call
// anybody offline: until it has listened for as long as n may be silent, silence is
// Unknown.
func (r Rules) Reachability(n Node, now time.Time) Reachability {
	silence := r.silence(n)
	switch {
	case n.LastSeen.IsZero(), n.LastSeen.Sub(now) > ClockSlack:
		return Unknown
	case now.Sub(n.LastSeen) <= silence:
		return Online
	case now.Sub(r.ListeningSince) <= silence:
		return Unknown
	default:
		return Offline
	}
}

// silence is how long n may be: as many of the heartbeats that it was told as
// OfflineAfter is of HeartbeatInterval. What it was told counts, since it does not hear
// of another interval before its next report.
func (r Rules) silence(n Node) time.Duration {
	if told := n.HeartbeatInterval(); told > r.HeartbeatInterval && r.HeartbeatInterval > 0 {
		return time.Duration(float64(r.OfflineAfter) * float64(told) / float64(r.HeartbeatInterval))
	}
	return r.OfflineAfter
}

// HeartbeatInterval is what n was told with its last report; 0 where that is not known.
func (n Node) HeartbeatInterval() time.Duration { return time.Duration(n.Heartbeat) * time.Millisecond }

// Config says whether n runs the configuration that the manifest expects.
func (n Node) Config() Config {
	switch {
	case n.ConfigHash == "" || n.ReportedHash == "":
		return ConfigUnknown
	case n.ConfigHash == n.ReportedHash:
		return InSync
	default:
		return Drifted
	}
}

// Hold is the reason why n must not be installed now, "" when nothing stands
// against it. A node that was installed or Active once on its machine has a
// disk with data on it: booting the ISO again must not erase that.
func (r Rules) Hold(n Node) string {
	switch {
	case n.State == Decommissioned:
		return "the node is decommissioned"
	case n.Held != nil:
		return fmt.Sprintf("held by %s since %s%s", n.Held.who(), n.Held.At.Format(time.RFC3339), n.Held.why())
	case r.Waiting(n):
		return "this machine waits for an operator's approval: plasmactl node approve " + n.ID
	case n.Provisioned && n.Reinstall == nil:
		return "this machine is already provisioned as " + n.ID + " and is not installed again by itself"
	default:
		return ""
	}
}
