package node

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestAuthenticate(t *testing.T) {
	var (
		own, other = HashSecret("own"), HashSecret("other")
		general    = JoinToken{Name: "all"}
		alone      = JoinToken{Name: "alone", Node: "node01"}
		elsewhere  = JoinToken{Name: "elsewhere", Node: "node02"}
		workers    = JoinToken{Name: "workers", Role: "worker"}
		masters    = JoinToken{Name: "masters", Role: "control-plane"}
		expired    = JoinTokenExpired("old", start)

		fresh  = Node{ID: "node01", State: Pending, Declared: true, Role: "worker"}
		joined = Node{ID: "node01", State: Provisioning, Declared: true, Role: "worker", SecretHash: own}
		active = Node{ID: "node01", State: Active, Declared: true, Role: "worker", SecretHash: own, Provisioned: true}
		failed = Node{ID: "node01", State: Failed, Declared: true, Role: "worker", SecretHash: own, Provisioned: true}
		ofOld  = Node{ID: "node01", State: Active, Declared: true, Role: "worker", Provisioned: true} // joined before tokens were asked for
	)
	for name, test := range map[string]struct {
		node   Node
		secret string
		token  JoinToken
		no     *RefusedError
		want   string // "" is accepted
	}{
		"a stranger":                       {fresh, "", JoinToken{}, nil, CodeJoinTokenRequired},
		"a secret alone":                   {fresh, own, JoinToken{}, nil, CodeJoinTokenRequired},
		"a token alone":                    {fresh, "", general, nil, CodeNodeSecretRequired},
		"joins":                            {fresh, own, general, nil, ""},
		"joins with its own token":         {fresh, own, alone, nil, ""},
		"joins with its role's token":      {fresh, own, workers, nil, ""},
		"another node's token":             {fresh, own, elsewhere, nil, CodeJoinTokenScope},
		"another role's token":             {fresh, own, masters, nil, CodeJoinTokenScope},
		"an expired token":                 {fresh, own, JoinToken{}, expired, CodeJoinTokenExpired},
		"a wrong token":                    {fresh, own, JoinToken{}, JoinTokenWrong(), CodeJoinTokenWrong},
		"from before tokens":               {ofOld, own, general, nil, ""},
		"from before tokens, without":      {ofOld, own, JoinToken{}, nil, CodeJoinTokenRequired},
		"joined, by its secret":            {joined, own, JoinToken{}, nil, ""},
		"joined, the token expired since":  {joined, own, JoinToken{}, expired, ""},
		"joined, the token is gone":        {joined, own, JoinToken{}, JoinTokenWrong(), ""},
		"joined, no secret, no token":      {joined, "", JoinToken{}, nil, CodeNodeSecretRequired},
		"joined, wrong secret, no token":   {joined, other, JoinToken{}, nil, CodeNodeSecretWrong},
		"joined, wrong secret, expired":    {joined, other, JoinToken{}, expired, CodeJoinTokenExpired},
		"joins anew before it was active":  {joined, other, general, nil, ""},
		"active, by its secret":            {active, own, JoinToken{}, nil, ""},
		"active, by its secret and token":  {active, own, general, nil, ""},
		"active, general token":            {active, other, general, nil, CodeNodeSecretWrong},
		"active, its role's token":         {active, other, workers, nil, CodeNodeSecretWrong},
		"active, token without a secret":   {active, "", general, nil, CodeNodeSecretRequired},
		"active, another node's token":     {active, other, elsewhere, nil, CodeNodeSecretWrong},
		"active, a token for it alone":     {active, other, alone, nil, ""},
		"active, that token, no secret":    {active, "", alone, nil, CodeNodeSecretRequired},
		"failed after active, general":     {failed, other, general, nil, CodeNodeSecretWrong},
		"failed after active, a token":     {failed, other, alone, nil, ""},
		"decommissioned, by a stranger":    {Node{ID: "node01", State: Decommissioned, SecretHash: own}, "", JoinToken{}, nil, CodeNodeSecretRequired},
		"undeclared, the role that it has": {Node{ID: "node01", State: Pending}, own, workers, nil, ""},
		"undeclared, another role":         {Node{ID: "node01", State: Pending}, own, masters, nil, CodeJoinTokenScope},
	} {
		r := Report{Phase: PhaseReady, Role: "worker", Credentials: &Credentials{SecretHash: test.secret, Token: test.token, Refusal: test.no}}
		err := rules.Authenticate(test.node, r)
		var refused *RefusedError
		errors.As(err, &refused)
		switch {
		case test.want == "" && err != nil, test.want != "" && (refused == nil || refused.Code != test.want):
			t.Errorf("%s: %v, want %q", name, err, test.want)
		case refused != nil && (refused.Title == "" || refused.Detail == ""):
			t.Errorf("%s: %+v says not all", name, refused)
		case test.want == CodeJoinTokenScope && !strings.Contains(refused.Detail, " is for "+map[bool]string{true: "nodes with the role control-plane", false: "node node02"}[test.token.Role != ""]+", and not for node node01. "):
			t.Errorf("%s: %s; it does not name for whom the token is", name, refused.Detail)
		case refused != nil && test.node.Provisioned && test.node.SecretHash != "" && !strings.Contains(refused.Detail, "reset-secret node01"):
			t.Errorf("%s: %s; it does not name the way out", name, refused.Detail)
		}
		if err := rules.Authenticate(test.node, Report{Phase: PhaseReady}); err != nil {
			t.Errorf("%s: a deployer without tokens: %v", name, err)
		}
	}
}

