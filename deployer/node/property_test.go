package node

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func drawInput(t *rapid.T) Input {
	in := Input{Event: rapid.SampledFrom(Events).Draw(t, "event")}
	if in.Event == EventReplaced {
		in.Event = EventTick // only Apply itself makes it
	}
	if slices.Contains(Verbs, in.Event) {
		in.By, in.Remote = "alice", "192.0.2.1"
		in.Reason = rapid.SampledFrom([]string{"", "because", "new disks"}).Draw(t, "reason")
		if in.Event == EventApprove {
			in.Machine = rapid.SampledFrom([]string{"", "", machineA, machineA + " (serial S1)"}).Draw(t, "approved machine")
		}
	}
	in.Declaration = declaration()
	in.Declaration.Labels = rapid.SampledFrom([]map[string]string{nil, {}, {"rack": "a1"}}).Draw(t, "labels")
	in.Declaration.Identity = rapid.SampledFrom([]Identity{{}, {}, {MACs: []string{mac1}}, {Serial: "S1"}}).Draw(t, "identity")
	in.Declaration.ConfigHash = rapid.SampledFrom([]string{hash1, hash2}).Draw(t, "hash")
	if phase := Phase(in.Event); phase.Valid() {
		in.Report = Report{
			Phase:     phase,
			MachineID: rapid.SampledFrom([]string{"", machineA, machineA, machineB}).Draw(t, "machine"),
			BootID:    rapid.SampledFrom([]string{"", "boot1", "boot2"}).Draw(t, "boot"),
			MACs:      rapid.SampledFrom([][]string{nil, {mac1}, {mac1, mac2}, {mac3}}).Draw(t, "macs"),
			Serial:    rapid.SampledFrom([]string{"", "S1", "S2"}).Draw(t, "serial"),
			Role:      rapid.SampledFrom([]string{"", "worker", "worker", "control-plane"}).Draw(t, "role"),
			Facts:     map[string]string{"cpus": rapid.SampledFrom([]string{"2", "4"}).Draw(t, "cpus")},
		}
		if rapid.Bool().Draw(t, "tokens") {
			in.Report.Credentials = &Credentials{
				SecretHash: rapid.SampledFrom([]string{"", HashSecret("a"), HashSecret("b")}).Draw(t, "secret"),
				Token:      rapid.SampledFrom([]JoinToken{{}, {Name: "all"}, {Name: "alone", Node: "node01"}}).Draw(t, "token"),
			}
		}
		in.Report.Acknowledges = rapid.IntRange(0, 3).Draw(t, "acknowledges") == 0
		if phase == PhaseFailed {
			in.Report.Error = rapid.SampledFrom([]string{"", "no disk", "no net"}).Draw(t, "error")
		}
	}
	return in
}

// TestInvariants drives a node through any sequence of events.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, now := New("node01", start), start
		rules := rules
		rules.Approval = rapid.SampledFrom([]Approval{"", ApproveNone, ApproveUndeclared, ApproveAll}).Draw(t, "approval")
		writing := false // its machine was let write its disk, and has said nothing else since
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 10, 31, 600, 1800}).Draw(t, "seconds")) * time.Second)
			in := drawInput(t)
			if rapid.IntRange(0, 19).Draw(t, "another approval") == 0 {
				rules.Approval = rapid.SampledFrom([]Approval{ApproveNone, ApproveUndeclared, ApproveAll}).Draw(t, "approval")
			}
			before := clone(t, n)
			next, made, err := rules.Apply(n, in, now)
			if !reflect.DeepEqual(clone(t, n), before) {
				t.Fatalf("%s changed the node that it was given", in.Event)
			}
			checkStep(t, rules, n, next, in, now, made, err)
			underWay := writing && n.BootID == in.Report.BootID && n.sameMachine(in.Report)
			writes := err == nil && in.Event == EventInstalling && next.State != Decommissioned && !rules.Waiting(next)
			if writes && next.Held != nil && !underWay {
				t.Fatal("installed a held node")
			}
			if err == nil && (Phase(in.Event).Valid() || in.Event == EventReset) {
				writing = writes
			}
			n = next
		}
	})
}

