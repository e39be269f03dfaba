package node

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	mac1 = "52:54:00:00:00:01"
	mac2 = "52:54:00:00:00:02"
	mac3 = "52:54:00:00:00:03"
)

func TestCanonicalMACs(t *testing.T) {
	for raw, want := range map[string]string{ // "-" is not ok
		"": "", mac1: mac1, mac2 + "," + mac1 + "," + mac2: mac1 + "," + mac2, "52-54-00-AB-CD-EF": "52:54:00:ab:cd:ef",
		"5254.00ab.cdef": "52:54:00:ab:cd:ef",
		mac1 + ",":       "-", mac1 + ", " + mac2: "-", "x": "-", "00:00:00:00:00:00": "-", "ff:ff:ff:ff:ff:ff": "-", "01:00:5e:00:00:01": "-",
		"80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:31:78:51": "-",
	} {
		macs, ok := CanonicalMACs(raw)
		if ok != (want != "-") || ok && strings.Join(macs, ",") != want {
			t.Errorf("%q: %v, %v", raw, macs, ok)
		}
	}
}

func TestCanonicalSerial(t *testing.T) {
	for raw, want := range map[string]string{
		" CZ3412X0PQ\n": "CZ3412X0PQ", "": "", " ": "", "0": "", "00000000": "", "To be filled by O.E.M.": "", "DEFAULT STRING": "", "n/a": "",
	} {
		if got := CanonicalSerial(raw); got != want {
			t.Errorf("%q is %q", raw, got)
		}
	}
}

// TestToldApart: which two reports are of one machine. The order in which they come
// does not matter.
func TestToldApart(t *testing.T) {
	type machine = Report
	for name, test := range map[string]struct {
		a, b machine
		same bool
	}{
		"all the same":                     {machine{MachineID: machineA, MACs: []string{mac1}, Serial: "S1"}, machine{MachineID: machineA, MACs: []string{mac1}, Serial: "s1"}, true},
		"a card more":                      {machine{MachineID: machineA, MACs: []string{mac1}}, machine{MachineID: machineA, MACs: []string{mac1, mac2}}, true},
		"other cards, same serial":         {machine{MachineID: machineA, MACs: []string{mac1}, Serial: "S1"}, machine{MachineID: machineA, MACs: []string{mac2}, Serial: "S1"}, true},
		"an id that two boards have":       {machine{MachineID: machineA, MACs: []string{mac1}}, machine{MachineID: machineA, MACs: []string{mac2}}, false},
		"the same, and one tells a serial": {machine{MachineID: machineA, MACs: []string{mac1}, Serial: "S1"}, machine{MachineID: machineA, MACs: []string{mac2}}, false},
		"an id that two boards have, S":    {machine{MachineID: machineA, Serial: "S1"}, machine{MachineID: machineA, Serial: "S2"}, false},
		"two ids, one card":                {machine{MachineID: machineA, MACs: []string{mac1}}, machine{MachineID: machineB, MACs: []string{mac1}}, false},
		"no id, same card":                 {machine{MACs: []string{mac1, mac2}}, machine{MACs: []string{mac2, mac3}}, true},
		"no id, other cards":               {machine{MACs: []string{mac1}}, machine{MACs: []string{mac2}}, false},
		"no id, other cards, chassis":      {machine{MACs: []string{mac1}, Serial: "S1"}, machine{MACs: []string{mac2}, Serial: "S1"}, false},
		"no id, same card, other serial":   {machine{MACs: []string{mac1}, Serial: "S1"}, machine{MACs: []string{mac1}, Serial: "S2"}, false},
		"an id on one side, same card":     {machine{MachineID: machineA, MACs: []string{mac1}}, machine{MACs: []string{mac1}}, true},
		"an id on one side, other card":    {machine{MachineID: machineA, MACs: []string{mac1}}, machine{MACs: []string{mac2}}, false},
		"an id on one side":                {machine{MachineID: machineA}, machine{MACs: []string{mac1}}, false},
		"serials alone":                    {machine{Serial: "S1"}, machine{Serial: "S1"}, true},
		"serials alone, two":               {machine{Serial: "S1"}, machine{Serial: "S2"}, false},
		"an id alone":                      {machine{MachineID: machineA}, machine{MachineID: machineA, MACs: []string{mac1}, Serial: "S1"}, true},
	} {
		for _, pair := range [][2]machine{{test.a, test.b}, {test.b, test.a}} {
			first, second := pair[0], pair[1]
			first.Phase, second.Phase = PhaseReady, PhaseReady
			n, _, err := rules.Apply(New("node01", start), Reported(first), start)
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := rules.Apply(n, Reported(second), start.Add(time.Second))
			var refused *RefusedError
			if errors.As(err, &refused) && refused.Code != CodeMachineConflict || (err == nil) != test.same {
				t.Errorf("%s: %+v and then %+v: %v", name, first, second, err)
			}
			if err != nil && (got.MachineID != n.MachineID || !slices.Equal(got.MACs, n.MACs)) {
				t.Errorf("%s: the refused machine left a mark: %+v", name, got)
			}
		}
	}
}

// TestDuplicateID: of two machines with one id the first stays, and the second hears why.
func TestDuplicateID(t *testing.T) {
	first := Report{Phase: PhaseReady, MachineID: machineA, MACs: []string{mac1}}
	second := Report{Phase: PhaseInstalling, MachineID: machineA, MACs: []string{mac2}}
	n := mustApply(t, New("node01", start), Reported(first), start)
	var refused *RefusedError
	_, _, err := rules.Apply(n, Reported(second), start.Add(time.Second))
	if !errors.As(err, &refused) || !strings.Contains(refused.Detail, "many mainboards alike") || !strings.Contains(refused.Detail, mac1) || !strings.Contains(refused.Detail, mac2) {
		t.Errorf("%v", err)
	}
}

func TestDeclaredIdentity(t *testing.T) {
	declared := declaration()
	declared.Identity = Identity{MACs: []string{mac1, mac2}, Serial: "S1"}
	n := mustApply(t, New("node01", start), Input{Event: EventDeclared, Declaration: declared}, start)
	for name, test := range map[string]struct {
		report Report
		want   string // in the reason; "" is accepted
	}{
		"it":             {Report{MACs: []string{mac2}, Serial: "s1"}, ""},
		"another card":   {Report{MACs: []string{mac3}, Serial: "S1"}, "identity.macs declares " + mac1 + ", " + mac2 + ", and this machine has " + mac3},
		"no card":        {Report{Serial: "S1"}, "identity.macs declares"},
		"another serial": {Report{MACs: []string{mac1}, Serial: "S2"}, `identity.serial declares "S1", and this machine has S2`},
		"no serial":      {Report{MACs: []string{mac1}}, "and this machine has none that it tells"},
	} {
		test.report.Phase, test.report.MachineID = PhaseReady, machineA
		_, _, err := rules.Apply(n, Reported(test.report), start)
		var refused *RefusedError
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (!errors.As(err, &refused) || refused.Code != CodeIdentityMismatch || !strings.Contains(refused.Detail, test.want)):
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	// What is no longer declared is no longer asked for.
	open, made, err := rules.Apply(n, Input{Event: EventDeclared, Declaration: declaration()}, start)
	if err != nil || len(made) != 1 || !strings.Contains(made[0].Reason, "identity") {
		t.Errorf("%+v, %v", made, err)
	}
	mustApply(t, open, says(PhaseReady), start)

	declared.Identity.MACs[0] = "52:54:00:00:00"
	if err := declared.Check(); err == nil || !strings.Contains(err.Error(), "identity.macs") {
		t.Errorf("%v", err)
	}
}
