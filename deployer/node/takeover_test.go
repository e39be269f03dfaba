package node

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestTakeover: which machine may take the place of one that is offline. What was
// installed, or approved by an operator, gives way to an operator's word alone.
func TestTakeover(t *testing.T) {
	const long = 35 * time.Second // offline
	approve, reset := Input{Event: EventApprove, By: "alice"}, Input{Event: EventReset, By: "alice"}
	of := func(machine string, phase Phase) Input {
		return Reported(Report{MachineID: machine, BootID: "boot of " + machine, Phase: phase, Error: map[Phase]string{PhaseFailed: "no disk"}[phase]})
	}
	proves := func(in Input, secret, token string) Input {
		in.Report.Credentials = &Credentials{SecretHash: HashSecret(secret)}
		if token != "" {
			in.Report.Credentials.Token = JoinToken{Name: token}
		}
		return in
	}
	held := Input{Event: EventHold, Reason: "new disks", By: "alice"}
	declare, undeclare := Input{Event: EventDeclared, Declaration: declaration()}, Input{Event: EventUndeclared}
	none := ""
	for name, test := range map[string]struct {
		approval Approval
		steps    []Input // each longer after the one before than a node may be silent
		soon     bool    // the last one at once
		refused  string  // the last one; the others are not
		names    string  // what the refusal has to say
		machine  string  // afterwards
		data     bool    // and whether it may not be installed over
	}{
		"nothing was installed":                {"", []Input{of(machineA, PhaseBooted), of(machineB, PhaseBooted)}, false, "", "", machineB, false},
		"it failed before it was installed":    {"", []Input{of(machineA, PhaseFailed), of(machineB, PhaseBooted)}, false, "", "", machineB, false},
		"nothing was installed, online":        {"", []Input{of(machineA, PhaseBooted), of(machineB, PhaseBooted)}, true, CodeMachineConflict, "once it is offline", machineA, false},
		"it was Active":                        {"", []Input{of(machineA, PhaseReady), of(machineB, PhaseBooted)}, false, CodeMachineConflict, "plasmactl node reset node01", machineA, true},
		"it was installed":                     {"", []Input{of(machineA, PhaseInstalled), of(machineB, PhaseInstalling)}, false, CodeMachineConflict, "plasmactl node reset node01", machineA, true},
		"it was Active, and failed":            {"", []Input{of(machineA, PhaseReady), of(machineA, PhaseFailed), of(machineB, PhaseReady)}, false, CodeMachineConflict, "plasmactl node reset node01", machineA, true},
		"it was Active, and is reset":          {"", []Input{of(machineA, PhaseReady), reset, of(machineB, PhaseInstalling)}, false, "", "", machineB, false},
		"back after another was installed":     {"", []Input{of(machineA, PhaseReady), reset, of(machineB, PhaseInstalled), of(machineA, PhaseInstalling)}, false, CodeMachineConflict, "plasmactl node reset node01", machineB, true},
		"it was approved":                      {ApproveAll, []Input{of(machineA, PhaseBooted), approve, of(machineB, PhaseBooted)}, false, CodeMachineConflict, "plasmactl node reset node01", machineA, false},
		"it was approved, and is Active":       {ApproveAll, []Input{of(machineA, PhaseBooted), approve, of(machineA, PhaseReady), of(machineB, PhaseBooted)}, false, CodeMachineConflict, "plasmactl node reset node01", machineA, true},
		"it waited":                            {ApproveAll, []Input{of(machineA, PhaseBooted), of(machineB, PhaseBooted)}, false, "", "", machineB, false},
		"it waited, and said ready":            {ApproveAll, []Input{of(machineA, PhaseReady), of(machineB, PhaseBooted)}, false, "", "", machineB, false},
		"that, online":                         {ApproveAll, []Input{of(machineA, PhaseReady), of(machineB, PhaseBooted)}, true, CodeMachineConflict, "once it is offline", machineA, true},
		"that, approved":                       {ApproveAll, []Input{of(machineA, PhaseReady), approve, of(machineB, PhaseBooted)}, false, CodeMachineConflict, "plasmactl node reset node01", machineA, true},
		"that, with the general token":         {ApproveAll, []Input{proves(of(machineA, PhaseReady), "own", "row2"), proves(of(machineB, PhaseBooted), "new", "row2")}, false, "", "", machineB, false},
		"that, the same ISO anew":              {ApproveAll, []Input{proves(of(machineA, PhaseReady), "own", "row2"), proves(of(machineA, PhaseBooted), "new", "row2")}, true, "", "", machineA, true},
		"that, the disk in another machine":    {ApproveAll, []Input{proves(of(machineA, PhaseReady), "own", "row2"), proves(of(machineB, PhaseReady), "own", "")}, false, "", "", machineB, true},
		"that, back after another":             {ApproveAll, []Input{of(machineA, PhaseReady), of(machineB, PhaseBooted), approve, of(machineB, PhaseInstalled), of(machineA, PhaseInstalling)}, false, CodeMachineConflict, "plasmactl node reset node01", machineB, true},
		"it failed, and approval came later":   {ApproveUndeclared, []Input{declare, of(machineA, PhaseFailed), undeclare, of(machineB, PhaseBooted)}, false, "", "", machineB, false},
		"it was Active, and approval later":    {ApproveUndeclared, []Input{declare, of(machineA, PhaseReady), undeclare, of(machineB, PhaseBooted)}, false, CodeMachineConflict, "plasmactl node reset node01", machineA, true},
		"that, its disk in another machine":    {ApproveUndeclared, []Input{declare, proves(of(machineA, PhaseReady), "own", "row2"), undeclare, proves(of(machineB, PhaseReady), "own", "")}, false, CodeMachineConflict, "plasmactl node reset node01", machineA, true},
		"its marks are learnt":                 {"", []Input{proves(of(none, PhaseReady), "own", "row2"), proves(of(machineA, PhaseReady), "own", "")}, true, "", "", machineA, true},
		"its marks are learnt, approved":       {ApproveAll, []Input{proves(of(none, PhaseReady), "own", "row2"), approve, proves(of(machineA, PhaseReady), "own", "")}, true, "", "", machineA, true},
		"its marks are learnt, ISO":            {"", []Input{proves(of(none, PhaseReady), "own", "row2"), proves(of(machineA, PhaseInstalling), "own", "")}, true, CodeAlreadyProvisioned, "", none, true},
		"marks with another secret":            {"", []Input{proves(of(none, PhaseBooted), "own", "row2"), proves(of(machineA, PhaseBooted), "new", "row2")}, true, CodeMachineConflict, "without a usable id", none, false},
		"held":                                 {"", []Input{of(machineA, PhaseBooted), held, of(machineB, PhaseInstalling)}, false, CodeHeld, "new disks", machineA, false},
		"a third after one without marks":      {"", []Input{of(machineA, PhaseBooted), of(none, PhaseBooted), of(machineB, PhaseBooted)}, true, CodeMachineConflict, "without a usable id", none, false},
		"after one without marks, offline":     {"", []Input{of(none, PhaseBooted), of(machineB, PhaseBooted)}, false, "", "", machineB, false},
		"after one without marks, Active":      {"", []Input{of(none, PhaseReady), of(machineB, PhaseInstalling)}, false, CodeMachineConflict, "plasmactl node reset node01", none, true},
		"without marks, in the place of data":  {"", []Input{of(machineA, PhaseReady), of(none, PhaseInstalling)}, false, CodeMachineConflict, "plasmactl node reset node01", machineA, true},
		"the disk in another machine":          {"", []Input{proves(of(machineA, PhaseReady), "own", "row2"), proves(of(machineB, PhaseReady), "own", "")}, false, "", "", machineB, true},
		"the disk in another machine, online":  {"", []Input{proves(of(machineA, PhaseReady), "own", "row2"), proves(of(machineB, PhaseReady), "own", "")}, true, CodeMachineConflict, "switch that one off", machineA, true},
		"the disk in another machine, ISO":     {"", []Input{proves(of(machineA, PhaseReady), "own", "row2"), proves(of(machineB, PhaseInstalling), "own", "")}, false, CodeAlreadyProvisioned, "", machineA, true},
		"the disk of an approved machine":      {ApproveAll, []Input{proves(of(machineA, PhaseBooted), "own", "row2"), approve, proves(of(machineB, PhaseReady), "own", "")}, false, CodeMachineConflict, "plasmactl node reset node01", machineA, false},
		"another with the general token":       {"", []Input{proves(of(machineA, PhaseReady), "own", "row2"), proves(of(machineB, PhaseBooted), "new", "row2")}, false, CodeNodeSecretWrong, "plasmactl node reset node01", machineA, true},
		"the same with the general token, ISO": {"", []Input{proves(of(machineA, PhaseReady), "own", "row2"), proves(of(machineA, PhaseBooted), "new", "row2")}, false, CodeNodeSecretWrong, "plasmactl node reset-secret node01", machineA, true},
	} {
		t.Run(name, func(t *testing.T) {
			rules := rules
			rules.Approval = test.approval
			n, now := New("node01", start), start
			for i, step := range test.steps {
				last := i == len(test.steps)-1
				if !last || !test.soon {
					now = now.Add(long)
				}
				next, _, err := rules.Apply(n, step, now)
				var refused *RefusedError
				switch {
				case err == nil && last && test.refused != "":
					t.Errorf("accepted, want %s", test.refused)
				case err != nil && (!last || !errors.As(err, &refused) || refused.Code != test.refused):
					t.Fatalf("step %d: %v, want %q", i, err, test.refused)
				case err != nil && !strings.Contains(refused.Detail, test.names):
					t.Errorf("%s; it does not name %q", refused.Detail, test.names)
				}
				n = next
			}
			if n.MachineID != test.machine || n.Provisioned != test.data {
				t.Errorf("machine %q, provisioned %v; want %q, %v", n.MachineID, n.Provisioned, test.machine, test.data)
			}
		})
	}
}

