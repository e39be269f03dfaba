package node

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// report lets a node speak: first who speaks, then what it means for the state,
// last what it says about itself.
func (c *change) report(r Report) error {
	n := &c.node
	before := *n
	if err := c.Authenticate(*n, r); err != nil {
		return err
	}
	event := Event(r.Phase)
	if next := Lifecycle[n.State][event]; next.Refuse == CodeDecommissioned {
		known := r.Credentials == nil || n.Knows(r.Credentials.SecretHash)
		other := !n.sameMachine(r) || n.Declared && n.Identity.Mismatch(n.ID, r.MACs, r.Serial) != ""
		if !r.Acknowledges || n.Phase == "" || !known || other {
			return refuse(next.Refuse, *n, r)
		}
		c.acknowledge()
		n.LastSeen = c.now
		return nil
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
	next := Lifecycle[n.State][event]
	waits := !c.approved(*n)
	if r.Phase == PhaseInstalling && !waits {
		var err error
		if next, err = c.install(r, next); err != nil {
			return err
		}
	}
	if err := c.joined(r, before); err != nil {
		return err
	}
	if waits {
		c.wait(r)
	} else {
		c.advance(r, next.To)
	}
	c.describe(r)
	if r.Phase == PhaseInstalled || r.Phase == PhaseReady {
		n.Provisioned = true
	}
	return nil
}

// install says what follows when the machine is about to write its disk, or why it must
// not.
func (c *change) install(r Report, next Next) (Next, error) {
	n := &c.node
	// Too late for a hold. Who waited said it too, and may not write before it asks again.
	underWay := n.State != Pending && n.Phase == PhaseInstalling && n.BootID == r.BootID && r.BootID != ""
	switch {
	case n.Held != nil && !underWay:
		return next, refuse(CodeHeld, *n, r)
	case n.Provisioned && n.Reinstall == nil:
		return next, refuse(CodeAlreadyProvisioned, *n, r)
	case n.Provisioned:
		// Until it says that it is installed, it may begin again.
		n.Provisioned, n.Reinstall = false, nil
		return Next{To: Provisioning}, nil
	default:
		return next, nil
	}
}

// wait notes what a machine says that nobody has approved yet.
func (c *change) wait(r Report) {
	n := &c.node
	repeated := n.Phase == r.Phase && n.BootID == r.BootID
	reason := fmt.Sprintf("the node says %s, and waits for an operator's approval", r.Phase)
	if n.Phase == "" {
		reason = fmt.Sprintf("machine %s waits for an operator's approval", r.machineName())
	}
	if r.Phase == PhaseFailed {
		message := r.message()
		repeated = repeated && n.LastError != nil && n.LastError.Message == message
		reason += ": " + message
		if !repeated {
			n.LastError = &Error{At: c.now, Phase: n.Phase, Message: message}
		}
	}
	if !repeated {
		c.note(Event(r.Phase), reason)
	}
}

// message is why the node failed.
func (r Report) message() string { return cmp.Or(r.Error, "the node gave no reason") }

// bind settles which machine is the node. Where one is offline that nobody would miss,
// another takes its place.
func (c *change) bind(r Report) error {
	n := &c.node
	if n.sameMachine(r) {
		if n.MachineID == "" && r.MachineID != "" && n.Phase != "" { // it spoke before, without an id
			c.note(Event(r.Phase), "bound to machine "+r.MachineID)
		}
		n.recognize(r)
		return nil
	}
	if stays := c.stays(*n, r); stays || c.Reachability(*n, c.now) != Offline {
		return machineConflict(*n, r, stays)
	}
	provisioned := n.Provisioned && n.proves(r) // its disk moved along
	reason := fmt.Sprintf("machine %s takes the place of %s, which is offline since %s",
		r.machineName(), n.machineName(), n.LastSeen.Format("2006-01-02T15:04:05Z07:00"))
	if err := c.operate(Input{Event: EventReplaced, Reason: reason}, Lifecycle[n.State][EventReplaced]); err != nil {
		return err
	}
	n.recognize(r)
	n.Provisioned = provisioned
	return nil
}

// stays says whether n keeps its machine, offline or not, until an operator resets it:
// one that was approved, and one that may hold data. Who brings the secret of a node
// brings its disk, and may where nobody has to be asked.
func (r Rules) stays(n Node, by Report) bool {
	asked := !r.approved(Node{State: Pending, Declared: n.Declared})
	return n.Approved != nil || r.settled(n) && (asked || !n.proves(by))
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
		message := r.message()
		// After an operator's retry it is old news too.
		if repeated && (n.State == to || n.State == Provisioning) && n.LastError != nil && n.LastError.Message == message {
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
	case repeated && n.State != Pending: // there it was approved meanwhile
	case n.State != to:
		c.move(to, event, "the node says "+string(r.Phase))
	case n.State == Provisioning && startsOver(n.Phase, r.Phase, sameBoot) && !n.LastSeen.Before(n.Since): // else a retry has counted it
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
	if !slices.Equal(n.VIPStates, r.VIPStates) {
		n.VIPStates = slices.Clone(r.VIPStates)
	}
	if !slices.Equal(n.Services, r.Services) {
		n.Services = slices.Clone(r.Services)
	}
	n.VIPsLeftOut = r.VIPsLeftOut
	n.LastSeen, n.Heartbeat = c.now, c.Told.Milliseconds()
}