func checkStep(t *rapid.T, rules Rules, old, next Node, in Input, now time.Time, made []Transition, err error) {
	if err != nil {
		var refused *RefusedError
		if !errors.As(err, &refused) {
			t.Fatalf("%s in %s: %v", in.Event, old.State, err)
		}
		if !reflect.DeepEqual(old, next) || len(made) > 0 {
			t.Fatalf("the refusal %s changed the node", refused.Code)
		}
		return
	}
	has := func(e Event) bool {
		return slices.ContainsFunc(made, func(tr Transition) bool { return tr.Event == e })
	}
	if next.State == Active && old.State != Active && in.Event != EventReady {
		t.Fatalf("became active by %s", in.Event)
	}
	if old.LastError != nil && next.LastError == nil && !(in.Event == EventReady && next.State == Active) {
		t.Fatalf("%s lost the last error", in.Event)
	}
	if next.State == Failed && next.LastError == nil {
		t.Fatal("failed without a reason")
	}
	if next.State == Active && next.LastError != nil {
		t.Fatal("active with an error")
	}
	if next.Deadline.IsZero() != (next.State != Provisioning) {
		t.Fatalf("%s has deadline %s", next.State, next.Deadline)
	}
	if next.State == Provisioning && old.State == Provisioning && !has(EventReplaced) && !next.Deadline.Equal(old.Deadline) {
		t.Fatalf("%s moved the deadline", in.Event)
	}
	if in.Event == EventTick && !old.Deadline.IsZero() && !now.Before(old.Deadline) && next.State != Failed {
		t.Fatalf("past its deadline and %s", next.State)
	}
	if old.MachineID != "" && next.MachineID != old.MachineID && !has(EventReplaced) && !has(EventReset) {
		t.Fatalf("%s changed the machine in silence", in.Event)
	}
	if phase := Phase(in.Event); phase.Valid() && !has(EventReplaced) && !old.sameMachine(in.Report) {
		t.Fatalf("%+v speaks as %s without taking its place", in.Report, old.machineName())
	}
	if next.Declared && Phase(in.Event).Valid() && next.Identity.Mismatch(next.ID, in.Report.MACs, in.Report.Serial) != "" {
		t.Fatal("accepted from another machine than the declared one")
	}
	word := old.Reinstall != nil && in.Event == EventInstalling // of an operator
	gaveWay := has(EventReplaced) && rules.Waiting(old)
	if old.Provisioned && !next.Provisioned && !has(EventReset) && !word && !gaveWay {
		t.Fatalf("%s forgot that the machine %s was provisioned", in.Event, old.machineName())
	}
	if c := in.Report.Credentials; c != nil && next.SecretHash != old.SecretHash {
		if c.Token.Name == "" || next.SecretHash != c.SecretHash {
			t.Fatalf("the secret became %q without a token", next.SecretHash)
		}
		if old.SecretHash != "" && old.Provisioned && !rules.Waiting(old) && c.Token.Node == "" {
			t.Fatal("the general token took the secret of a node that was installed")
		}
	}
	if c := in.Report.Credentials; c != nil && (next.SecretHash == "" || next.SecretHash != c.SecretHash) {
		t.Fatal("accepted without the node's secret")
	}
	if old.Provisioned && in.Event == EventInstalling && !word && next.State != Pending && old.State != Decommissioned {
		t.Fatal("installed over a provisioned machine")
	}
	checkOperator(t, rules, old, next, in, has)
	if (in.Event == EventInstalled && next.State != Decommissioned || next.State == Active) && !next.Provisioned {
		t.Fatalf("%s as %s, and it may be installed over", in.Event, next.State)
	}
	if Phase(in.Event).Valid() && old.State == Decommissioned && !in.Report.Acknowledges {
		t.Fatalf("%s of a decommissioned node was accepted", in.Event)
	}
	if old.State == Decommissioned && next.State != Decommissioned && in.Event != EventReset {
		t.Fatalf("%s brought a decommissioned node back", in.Event)
	}
	if len(next.History) > MaxHistory {
		t.Fatalf("%d lines of history", len(next.History))
	}
	at := old.State
	for _, tr := range made {
		if tr.From != at || tr.Reason == "" && tr.By == "" {
			t.Fatalf("history jumps from %s: %+v", at, made)
		}
		at = tr.To
	}
	if at != next.State {
		t.Fatalf("history ends in %s, the node is %s", at, next.State)
	}
	if (next.State != old.State) != (!next.Since.Equal(old.Since)) && now.After(old.Since) && !has(EventReplaced) {
		t.Fatalf("since %s -> %s for %s -> %s", old.Since, next.Since, old.State, next.State)
	}
	if back := clone(t, next); !reflect.DeepEqual(back, next) {
		t.Fatalf("stored and read again:\n%+v\nwas\n%+v", back, next)
	}
}