// TestHoldAfterWaiting: a machine that asked to be installed while it waited for an
// approval is not one whose installation is under way.
func TestHoldAfterWaiting(t *testing.T) {
	rules := rules
	rules.Approval = ApproveAll
	hold, approve, release := Input{Event: EventHold, By: "alice"}, Input{Event: EventApprove, By: "alice"}, Input{Event: EventRelease, By: "alice"}
	for name, test := range map[string]struct {
		steps []Input
		held  bool // the last one is refused
	}{
		"held, then approved":     {[]Input{says(PhaseInstalling), hold, approve, says(PhaseInstalling)}, true},
		"approved, then held":     {[]Input{says(PhaseInstalling), approve, hold, says(PhaseInstalling)}, true},
		"and released":            {[]Input{says(PhaseInstalling), hold, approve, release, says(PhaseInstalling)}, false},
		"held under way":          {[]Input{says(PhaseInstalling), approve, says(PhaseInstalling), hold, says(PhaseInstalling)}, false},
		"held past its deadline":  {[]Input{says(PhaseInstalling), approve, says(PhaseInstalling), {Event: EventTick}, hold, says(PhaseInstalling)}, false},
		"held after it was reset": {[]Input{says(PhaseInstalling), approve, says(PhaseInstalling), hold, {Event: EventReset}, says(PhaseInstalling), approve, says(PhaseInstalling)}, true},
	} {
		n, now := New("node01", start), start
		for i, step := range test.steps {
			now = now.Add(time.Hour)
			next, _, err := rules.Apply(n, step, now)
			var refused *RefusedError
			if want := test.held && i == len(test.steps)-1; errors.As(err, &refused) != want || want && refused.Code != CodeHeld {
				t.Errorf("%s: step %d, %s: %v", name, i, step.Event, err)
			}
			n = next
		}
	}
}
