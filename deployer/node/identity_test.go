package node

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestCanonicalMachineID(t *testing.T) {
	const uuid = "4c4c4544-0044-4a10-8052-b4c04f503532"
	tests := map[string]string{ // raw -> canonical, "" for not usable
		uuid:                                   uuid,
		strings.ToUpper(uuid) + "\n":           uuid,
		strings.ReplaceAll(uuid, "-", ""):      uuid,
		"serial.abc:12345":                     "serial.abc:12345",
		"":                                     "",
		"   ":                                  "",
		"short":                                "",
		"00000000-0000-0000-0000-000000000000": "",
		"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF": "",
		"fefefefe-fefe-fefe-fefe-fefefefefefe": "",
		"03000200-0400-0500-0006-000700080009": "",
		"03000200040005000006000700080009":     "",
		"Not Settable":                         "",
		"Default string":                       "",
		"To Be Filled By O.E.M.":               "",
		"--------":                             "",
		"\x1b[31mred-machine":                  "",
		strings.Repeat("x1", 200):              "",
	}
	for raw, want := range tests {
		got, ok := CanonicalMachineID(raw)
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("%q is %q, want %q", raw, got, want)
		}
	}
}

func TestValidID(t *testing.T) {
	for id, want := range map[string]bool{
		"node01": true, "a": true, "a-b": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a.b": false, "a_b": false, "nöde": false,
		strings.Repeat("a", 64): false, "a\n": false, "../x": false,
	} {
		if ValidID(id) != want {
			t.Errorf("ValidID(%q) is %v", id, !want)
		}
	}
}

// TestMachineBinding: who may speak as a node on which nothing was installed yet, by what
// is bound, who claims it in another boot, and how long the bound one was silent.
func TestMachineBinding(t *testing.T) {
	const online, offline = 10 * time.Second, 31 * time.Second
	tests := map[string]struct {
		bound, claims string
		silent        time.Duration
		listening     time.Duration // how long this deployer has
		refused       bool
		want          string // the machine bound afterwards
	}{
		"same":                               {machineA, machineA, online, time.Hour, false, machineA},
		"same after a long time":             {machineA, machineA, time.Hour, time.Hour, false, machineA},
		"another while online":               {machineA, machineB, online, time.Hour, true, machineA},
		"another once offline":               {machineA, machineB, offline, time.Hour, false, machineB},
		"another after a deployer's restart": {machineA, machineB, time.Hour, online, true, machineA},
		"no id does not bind":                {"", "", online, time.Hour, false, ""},
		"no id against a bound machine":      {machineA, "", online, time.Hour, true, machineA},
		"no id once it is offline":           {machineA, "", offline, time.Hour, false, ""},
		"an id after none":                   {"", machineB, online, time.Hour, true, ""},
		"an id after none, offline":          {"", machineB, offline, time.Hour, false, machineB},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			first := says(PhaseBooted)
			first.Report.MachineID = test.bound
			n := mustApply(t, in(t, Pending), first, start)
			now := start.Add(test.silent)
			r := rules
			r.ListeningSince = now.Add(-test.listening)
			claim := says(PhaseBooted)
			claim.Report.MachineID = test.claims
			claim.Report.BootID = "boot2"
			got, made, err := r.Apply(n, claim, now)
			var refused *RefusedError
			if errors.As(err, &refused) != test.refused {
				t.Fatalf("error %v, want refused %v", err, test.refused)
			}
			if refused != nil && (refused.Code != CodeMachineConflict || !strings.Contains(refused.Detail, "is machine "+machineName(test.bound, nil, ""))) {
				t.Errorf("refused with %+v", refused)
			}
			if got.MachineID != test.want {
				t.Errorf("bound to %q, want %q", got.MachineID, test.want)
			}
			replaced := test.bound != test.claims && !test.refused
			if replaced != (len(made) == 2 && made[0].Event == EventReplaced) {
				t.Errorf("replaced %v, made %+v", replaced, made)
			}
			if replaced && (got.State != Provisioning || got.Provisioned) {
				t.Errorf("the new machine is %s, provisioned %v; it must be installed first", got.State, got.Provisioned)
			}
		})
	}
}

func TestReachability(t *testing.T) {
	seen := Node{LastSeen: start}
	tests := map[string]struct {
		node      Node
		after     time.Duration // since last seen
		listening time.Duration
		want      Reachability
	}{
		"never seen":                 {Node{}, 0, time.Hour, Unknown},
		"just seen":                  {seen, 0, time.Hour, Online},
		"at the limit":               {seen, 30 * time.Second, time.Hour, Online},
		"silent":                     {seen, 31 * time.Second, time.Hour, Offline},
		"silent, deployer is young":  {seen, 31 * time.Second, 30 * time.Second, Unknown},
		"seen before, deployer new":  {seen, 5 * time.Second, 0, Online},
		"silent, deployer old again": {seen, time.Hour, 31 * time.Second, Offline},
	}
	for name, test := range tests {
		now := start.Add(test.after)
		r := Rules{OfflineAfter: 30 * time.Second, ListeningSince: now.Add(-test.listening)}
		if got := r.Reachability(test.node, now); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, test := range []struct {
		expected, reported string
		want               Config
	}{
		{"", "", ConfigUnknown}, {hash1, "", ConfigUnknown}, {"", hash1, ConfigUnknown},
		{hash1, hash1, InSync}, {hash1, hash2, Drifted},
	} {
		if got := (Node{ConfigHash: test.expected, ReportedHash: test.reported}).Config(); got != test.want {
			t.Errorf("%q against %q is %s, want %s", test.expected, test.reported, got, test.want)
		}
	}
}

// TestMarksInOneBoot: a client that learns to tell its machine's marks is known by its boot.
func TestMarksInOneBoot(t *testing.T) {
	before, after := says(PhaseReady), says(PhaseReady)
	before.Report.MachineID = ""
	n := mustApply(t, mustApply(t, in(t, Pending), before, start), after, start.Add(time.Second))
	if n.MachineID != machineA || !strings.Contains(historyOf(n), "bound to machine "+machineA) {
		t.Errorf("bound to %q:\n%s", n.MachineID, historyOf(n))
	}
}
