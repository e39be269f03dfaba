package node

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	rules = Rules{ProvisioningTimeout: 30 * time.Minute, OfflineAfter: 30 * time.Second, ListeningSince: start.Add(-time.Hour)}
)

const (
	machineA = "aaaaaaaa-0000-4000-8000-000000000001"
	machineB = "bbbbbbbb-0000-4000-8000-000000000002"
	hash1    = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	hash2    = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

func declaration() Declaration {
	return Declaration{ID: "node01", Role: "worker", IP: netip.MustParseAddr("10.0.0.11"), ConfigHash: hash1}
}

func says(phase Phase) Input {
	r := Report{MachineID: machineA, BootID: "boot1", Phase: phase}
	if phase == PhaseFailed {
		r.Error = "no disk"
	}
	return Reported(r)
}

func mustApply(t *testing.T, n Node, in Input, now time.Time) Node {
	t.Helper()
	next, _, err := rules.Apply(n, in, now)
	if err != nil {
		t.Fatalf("%s in %s: %v", in.Event, n.State, err)
	}
	return next
}

// in is a declared node that came to state by a usual way.
func in(t *testing.T, state State) Node {
	t.Helper()
	way := map[State][]Input{
		Pending:        {},
		Provisioning:   {says(PhaseBooted)},
		Active:         {says(PhaseReady)},
		Failed:         {says(PhaseFailed)},
		Decommissioned: {{Event: EventDecommission}},
	}[state]
	n := mustApply(t, New("node01", start), Input{Event: EventDeclared, Declaration: declaration()}, start)
	for _, step := range way {
		n = mustApply(t, n, step, start)
	}
	if n.State != state {
		t.Fatalf("built a node in %s, want %s", n.State, state)
	}
	return n
}

// TestLifecycle spells out every cell: a row is a state, a column an event.
// "!" is a refusal.
func TestLifecycle(t *testing.T) {
	const matrix = `
	               booted       installing   installed    ready   failed  tick           declared       undeclared     replaced  acknowledge    approve      hold           release        retry        reinstall    decommission   reset   reset-secret
	Pending        Provisioning Provisioning Provisioning Active  Failed  Pending        Pending        Pending        Pending   Pending        !            Pending        Pending        !            !            Decommissioned Pending Pending
	Provisioning   Provisioning Provisioning Provisioning Active  Failed  Failed         Provisioning   Provisioning   Pending   Provisioning   !            Provisioning   Provisioning   !            !            Decommissioned Pending Provisioning
	Active         Active       !            Active       Active  Failed  Active         Active         Active         Pending   Active         !            Active         Active         !            Active       Decommissioned Pending Active
	Failed         Provisioning Provisioning Provisioning Active  Failed  Failed         Failed         Failed         Pending   Failed         !            Failed         Failed         Provisioning !            Decommissioned Pending Failed
	Decommissioned !            !            !            !       !       Decommissioned Decommissioned Decommissioned !         Decommissioned !            Decommissioned Decommissioned !            !            Decommissioned Pending Decommissioned`

	rows := strings.Split(strings.TrimSpace(matrix), "\n")
	events := strings.Fields(rows[0])
	if len(events) != len(Events) || len(rows)-1 != len(States) {
		t.Fatalf("the matrix has %d events and %d states, the lifecycle %d and %d", len(events), len(rows)-1, len(Events), len(States))
	}
	for _, row := range rows[1:] {
		cells := strings.Fields(row)
		state := State(cells[0])
		if len(Lifecycle[state]) != len(Events) {
			t.Errorf("state %s has %d cells, want %d", state, len(Lifecycle[state]), len(Events))
		}
		for i, name := range events {
			t.Run(cells[0]+"/"+name, func(t *testing.T) {
				old := in(t, state)
				event := Event(name)
				input := Input{Event: event, Declaration: declaration(), Reason: "because"}
				if Phase(event).Valid() {
					input = says(Phase(event))
					input.Report.BootID = "boot2"
				}
				// A tick an hour later is past every deadline.
				got, made, err := rules.Apply(old, input, start.Add(time.Hour))
				want := cells[i+1]
				if want == "!" {
					var refused *RefusedError
					if !errors.As(err, &refused) {
						t.Fatalf("got %s, %v; want a refusal", got.State, err)
					}
					if refused.Code == "" || refused.Title == "" || refused.Detail == "" {
						t.Errorf("refusal %+v does not say everything", refused)
					}
					if len(made) > 0 {
						t.Errorf("a refusal made history: %v", made)
					}
					return
				}
				if err != nil || got.State != State(want) {
					t.Fatalf("got %s, %v; want %s", got.State, err, want)
				}
				if got.State != old.State && (len(made) == 0 || made[len(made)-1].To != got.State || made[0].Reason == "") {
					t.Errorf("moved with history %+v", made)
				}
			})
		}
	}
	if _, _, err := rules.Apply(New("n", start), Input{Event: "no such"}, start); err == nil {
		t.Error("an event that does not exist was taken")
	}
}

func TestDeadline(t *testing.T) {
	n := in(t, Provisioning)
	due := start.Add(30 * time.Minute)
	if !n.Deadline.Equal(due) || n.Attempt != 1 {
		t.Fatalf("deadline %s, attempt %d", n.Deadline, n.Attempt)
	}
	tick := Input{Event: EventTick}
	if n = mustApply(t, n, tick, due.Add(-time.Millisecond)); n.State != Provisioning {
		t.Fatalf("%s before the deadline", n.State)
	}
	// Saying the same again buys no time.
	n = mustApply(t, n, says(PhaseBooted), due.Add(-time.Millisecond))
	n = mustApply(t, n, tick, due)
	if n.State != Failed || !n.Deadline.IsZero() || !n.Since.Equal(due) {
		t.Fatalf("at the deadline: %s, deadline %s, since %s", n.State, n.Deadline, n.Since)
	}
	const reason = "not ready within 30m0s (attempt 1, last said booted)"
	if n.LastError == nil || n.LastError.Message != reason {
		t.Fatalf("last error %+v, want %q", n.LastError, reason)
	}

	hung := mustApply(t, n, says(PhaseBooted), due.Add(time.Second))
	if hung.State != Failed {
		t.Errorf("a node that goes on saying booted is %s, want failed", hung.State)
	}
	again := says(PhaseBooted)
	again.Report.BootID = "boot2"
	n = mustApply(t, n, again, due.Add(time.Minute))
	if n.State != Provisioning || n.Attempt != 2 || n.LastError == nil {
		t.Errorf("a new boot: %s, attempt %d, last error %v; want provisioning, 2, and the error kept", n.State, n.Attempt, n.LastError)
	}
	n = mustApply(t, n, says(PhaseReady), due.Add(2*time.Minute))
	if n.State != Active || n.LastError != nil || n.Attempt != 0 {
		t.Errorf("ready: %s, last error %v, attempt %d", n.State, n.LastError, n.Attempt)
	}
	if !strings.Contains(historyOf(n), reason) {
		t.Errorf("the history forgot the failure:\n%s", historyOf(n))
	}
}

func TestAttempts(t *testing.T) {
	tests := map[string]struct {
		phases []Phase
		boots  string // one letter a report
		want   int
	}{
		"straight on":                     {[]Phase{"booted", "installing", "installed", "booted"}, "aaab", 1},
		"installer starts over":           {[]Phase{"booted", "installing", "booted", "installing"}, "aabb", 2},
		"installing again in a new boot":  {[]Phase{"installing", "installing"}, "ab", 2},
		"installing again is a heartbeat": {[]Phase{"installing", "installing"}, "aa", 1},
		"failed and again":                {[]Phase{"booted", "failed", "booted", "failed", "booted"}, "aabbc", 3},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := in(t, Pending)
			for i, phase := range test.phases {
				report := says(phase)
				report.Report.BootID = test.boots[i : i+1]
				n = mustApply(t, n, report, start.Add(time.Duration(i)*time.Minute))
			}
			if n.Attempt != test.want {
				t.Errorf("attempt %d, want %d:\n%s", n.Attempt, test.want, historyOf(n))
			}
		})
	}
}

