package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// order posts a verb as the operator with the token, and gives the node, or the code of
// the problem.
func (g *guarded) order(operator, id, verb, body string) (api.Node, string) {
	g.t.Helper()
	w, code := g.ask(http.MethodPost, api.PathNodes+"/"+id+"/"+verb, body, bearerOf(operator), "", here)
	var n api.Node
	if code == "" {
		if err := json.Unmarshal(w.Body.Bytes(), &n); err != nil {
			g.t.Fatal(err)
		}
	}
	return n, code
}

func bearerOf(operator string) string {
	if operator == "" {
		return ""
	}
	return "Bearer " + token(operator)
}

// says reports a phase of a machine of node01.
func (g *guarded) says(phase node.Phase, machine, more string) (api.PhoneHomeResponse, string) {
	g.t.Helper()
	w, code := g.ask(http.MethodPost, api.PathPhoneHome,
		`{"node_id":"node01","role":"worker","boot_id":"b1","phase":"`+string(phase)+`","machine_id":"`+machine+`"`+more+`}`,
		"Bearer "+token("all"), token("secret"), here)
	var told api.PhoneHomeResponse
	if code == "" {
		if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil {
			g.t.Fatal(err)
		}
	}
	return told, code
}

const machine1, machine2 = "machine-number-1", "machine-number-2"

// TestVerbs: each verb over HTTP, with who may give it.
func TestVerbs(t *testing.T) {
	g := newGuarded(t)
	if _, code := g.says(node.PhaseReady, machine1, ""); code != "" {
		t.Fatal(code)
	}
	for _, step := range []struct {
		operator, verb, body string
		want                 string // code, or the state
	}{
		{"", "hold", "", api.CodeOperatorTokenRequired},
		{"nobody", "hold", "", api.CodeOperatorTokenWrong},
		{"v", "hold", "", api.CodeOperatorRole},
		{"p", "hold", `{"reason":"new disks"}`, "Active"},
		{"p", "hold", `{"reason":"new disks"}`, "Active"},
		{"p", "reinstall", "", api.CodeOperatorRole},
		{"a", "reinstall", "", node.CodeWrongState}, // held
		{"p", "release", "", "Active"},
		{"p", "release", "{}", "Active"},
		{"p", "retry", "", node.CodeWrongState},
		{"p", "approve", "", node.CodeWrongState},
		{"a", "reinstall", "", "Active"},
		{"p", "decommission", "", api.CodeOperatorRole},
		{"p", "reset", "", api.CodeOperatorRole},
		{"p", "reset-secret", "", api.CodeOperatorRole},
		{"a", "reset-secret", "", "Active"},
		{"a", "decommission", `{"reason":"sold"}`, "Decommissioned"},
		{"a", "decommission", "", "Decommissioned"},
		{"a", "reset", "", "Pending"},
		{"a", "hold", `{"why":"x"}`, api.CodeBadRequest},
		{"a", "hold", `{"machine":"x"}`, api.CodeBadRequest},
		{"a", "hold", `{"reason":"` + strings.Repeat("x", 513) + `"}`, api.CodeBadRequest},
		{"a", "hold", `{"reason":"` + strings.Repeat("x", 70_000) + `"}`, api.CodeBodyTooLarge},
		{"a", "explode", "", api.CodeNotFound},
		{"a", "tick", "", api.CodeNotFound},
	} {
		n, code := g.order(step.operator, "node01", step.verb, step.body)
		if got := code + string(n.State); got != step.want {
			t.Errorf("%s by %q: %q, want %q", step.verb, step.operator, got, step.want)
		}
		if step.verb == "hold" && code == "" && (n.Held == nil || n.Held.By != "p" || n.Held.Reason != "new disks" || !strings.Contains(n.Hold, "held by p")) {
			t.Errorf("held: %+v, %q", n.Held, n.Hold)
		}
	}
	if _, code := g.order("a", "node99", "hold", ""); code != api.CodeNotFound {
		t.Errorf("a node that is not there: %q", code)
	}
	w, _ := g.ask(http.MethodGet, api.PathNodes+"/node01", "", bearerOf("v"), "", here)
	var n api.Node
	if err := json.Unmarshal(w.Body.Bytes(), &n); err != nil {
		t.Fatal(err)
	}
	var done []string
	for _, line := range n.History {
		if line.By != "" {
			done = append(done, string(line.Event)+" "+line.By+" "+line.Remote)
		}
	}
	want := "hold p 192.0.2.7, release p 192.0.2.7, reinstall a 192.0.2.7, reset-secret a 192.0.2.7, decommission a 192.0.2.7, reset a 192.0.2.7"
	if got := strings.Join(done, ", "); got != want {
		t.Errorf("the history has\n%s, want\n%s", got, want)
	}
}