// TestLostAnswer: a node that never heard the answer to its joining says the same
// again, and is known by it; that is no event.
func TestLostAnswer(t *testing.T) {
	r := Report{Phase: PhaseBooted, MachineID: machineA, Role: "worker", Credentials: &Credentials{SecretHash: HashSecret("own"), Token: JoinToken{Name: "row2"}}}
	n, made, err := rules.Apply(New("node01", start), Reported(r), start)
	if err != nil || len(made) == 0 || !strings.HasSuffix(made[0].Reason, "joins with the token row2") || n.SecretHash != HashSecret("own") {
		t.Fatalf("%+v, %v", made, err)
	}
	// Meanwhile the token has expired.
	r.Credentials = &Credentials{SecretHash: HashSecret("own"), Refusal: JoinTokenExpired("row2", start)}
	if _, made, err := rules.Apply(n, Reported(r), start.Add(time.Minute)); err != nil || len(made) > 0 {
		t.Fatalf("%+v, %v", made, err)
	}

	// Booted again, the ISO has made another secret; the one before is void.
	r.BootID = "second"
	r.Credentials = &Credentials{SecretHash: HashSecret("second"), Token: JoinToken{Name: "row2"}}
	n, made, err = rules.Apply(n, Reported(r), start.Add(time.Minute))
	if err != nil || !strings.Contains(made[0].Reason, "its secret before is void") {
		t.Fatalf("%+v, %v", made, err)
	}
	r.Credentials = &Credentials{SecretHash: HashSecret("own")}
	if _, _, err := rules.Apply(n, Reported(r), start.Add(time.Minute)); err == nil {
		t.Error("the void secret is taken")
	}
	reset, _, err := rules.Apply(n, Input{Event: EventReset}, start)
	if err != nil || reset.SecretHash != "" {
		t.Errorf("after a reset: %q, %v", reset.SecretHash, err)
	}
}

// TestSecretMovesWithTheDisk: the secret of a node on another machine counts once
// the first is offline, and stays the node's; a copy of a disk that runs does not.
func TestSecretMovesWithTheDisk(t *testing.T) {
	r := Report{Phase: PhaseReady, MachineID: machineA, Role: "worker", Credentials: &Credentials{SecretHash: HashSecret("own"), Token: JoinToken{Name: "row2"}}}
	n, _, err := rules.Apply(New("node01", start), Reported(r), start)
	if err != nil {
		t.Fatal(err)
	}
	r.MachineID, r.Credentials = machineB, &Credentials{SecretHash: HashSecret("own")}
	var refused *RefusedError
	if _, _, err := rules.Apply(n, Reported(r), start.Add(time.Second)); !errors.As(err, &refused) || refused.Code != CodeMachineConflict {
		t.Errorf("a copy: %v", err)
	}
	n, _, err = rules.Apply(n, Reported(r), start.Add(time.Hour))
	if err != nil || n.MachineID != machineB || n.SecretHash != HashSecret("own") {
		t.Errorf("%+v, %v", n, err)
	}
}