// TestNeverInstalledOver: a machine that was installed or Active may hold data in any
// state.
func TestNeverInstalledOver(t *testing.T) {
	active := in(t, Active)
	if rules.Hold(active) == "" {
		t.Error("an active node has no hold")
	}
	booted := says(PhaseBooted)
	booted.Report.BootID = "iso"
	if n := mustApply(t, active, booted, start.Add(time.Minute)); n.State != Active || rules.Hold(n) == "" {
		t.Errorf("active and booted: %s, hold %q", n.State, rules.Hold(n))
	}
	failed := mustApply(t, active, says(PhaseFailed), start)
	provisioning := mustApply(t, failed, booted, start)
	installed := mustApply(t, in(t, Provisioning), says(PhaseInstalled), start)
	if rules.Hold(installed) == "" {
		t.Error("an installed node has no hold")
	}
	late := mustApply(t, installed, Input{Event: EventTick}, start.Add(time.Hour))
	for _, n := range []Node{active, failed, provisioning, installed, late} {
		_, _, err := rules.Apply(n, says(PhaseInstalling), start)
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Code != CodeAlreadyProvisioned {
			t.Errorf("installing in %s: %v, want %s", n.State, err, CodeAlreadyProvisioned)
		}
	}
	for _, n := range []Node{active, installed} {
		reset := mustApply(t, n, Input{Event: EventReset, Reason: "new disks"}, start)
		if n := mustApply(t, reset, says(PhaseInstalling), start); n.State != Provisioning {
			t.Errorf("installing after a reset: %s", n.State)
		}
	}
	if fresh := in(t, Provisioning); rules.Hold(fresh) != "" {
		t.Errorf("a fresh node has hold %q", rules.Hold(fresh))
	}
}

