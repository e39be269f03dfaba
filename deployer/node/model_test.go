package node

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is a node as an operator would tell it, without a history. Its machines are real
// ones, so it knows what a record cannot: on whose disk there is a system.
type model struct {
	rules    Rules
	declared bool

	state    State
	machine  *modelMachine // that the node is; nil before one has spoken
	boot     string
	phase    Phase
	heard    time.Time
	deadline time.Time
	failure  string // of the last error
	secret   string
	writing  string // the boot in which its machine may write its disk

	data, held, approved, reinstall bool

	systems map[*modelMachine]bool // installed or ready as this node, and no operator has given that up
}

// modelMachine is a machine that its marks tell from the others.
type modelMachine struct {
	name, id, serial string
	macs             []string
	boots            int
}

func modelMachines() []*modelMachine {
	return []*modelMachine{
		{name: "A", id: machineA, serial: "S1", macs: []string{mac1}},
		{name: "B", id: machineB, macs: []string{mac2}},
		{name: "a board with the id of A", id: machineA, macs: []string{mac3}},
		{name: "without marks"},
	}
}

const modelFailure = "no disk"

// modelReport is a report as the model sees it.
type modelReport struct {
	machine *modelMachine
	boot    string
	phase   Phase
	secret  string    // "" where the deployer wants none
	token   JoinToken // "general" is any node's, "alone" is for this one
}

func (m *model) asks() bool {
	return m.rules.Approval == ApproveAll || m.rules.Approval == ApproveUndeclared && !m.declared
}

func (m *model) waits() bool { return m.asks() && m.state == Pending && !m.approved }

func (m *modelMachine) marked() bool { return m.id != "" || m.serial != "" || len(m.macs) > 0 }

func (m *model) enter(state State, now time.Time) {
	if state == m.state {
		return
	}
	m.state, m.deadline = state, time.Time{}
	switch state {
	case Provisioning:
		m.deadline = now.Add(m.rules.ProvisioningTimeout)
	case Active:
		m.failure = ""
	}
}

// forget is what is so once no machine is the node.
func (m *model) forget(now time.Time) {
	m.enter(Pending, now)
	m.machine, m.boot, m.phase, m.heard, m.secret, m.writing = nil, "", "", time.Time{}, "", ""
	m.data, m.approved, m.reinstall = false, false, false
}

// report returns the code of the refusal, "" for none, and whether the machine may now
// write its disk.
func (m *model) report(r modelReport, now time.Time) (code string, writes bool) {
	next := *m
	next.systems = nil
	if code, writes = next.says(r, now); code != "" {
		return code, false
	}
	next.systems = m.systems
	*m = next
	if writes && m.systems[r.machine] { // the operator has given up whatever is installed as this node
		clear(m.systems)
	}
	if m.data && !m.waits() { // what a stranger says is no system
		m.systems[r.machine] = true
	}
	return "", writes
}

func (m *model) says(r modelReport, now time.Time) (code string, writes bool) {
	known := m.secret != "" && r.secret == m.secret
	settled := m.data && !m.waits()
	if r.secret != "" && !known {
		switch {
		case m.secret != "" && settled && r.token.Node == "":
			return CodeNodeSecretWrong, false
		case r.token.Name == "" && m.secret == "":
			return CodeJoinTokenRequired, false
		case r.token.Name == "":
			return CodeNodeSecretWrong, false
		}
	}
	if m.state == Decommissioned {
		return CodeDecommissioned, false
	}
	if m.machine != nil && m.machine != r.machine && (m.machine.marked() || !known) {
		online := now.Sub(m.heard) <= m.rules.OfflineAfter
		switch {
		case online, m.approved, settled && (m.asks() || !known):
			return CodeMachineConflict, false
		}
		data := m.data && known
		m.forget(now)
		m.data = data
	}
	repeated := m.phase == r.phase && m.boot == r.boot
	waits := m.waits()
	if r.phase == PhaseInstalling && !waits {
		switch {
		case m.held && m.writing != r.boot:
			return CodeHeld, false
		case m.data && !m.reinstall:
			return CodeAlreadyProvisioned, false
		}
		if m.data {
			m.enter(Provisioning, now)
		}
		m.data, m.reinstall, writes = false, false, true
	}
	switch {
	case waits && r.phase == PhaseFailed:
		m.failure = modelFailure
	case waits:
	case r.phase == PhaseReady:
		m.enter(Active, now)
	case r.phase == PhaseFailed:
		if !repeated || m.state != Provisioning || m.failure != modelFailure { // else an operator has it retried
			m.failure = modelFailure
			m.enter(Failed, now)
		}
	case m.state == Active, repeated && m.state != Pending:
	default:
		m.enter(Provisioning, now)
	}
	m.data = m.data || r.phase == PhaseInstalled || r.phase == PhaseReady
	m.machine, m.boot, m.phase, m.heard, m.secret, m.writing = r.machine, r.boot, r.phase, now, r.secret, ""
	if writes {
		m.writing = r.boot
	}
	return "", writes
}

// order is what an operator does, or time.
func (m *model) order(event Event, now time.Time) (refused bool) {
	gone := m.state == Decommissioned
	switch event {
	case EventApprove:
		if gone || !m.approved && (m.state != Pending || m.machine == nil) {
			return true
		}
		m.approved = true
		if m.data {
			m.systems[m.machine] = true
		}
	case EventHold:
		if !m.held {
			m.held, m.reinstall = true, false
		}
	case EventRelease:
		m.held = false
	case EventRetry:
		if m.state != Failed {
			return true
		}
		m.enter(Provisioning, now)
	case EventReinstall:
		if gone || !m.data || m.held {
			return true
		}
		m.reinstall = true
	case EventDecommission:
		m.enter(Decommissioned, now)
		m.reinstall = false
	case EventReset:
		m.forget(now)
		clear(m.systems)
	case EventResetSecret:
		m.secret = ""
	case EventTick:
		if m.state == Provisioning && !now.Before(m.deadline) {
			m.failure = "the deadline"
			m.enter(Failed, now)
		}
	}
	return false
}

