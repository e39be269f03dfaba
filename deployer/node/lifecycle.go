package node

import (
	"fmt"
	"maps"
	"time"
)

// Event is what can happen to a node. Each phase that a node reports is one.
type Event string

const (
	EventBooted      = Event(PhaseBooted)
	EventInstalling  = Event(PhaseInstalling)
	EventInstalled   = Event(PhaseInstalled)
	EventReady       = Event(PhaseReady)
	EventFailed      = Event(PhaseFailed)
	EventTick        = Event("tick")        // time went by; matters to a node whose deadline passed
	EventDeclared    = Event("declared")    // the manifest has it
	EventUndeclared  = Event("undeclared")  // the manifest has it no longer
	EventReplaced    = Event("replaced")    // another machine takes the place of one that is offline
	EventAcknowledge = Event("acknowledge") // the machine has heard that its node is decommissioned

	EventApprove      = Event("approve")      // an operator lets the machine that waits be the node
	EventHold         = Event("hold")         // an operator stands against its installation
	EventRelease      = Event("release")      // an operator takes the hold back
	EventRetry        = Event("retry")        // an operator gives a failed node another attempt
	EventReinstall    = Event("reinstall")    // an operator lets its machine be installed once more
	EventDecommission = Event("decommission") // an operator takes it out
	EventReset        = Event("reset")        // an operator lets it be provisioned anew, on any machine
	EventResetSecret  = Event("reset-secret") // an operator forgets its secret, so that it joins anew
)

// Verbs lists the events that an operator makes.
var Verbs = []Event{
	EventApprove, EventHold, EventRelease, EventRetry, EventReinstall, EventDecommission, EventReset, EventResetSecret,
}

// Events lists every event.
var Events = append([]Event{
	EventBooted, EventInstalling, EventInstalled, EventReady, EventFailed,
	EventTick, EventDeclared, EventUndeclared, EventReplaced, EventAcknowledge,
}, Verbs...)

// Next is a cell of the lifecycle: the state that follows, or the code of the
// refusal that the event meets.
type Next struct {
	To     State
	Refuse string
}