func TestDeclare(t *testing.T) {
	declare := func(change func(*Declaration)) Input {
		d := declaration()
		change(&d)
		return Input{Event: EventDeclared, Declaration: d}
	}
	n := in(t, Active)
	tests := map[string]struct {
		input  Input
		reason string // "" for no line
	}{
		"same": {declare(func(*Declaration) {}), ""},
		"hash": {declare(func(d *Declaration) { d.ConfigHash = hash2 }), "the manifest changes the expected configuration"},
		"role": {declare(func(d *Declaration) { d.Role = "control-plane" }), "the manifest changes the role from worker to control-plane"},
		"ip":   {declare(func(d *Declaration) { d.IP = netip.MustParseAddr("10.0.0.99") }), "the manifest changes the ip from 10.0.0.11 to 10.0.0.99"},
		"gone": {Input{Event: EventUndeclared}, "no longer in the manifest"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, made, err := rules.Apply(n, test.input, start)
			if err != nil || got.State != Active {
				t.Fatalf("%s, %v", got.State, err)
			}
			if test.reason == "" {
				if len(made) > 0 {
					t.Errorf("made %v, want nothing", made)
				}
				return
			}
			if len(made) != 1 || made[0].Reason != test.reason {
				t.Errorf("made %v, want %q", made, test.reason)
			}
		})
	}
	gone := mustApply(t, n, Input{Event: EventUndeclared}, start)
	if gone.Declared {
		t.Error("still declared")
	}
	if _, made, _ := rules.Apply(gone, Input{Event: EventUndeclared}, start); len(made) > 0 {
		t.Errorf("undeclared twice makes %v", made)
	}
	if back := mustApply(t, gone, declare(func(*Declaration) {}), start); !back.Declared || !strings.Contains(historyOf(back), "in the manifest again") {
		t.Errorf("declared again: %v\n%s", back.Declared, historyOf(back))
	}
}

func TestRoleAndIP(t *testing.T) {
	n := in(t, Pending)
	report := says(PhaseBooted)
	report.Report.Role = "control-plane"
	var refused *RefusedError
	if _, _, err := rules.Apply(n, report, start); !errors.As(err, &refused) || refused.Code != CodeRoleMismatch {
		t.Errorf("wrong role: %v", err)
	}
	report.Report.Role = "worker"
	report.Report.IP = netip.MustParseAddr("10.0.0.99")
	got := mustApply(t, n, report, start)
	if got.IP != n.IP || got.ReportedIP != report.Report.IP {
		t.Errorf("ip %s, reported %s", got.IP, got.ReportedIP)
	}
	if !strings.Contains(historyOf(got), "reports ip 10.0.0.99 where 10.0.0.11 is declared") {
		t.Errorf("the history does not say so:\n%s", historyOf(got))
	}
	if _, made, _ := rules.Apply(got, report, start); len(made) > 0 {
		t.Errorf("the same again makes %v", made)
	}
}

func historyOf(n Node) string {
	var b strings.Builder
	for _, h := range n.History {
		b.WriteString(string(h.From) + " -> " + string(h.To) + " " + string(h.Event) + ": " + h.Reason + "\n")
	}
	return b.String()
}