// TestAgainstModel drives a node and its model through the same events, and compares them
// after each.
func TestAgainstModel(t *testing.T) {
	for _, approval := range []Approval{ApproveNone, ApproveUndeclared, ApproveAll} {
		for _, declared := range []bool{false, true} {
			for _, tokens := range []bool{false, true} {
				t.Run(fmt.Sprintf("approval %s, declared %v, tokens %v", approval, declared, tokens), func(t *testing.T) {
					t.Parallel()
					againstModel(t, approval, declared, tokens)
				})
			}
		}
	}
}

func againstModel(t *testing.T, approval Approval, declared, tokens bool) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{rules: rules, declared: declared, state: Pending, systems: map[*modelMachine]bool{}}
		m.rules.Approval = approval
		machines := modelMachines()
		n, now := New("node01", start), start
		n.Declared = declared
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 10, 31, 35, 40, 1800}).Draw(t, "seconds")) * time.Second)
			if rapid.IntRange(0, 19).Draw(t, "another approval") == 0 {
				m.rules.Approval = rapid.SampledFrom([]Approval{ApproveNone, ApproveUndeclared, ApproveAll}).Draw(t, "approval")
			}
			event := rapid.SampledFrom(slices.Concat(Verbs, modelPhases, modelPhases, modelPhases, []Event{EventTick})).Draw(t, "event")
			if !Phase(event).Valid() {
				next, _, err := m.rules.Apply(n, Input{Event: event, Reason: "because", By: "alice"}, now)
				if refused := m.order(event, now); refused != (err != nil) {
					t.Fatalf("%s: %v, want refused %v", event, err, refused)
				}
				n = next
				m.compare(t, n)
				continue
			}
			r := modelReport{machine: rapid.SampledFrom(machines).Draw(t, "machine"), phase: Phase(event)}
			if m.machine != nil && rapid.IntRange(0, 3).Draw(t, "another") > 0 {
				r.machine = m.machine
			}
			if rapid.IntRange(0, 5).Draw(t, "reboots") == 0 {
				r.machine.boots++
			}
			r.boot = r.machine.name + " " + string(rune('a'+r.machine.boots))
			if tokens {
				r.secret = rapid.SampledFrom([]string{r.machine.name, r.machine.name, "A"}).Draw(t, "secret") // of the disk of A
				r.token = rapid.SampledFrom([]JoinToken{{}, {Name: "general"}, {Name: "alone", Node: "node01"}}).Draw(t, "token")
			}
			hadSystem, word := m.systems[r.machine], m.reinstall
			next, _, err := m.rules.Apply(n, Reported(r.real()), now)
			code, writes := m.report(r, now)
			var refused *RefusedError
			if errors.As(err, &refused); code != "" && (refused == nil || refused.Code != code) || code == "" && err != nil {
				t.Fatalf("%s of %s: %v, want %q", r.phase, r.machine.name, err, code)
			}
			if mayWrite := err == nil && r.phase == PhaseInstalling && !m.rules.Waiting(next); mayWrite != writes || mayWrite && hadSystem && !word {
				t.Fatalf("%s may write its disk: %v, want %v; it has a system: %v, to be installed over: %v", r.machine.name, mayWrite, writes, hadSystem, word)
			}
			n = next
			m.compare(t, n)
		}
	})
}

var modelPhases = []Event{EventBooted, EventInstalling, EventInstalled, EventReady, EventFailed}

func (r modelReport) real() Report {
	report := Report{
		Phase: r.phase, BootID: r.boot, MachineID: r.machine.id, MACs: r.machine.macs, Serial: r.machine.serial,
	}
	if r.phase == PhaseFailed {
		report.Error = modelFailure
	}
	if r.secret != "" {
		report.Credentials = &Credentials{SecretHash: HashSecret(r.secret), Token: r.token}
	}
	return report
}

func (m *model) compare(t *rapid.T, n Node) {
	t.Helper()
	machine, secret := machineName("", nil, ""), ""
	if m.machine != nil {
		machine = machineName(m.machine.id, m.machine.macs, m.machine.serial)
	}
	if m.secret != "" {
		secret = HashSecret(m.secret)
	}
	failure := ""
	if n.LastError != nil {
		failure = n.LastError.Message
		if failure != modelFailure {
			failure = "the deadline"
		}
	}
	for _, is := range []struct {
		what      string
		got, want any
	}{
		{"state", n.State, m.state},
		{"machine", n.machineName(), machine},
		{"phase", n.Phase, m.phase},
		{"provisioned", n.Provisioned, m.data},
		{"held", n.Held != nil, m.held},
		{"approved", n.Approved != nil, m.approved},
		{"waiting", m.rules.Waiting(n), m.machine != nil && m.waits()},
		{"reinstall", n.Reinstall != nil, m.reinstall},
		{"secret", n.SecretHash, secret},
		{"last error", failure, m.failure},
		{"deadline", n.Deadline, m.deadline},
		{"heard", n.LastSeen, m.heard},
	} {
		if is.got != is.want {
			t.Fatalf("%s is %v, want %v", is.what, is.got, is.want)
		}
	}
}