// Lifecycle is the whole lifecycle. A cell with its own state as To keeps it.
//
// Some rules stand beside the table because they are about the machine and not about
// the state:
//   - A report of a machine that is not the one bound is refused or becomes
//     EventReplaced first, which takes an operator's EventReset where that one was
//     installed, Active or approved. What was said while it waited does not count.
//   - `installing` is refused in every state once the machine was installed or Active
//     (Node.Provisioned), since a Failed node may hold data too, and where an operator
//     holds the node. With an operator's EventReinstall it leads to Provisioning.
//   - A machine that needs an approval stays Pending whatever it reports.
var Lifecycle = map[State]map[Event]Next{
	Pending: {
		EventBooted:       {To: Provisioning},
		EventInstalling:   {To: Provisioning},
		EventInstalled:    {To: Provisioning},
		EventReady:        {To: Active}, // installed before this deployer knew it
		EventFailed:       {To: Failed},
		EventTick:         {To: Pending}, // a node may stay in its box for a year
		EventDeclared:     {To: Pending},
		EventUndeclared:   {To: Pending},
		EventReplaced:     {To: Pending},
		EventReset:        {To: Pending},
		EventDecommission: {To: Decommissioned},
		EventAcknowledge:  {To: Pending},
		EventApprove:      {To: Pending},
		EventHold:         {To: Pending},
		EventRelease:      {To: Pending},
		EventRetry:        {Refuse: CodeWrongState},
		EventReinstall:    {To: Pending},
		EventResetSecret:  {To: Pending},
	},
	Provisioning: {
		EventBooted:       {To: Provisioning},
		EventInstalling:   {To: Provisioning},
		EventInstalled:    {To: Provisioning},
		EventReady:        {To: Active},
		EventFailed:       {To: Failed},
		EventTick:         {To: Failed}, // once the deadline has passed
		EventDeclared:     {To: Provisioning},
		EventUndeclared:   {To: Provisioning},
		EventReplaced:     {To: Pending},
		EventReset:        {To: Pending},
		EventDecommission: {To: Decommissioned},
		EventAcknowledge:  {To: Provisioning},
		EventApprove:      {To: Provisioning},
		EventHold:         {To: Provisioning},
		EventRelease:      {To: Provisioning},
		EventRetry:        {Refuse: CodeWrongState},
		EventReinstall:    {To: Provisioning},
		EventResetSecret:  {To: Provisioning},
	},
	Active: {
		EventBooted:       {To: Active}, // rebooted, or booted the ISO: the answer carries a hold
		EventInstalling:   {Refuse: CodeAlreadyProvisioned},
		EventInstalled:    {To: Active}, // a late message, or a hand at work: noted
		EventReady:        {To: Active},
		EventFailed:       {To: Failed},
		EventTick:         {To: Active}, // silence is reachability, not a state
		EventDeclared:     {To: Active},
		EventUndeclared:   {To: Active},
		EventReplaced:     {To: Pending},
		EventReset:        {To: Pending},
		EventDecommission: {To: Decommissioned},
		EventAcknowledge:  {To: Active},
		EventApprove:      {To: Active},
		EventHold:         {To: Active},
		EventRelease:      {To: Active},
		EventRetry:        {Refuse: CodeWrongState},
		EventReinstall:    {To: Active},
		EventResetSecret:  {To: Active},
	},
	Failed: {
		EventBooted:       {To: Provisioning},
		EventInstalling:   {To: Provisioning},
		EventInstalled:    {To: Provisioning},
		EventReady:        {To: Active},
		EventFailed:       {To: Failed},
		EventTick:         {To: Failed},
		EventDeclared:     {To: Failed},
		EventUndeclared:   {To: Failed},
		EventReplaced:     {To: Pending},
		EventReset:        {To: Pending},
		EventDecommission: {To: Decommissioned},
		EventAcknowledge:  {To: Failed},
		EventApprove:      {To: Failed},
		EventHold:         {To: Failed},
		EventRelease:      {To: Failed},
		EventRetry:        {To: Provisioning},
		EventReinstall:    {To: Failed},
		EventResetSecret:  {To: Failed},
	},
	Decommissioned: {
		EventBooted:       {Refuse: CodeDecommissioned},
		EventInstalling:   {Refuse: CodeDecommissioned},
		EventInstalled:    {Refuse: CodeDecommissioned},
		EventReady:        {Refuse: CodeDecommissioned},
		EventFailed:       {Refuse: CodeDecommissioned},
		EventTick:         {To: Decommissioned},
		EventDeclared:     {To: Decommissioned}, // a manifest that still has it does not bring it back
		EventUndeclared:   {To: Decommissioned},
		EventReplaced:     {Refuse: CodeDecommissioned},
		EventReset:        {To: Pending},
		EventDecommission: {To: Decommissioned},
		EventAcknowledge:  {To: Decommissioned},
		EventApprove:      {Refuse: CodeWrongState},
		EventHold:         {To: Decommissioned},
		EventRelease:      {To: Decommissioned},
		EventRetry:        {Refuse: CodeWrongState},
		EventReinstall:    {Refuse: CodeWrongState},
		EventResetSecret:  {To: Decommissioned},
	},
}

// Input is one event with what belongs to it.
type Input struct {
	Event       Event
	Report      Report      // of the phase events
	Declaration Declaration // of EventDeclared
	Reason      string      // of Verbs: the operator's words
	By          string      // of Verbs: the operator's name, "" where nobody knows it
	Remote      string      // of Verbs: the address that they came from
	Machine     string      // of EventApprove: MachineName of the one that is meant; "" is any
}

// Reported is the input that a report makes.
func Reported(r Report) Input { return Input{Event: Event(r.Phase), Report: r} }

