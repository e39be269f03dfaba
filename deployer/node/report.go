package node

import (
	"fmt"
	"maps"
	"slices"
)

// report lets a node speak: first who speaks, then what it means for the state,
// last what it says about itself.
func (c *change) report(r Report) error {
	n := &c.node
	before := *n
	if err := n.Authenticate(r); err != nil {
		return err
	}
	event := Event(r.Phase)
	if next := Lifecycle[n.State][event]; next.Refuse == CodeDecommissioned {
		return refuse(next.Refuse, *n, r)
	}
	if n.Declared && r.Role != "" && r.Role != n.Role {
		return refuse(CodeRoleMismatch, *n, r)
	}
	if n.Declared && n.Identity.Mismatch(n.ID, r.MACs, r.Serial) != "" {
		return refuse(CodeIdentityMismatch, *n, r)
	}
	if err := c.bind(r); err != nil {
		return err
	}
	if n.Provisioned && r.Phase == PhaseInstalling {
		return refuse(CodeAlreadyProvisioned, *n, r)
	}
	next := Lifecycle[n.State][event]
	if next.Refuse != "" {
		return refuse(next.Refuse, *n, r)
	}
	c.joined(r, before)
	c.advance(r, next.To)
	c.describe(r)
	if r.Phase == PhaseInstalled { // and Active, which move sees to
		n.Provisioned = true
	}
	return nil
}

// bind settles which machine is the node.
func (c *change) bind(r Report) error {
	n := &c.node
	if n.sameMachine(r) {
		if n.MachineID == "" && r.MachineID != "" && n.Phase != "" { // it spoke before, without an id
			c.note(Event(r.Phase), "bound to machine "+r.MachineID)
		}
		n.recognize(r)
		return nil
	}
	if c.Reachability(*n, c.now) != Offline {
		return refuse(CodeMachineConflict, *n, r)
	}
	// The same id with other cards may be a machine whose cards were exchanged, and
	// that holds data then.
	provisioned := n.Provisioned && n.MachineID != "" && n.MachineID == r.MachineID
	reason := fmt.Sprintf("machine %s takes the place of %s, which is offline since %s",
		r.machineName(), n.machineName(), n.LastSeen.Format("2006-01-02T15:04:05Z07:00"))
	if err := c.operate(EventReplaced, Lifecycle[n.State][EventReplaced], reason); err != nil {
		return err
	}
	n.recognize(r)
	n.Provisioned = provisioned
	return nil
}

// advance moves the state. What a node repeats in the same boot is a heartbeat
// and not an event: a node that hangs in `installing` and goes on saying so does
// not earn itself a new deadline.
func (c *change) advance(r Report, to State) {
	n := &c.node
	sameBoot := r.BootID == n.BootID
	repeated := n.Phase == r.Phase && sameBoot
	event := Event(r.Phase)
	switch {
	case r.Phase == PhaseFailed:
		message := r.Error
		if message == "" {
			message = "the node gave no reason"
		}
		if repeated && n.State == to && n.LastError != nil && n.LastError.Message == message {
			return
		}
		n.LastError = &Error{At: c.now, Phase: n.Phase, Message: message}
		c.move(to, event, message)
	case r.Phase == PhaseReady:
		if n.State != to {
			c.move(to, event, "the node is ready")
		} else if !sameBoot {
			c.note(event, "ready after a reboot")
		}
	case repeated:
	case n.State != to:
		c.move(to, event, "the node says "+string(r.Phase))
	case n.State == Provisioning && startsOver(n.Phase, r.Phase, sameBoot):
		n.Attempt++
		c.note(event, fmt.Sprintf("starts over at %s after %s (attempt %d)", r.Phase, n.Phase, n.Attempt))
	default:
		c.note(event, "the node says "+string(r.Phase))
	}
}

// startsOver says whether a node that said last and now says phase has begun its
// provisioning again. Booting what was just installed is the normal way on.
func startsOver(last, phase Phase, sameBoot bool) bool {
	if last == PhaseInstalled && phase == PhaseBooted {
		return false
	}
	return phase.order() < last.order() || phase == last && !sameBoot
}

// describe takes over what the node says about itself.
func (c *change) describe(r Report) {
	n := &c.node
	if r.IP.IsValid() && n.ReportedIP != r.IP {
		if n.Declared && n.IP.IsValid() && r.IP != n.IP {
			c.note(Event(r.Phase), fmt.Sprintf("reports ip %s where %s is declared", r.IP, n.IP))
		}
	}
	n.BootID, n.Hostname, n.ReportedIP, n.ReportedHash, n.Phase = r.BootID, r.Hostname, r.IP, r.Hash, r.Phase
	if !n.Declared && n.Role == "" {
		n.Role = r.Role
	}
	if !maps.Equal(n.Facts, r.Facts) {
		n.Facts = maps.Clone(r.Facts)
	}
	if !slices.Equal(n.VIPs, r.VIPs) {
		n.VIPs = slices.Clone(r.VIPs)
	}
	n.LastSeen, n.Heartbeat = c.now, c.Told.Milliseconds()
}
