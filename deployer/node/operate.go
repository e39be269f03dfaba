package node

import (
	"cmp"
	"time"
)

// Mark is what an operator said of a node, and stands until it is taken back or used.
type Mark struct {
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"` // the operator's name
	Reason string    `json:"reason,omitempty"`
}

// who is the operator in the words of a reason.
func (m Mark) who() string { return cmp.Or(m.By, "an operator") }

// why is the reason behind a colon.
func (m Mark) why() string {
	if m.Reason == "" {
		return ""
	}
	return ": " + m.Reason
}

// Approval says which machines wait for an operator's word before they are a node.
type Approval string

const (
	ApproveNone       Approval = "none"
	ApproveUndeclared Approval = "undeclared" // those of nodes that the manifest does not have
	ApproveAll        Approval = "all"
)

// Valid says whether a is one of the three.
func (a Approval) Valid() bool { return a == ApproveNone || a == ApproveUndeclared || a == ApproveAll }

// approved says whether the machine of n needs no approval, or has it. Only a Pending
// node needs one: whoever got further than that has been let in.
func (r Rules) approved(n Node) bool {
	switch {
	case n.State != Pending, n.Approved != nil:
		return true
	case r.Approval == ApproveAll:
		return false
	case r.Approval == ApproveUndeclared:
		return n.Declared
	default:
		return true
	}
}

// Waiting says whether a machine has reported as n and waits for an approval.
func (r Rules) Waiting(n Node) bool { return n.Phase != "" && !r.approved(n) }

// settled says whether the machine of n was installed or Active. Of one that waits for an
// approval that is what a stranger says, and binds the node to nobody.
func (r Rules) settled(n Node) bool { return n.Provisioned && !r.Waiting(n) }

// MachineName is the machine that n is bound to, in words: what an approval is for.
func (n Node) MachineName() string { return n.machineName() }

// operate does what an operator orders, or a machine that takes another's place. What
// is so already stays as it is and makes no history.
func (c *change) operate(in Input, next Next) error {
	n := &c.node
	mark := &Mark{At: c.now, By: in.By, Reason: in.Reason}
	if next.Refuse != "" {
		return wrongState(*n, in.Event)
	}
	switch in.Event {
	case EventApprove:
		switch {
		case n.Approved != nil && (in.Machine == "" || in.Machine == n.machineName()):
			return nil
		case n.Approved == nil && (n.State != Pending || n.Phase == ""):
			return wrongState(*n, in.Event)
		case in.Machine != "" && in.Machine != n.machineName():
			return wrongMachine(*n, in.Machine)
		}
		n.Approved = mark
	case EventHold:
		if n.Held != nil && n.Held.Reason == in.Reason {
			return nil
		}
		n.Held, n.Reinstall = mark, nil
	case EventRelease:
		if n.Held == nil {
			return nil
		}
		n.Held = nil
	case EventReinstall:
		switch {
		case !n.Provisioned, n.Held != nil:
			return wrongState(*n, in.Event)
		case n.Reinstall != nil:
			return nil
		}
		n.Reinstall = mark
	case EventResetSecret:
		if n.SecretHash == "" {
			return nil
		}
		n.SecretHash, n.TokenHash, n.Joined = "", "", time.Time{}
	case EventDecommission:
		if n.State == Decommissioned {
			return nil
		}
		n.Reinstall, n.Acknowledged = nil, time.Time{}
	case EventReset, EventReplaced:
		c.forget()
	}
	c.move(next.To, in.Event, in.Reason)
	return nil
}

// acknowledge notes that the machine knows that it is taken out.
func (c *change) acknowledge() {
	if c.node.State != Decommissioned || !c.node.Acknowledged.IsZero() {
		return
	}
	c.node.Acknowledged = c.now
	c.note(EventAcknowledge, "the machine has heard that it is decommissioned")
}

// forget drops what belongs to the machine rather than to the node.
func (c *change) forget() {
	n := &c.node
	n.MachineID, n.BootID, n.Hostname, n.ReportedHash, n.Phase = "", "", "", "", ""
	n.MACs, n.Serial, n.SecretHash, n.TokenHash = nil, "", "", ""
	n.ReportedIP = Node{}.ReportedIP
	n.Facts, n.VIPs, n.VIPStates, n.VIPsLeftOut, n.Services = nil, nil, nil, 0, nil
	n.Joined, n.LastSeen, n.Heartbeat = time.Time{}, time.Time{}, 0
	n.Attempt, n.Provisioned = 0, false
	n.Approved, n.Reinstall, n.Acknowledged = nil, nil, time.Time{}
}