// TestNoOperators: a deployer that cannot tell who gives an order takes none.
func TestNoOperators(t *testing.T) {
	g := newGuarded(t)
	g.cfg.Operators, g.cfg.Metrics = nil, nil
	g.http = New(g.cfg)
	for _, verb := range node.Verbs {
		if _, code := g.order("a", "node01", string(verb), ""); code != api.CodeOperatorsUnknown {
			t.Errorf("%s: %q", verb, code)
		}
	}
}

// TestApproval: a machine waits until it is approved, and is told so.
func TestApproval(t *testing.T) {
	g := newGuarded(t, func(c *deployer.Config) { c.Approval = node.ApproveAll })
	if _, code := g.order("p", "node01", "approve", ""); code != node.CodeWrongState {
		t.Errorf("approved nobody: %q", code)
	}
	// The ISO's installer asks first of all.
	if _, code := g.says(node.PhaseInstalling, machine1, ""); code != node.CodeApprovalRequired {
		t.Errorf("installing: %q", code)
	}
	told, code := g.says(node.PhaseBooted, machine1, "")
	if code != "" || told.State != node.Pending || !strings.Contains(told.Message, "waits for an operator's approval") || told.Hold == "" {
		t.Errorf("%q, %+v", code, told)
	}
	if _, code := g.order("p", "node01", "approve", `{"machine":"`+machine2+`"}`); code != node.CodeWrongMachine {
		t.Errorf("another machine: %q", code)
	}
	for range 2 {
		if n, code := g.order("p", "node01", "approve", `{"machine":"`+machine1+`"}`); code != "" || n.Waiting || n.Machine != machine1 {
			t.Errorf("approve: %q, %+v", code, n)
		}
	}
	if told, code := g.says(node.PhaseBooted, machine1, ""); code != "" || told.State != node.Provisioning {
		t.Errorf("approved: %q, %+v", code, told)
	}
	if _, code := g.says(node.PhaseInstalling, machine1, ""); code != "" {
		t.Errorf("installing: %q", code)
	}
}

// TestAcknowledge: a machine that is taken out hears of it, says so, and that is shown.
func TestAcknowledge(t *testing.T) {
	g := newGuarded(t)
	if _, code := g.says(node.PhaseReady, machine1, ""); code != "" {
		t.Fatal(code)
	}
	if n, code := g.order("a", "node01", "decommission", ""); code != "" || n.Acknowledged != nil {
		t.Errorf("%q, %v", code, n.Acknowledged)
	}
	const ack = `,"acknowledges":"decommissioned"`
	for _, step := range []struct{ machine, more, want string }{
		{machine1, "", node.CodeDecommissioned},
		{machine2, ack, node.CodeDecommissioned},
		{machine1, `,"acknowledges":"all"`, api.CodeBadRequest},
		{machine1, ack, ""},
		{machine1, ack, ""}, // the answer was lost
		{machine1, "", node.CodeDecommissioned},
	} {
		if _, code := g.says(node.PhaseReady, step.machine, step.more); code != step.want {
			t.Errorf("%s%s: %q, want %q", step.machine, step.more, code, step.want)
		}
	}
	if n, code := g.order("a", "node01", "decommission", ""); code != "" || n.Acknowledged == nil {
		t.Errorf("%q, %v", code, n.Acknowledged)
	}
	if n, code := g.order("a", "node01", "reset", ""); code != "" || n.Acknowledged != nil {
		t.Errorf("%q, %v", code, n.Acknowledged)
	}
}