// checkOperator checks what operators said of a node, which was not refused.
func checkOperator(t *rapid.T, rules Rules, old, next Node, in Input, has func(Event) bool) {
	verb := slices.Contains(Verbs, in.Event)
	if (old.Held == nil) != (next.Held == nil) && in.Event != EventHold && in.Event != EventRelease {
		t.Fatalf("%s changed the hold", in.Event)
	}
	if in.Event == EventHold && (next.Held == nil || next.Reinstall != nil) {
		t.Fatal("not held")
	}
	if old.Approved == nil && next.Approved != nil && (in.Event != EventApprove || old.Phase == "") {
		t.Fatalf("%s approved nobody", in.Event)
	}
	if old.Approved != nil && has(EventReplaced) {
		t.Fatal("another machine took the place of one that was approved")
	}
	waits := rules.Approval == ApproveAll || rules.Approval == ApproveUndeclared && !old.Declared
	if phase := Phase(in.Event); phase.Valid() && waits && old.State == Pending && old.Approved == nil && next.State != Pending {
		t.Fatalf("%s without an approval", next.State)
	}
	if old.Reinstall == nil && next.Reinstall != nil && in.Event != EventReinstall {
		t.Fatalf("%s lets it be installed over", in.Event)
	}
	if next.Reinstall != nil && !next.Provisioned {
		t.Fatal("a word for an installation over nothing")
	}
	if verb && next.SecretHash != old.SecretHash && in.Event != EventReset && in.Event != EventResetSecret {
		t.Fatalf("%s changed the secret", in.Event)
	}
	if !next.Acknowledged.IsZero() && next.State != Decommissioned {
		t.Fatalf("%s and acknowledged", next.State)
	}
	if old.Acknowledged.IsZero() && !next.Acknowledged.IsZero() && in.Event != EventAcknowledge && !in.Report.Acknowledges {
		t.Fatalf("%s acknowledged", in.Event)
	}
	if verb { // once more, it changes nothing or is refused, but for what begins anew
		again, made, err := rules.Apply(next, in, next.Since)
		if anew := in.Event == EventReset; err == nil && !anew && (len(made) > 0 || !reflect.DeepEqual(again, next)) {
			t.Fatalf("%s again made %v", in.Event, made)
		}
	}
}

// clone is n as a store gives it back.
func clone(t *rapid.T, n Node) Node {
	data, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	var back Node
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	return back
}

// TestHeartbeatIsNoEvent: what a node repeats changes nothing but last_seen, in
// any state that it can be brought to.
func TestHeartbeatIsNoEvent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, now := New("node01", start), start
		for range rapid.IntRange(0, 10).Draw(t, "steps") {
			if next, _, err := rules.Apply(n, drawInput(t), now); err == nil {
				n = next
			}
		}
		in := drawInput(t)
		if !Phase(in.Event).Valid() {
			return
		}
		first, _, err := rules.Apply(n, in, now)
		if err != nil {
			return
		}
		second, made, err := rules.Apply(first, in, now.Add(time.Second))
		if in.Report.Phase == PhaseInstalling && err != nil {
			t.Fatalf("refused the second time: %v", err)
		}
		if err != nil || len(made) > 0 {
			t.Fatalf("the heartbeat %s made %v, %v", in.Event, made, err)
		}
		second.LastSeen = first.LastSeen
		if !reflect.DeepEqual(first, second) {
			t.Fatalf("the heartbeat changed\n%+v\nto\n%+v", first, second)
		}
	})
}