// Apply makes in happen to n at now. It returns the new node and the lines that
// this added to its history. A *RefusedError means that nothing changed; so does
// any other error, which stands for a state or an event that does not exist.
func (r Rules) Apply(n Node, in Input, now time.Time) (Node, []Transition, error) {
	next, ok := Lifecycle[n.State][in.Event]
	if !ok {
		return n, nil, fmt.Errorf("node %s: no event %q in state %q", n.ID, in.Event, n.State)
	}
	c := change{Rules: r, node: n, now: instant(now), by: in.By, remote: in.Remote}
	var err error
	switch in.Event {
	case EventBooted, EventInstalling, EventInstalled, EventReady, EventFailed:
		err = c.report(in.Report)
	case EventTick:
		c.tick(next)
	case EventDeclared:
		c.declare(in.Declaration)
	case EventUndeclared:
		if n.Declared {
			c.node.Declared = false
			c.note(in.Event, "no longer in the manifest")
		}
	case EventAcknowledge:
		c.acknowledge()
	default:
		err = c.operate(in, next)
	}
	if err != nil {
		return n, nil, err
	}
	return c.node, c.made, nil
}

// change is one Apply at work.
type change struct {
	Rules
	node Node
	now  time.Time
	made []Transition

	by, remote string // the operator
}

// move enters state to, or notes the event when the node is there already.
func (c *change) move(to State, event Event, reason string) {
	t := Transition{At: c.now, From: c.node.State, To: to, Event: event, Reason: reason, By: c.by, Remote: c.remote}
	if to != c.node.State {
		c.node.State, c.node.Since = to, c.now
		c.node.Deadline = time.Time{}
		switch to {
		case Provisioning:
			c.node.Attempt++
			c.node.Deadline = c.now.Add(c.ProvisioningTimeout)
		case Active:
			c.node.Provisioned = true
			c.node.Attempt = 0
			c.node.LastError = nil
		}
	}
	kept := c.node.History[max(0, len(c.node.History)+1-MaxHistory):]
	c.node.History = append(append(make([]Transition, 0, len(kept)+1), kept...), t)
	c.made = append(c.made, t)
}

func (c *change) note(event Event, reason string) { c.move(c.node.State, event, reason) }

func (c *change) tick(next Next) {
	n := &c.node
	if n.Deadline.IsZero() {
		return
	}
	if latest := c.now.Add(c.ProvisioningTimeout); n.Deadline.Sub(latest) > ClockSlack {
		reason := fmt.Sprintf("the deadline was %s, further away than the provisioning timeout; it is %s now",
			n.Deadline.Format(time.RFC3339), latest.Format(time.RFC3339))
		n.Deadline = latest
		if n.Since.After(c.now) { // the clock was set back
			n.Since = c.now
		}
		c.note(EventTick, reason)
		return
	}
	if c.now.Before(n.Deadline) {
		return
	}
	// Who came up before this deployer listened may have said ready to nobody.
	if n.Since.Before(c.ListeningSince) && c.now.Sub(c.ListeningSince) <= c.silence(*n) {
		return
	}
	said := "said nothing"
	if n.Phase != "" {
		said = "last said " + string(n.Phase)
	}
	reason := fmt.Sprintf("not ready within %s (attempt %d, %s)", n.Deadline.Sub(n.Since), n.Attempt, said)
	n.LastError = &Error{At: c.now, Phase: n.Phase, Message: reason}
	c.move(next.To, EventTick, reason)
}

func (c *change) declare(d Declaration) {
	n := &c.node
	first := len(n.History) == 0
	var reason string
	switch {
	case first:
		reason = "declared in the manifest"
	case !n.Declared:
		reason = "in the manifest again"
	case n.Role != d.Role:
		reason = fmt.Sprintf("the manifest changes the role from %s to %s", n.Role, d.Role)
	case n.IP != d.IP:
		reason = fmt.Sprintf("the manifest changes the ip from %s to %s", n.IP, d.IP)
	case !n.Identity.equal(d.Identity):
		reason = "the manifest changes the identity of the machine"
	case n.ConfigHash != d.ConfigHash:
		reason = "the manifest changes the expected configuration"
	case !maps.Equal(n.Labels, d.Labels):
		reason = "the manifest changes the labels"
	default:
		return
	}
	n.Declared, n.Role, n.IP, n.ConfigHash, n.Identity = true, d.Role, d.IP, d.ConfigHash, d.Identity
	n.Labels = nil // as it is stored where there are none
	if len(d.Labels) > 0 {
		n.Labels = maps.Clone(d.Labels)
	}
	c.note(EventDeclared, reason)
}
