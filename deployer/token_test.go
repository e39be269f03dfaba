package deployer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// offering is a report that brings a token of the store and a secret.
func offering(token, secret string) node.Report {
	r := report(node.PhaseReady)
	name, _, _ := strings.Cut(token, ".")
	r.Credentials = &node.Credentials{SecretHash: node.HashSecret(secret), Offer: node.Offer{Name: name, Hash: node.HashSecret(token)}}
	return r
}

func (w *world) createToken(t node.Token) string {
	w.t.Helper()
	_, token, err := w.CreateToken(w.t.Context(), t, deployer.Operator{Name: "alice"})
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func (w *world) token(name string) node.Token {
	w.t.Helper()
	t, err := w.store.Token(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// TestTokenStorm: however many machines come at once to two deployers, and come again,
// and whatever an operator does meanwhile, no token lets more machines join than it may.
func TestTokenStorm(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		nodes := rapid.IntRange(1, 25).Draw(rt, "nodes")
		uses := rapid.IntRange(1, 12).Draw(rt, "uses")
		replays := rapid.IntRange(1, 3).Draw(rt, "replays")
		resets := rapid.IntRange(0, 3).Draw(rt, "resets")
		w := newWorld(t)
		other := w.second(func(*deployer.Config) {})
		var ids []string
		for i := range nodes {
			ids = append(ids, fmt.Sprintf("node%02d", i))
		}
		w.declare(declared(ids...)...)
		token := w.createToken(node.Token{Name: "t", Uses: uses})
		registries := []*deployer.Registry{w.Registry, other}
		var all sync.WaitGroup
		for i, id := range ids {
			for replay := range replays {
				all.Go(func() {
					_, err := registries[(i+replay)%2].PhoneHome(t.Context(), id, offering(token, "secret of "+id))
					var no *node.RefusedError
					if err != nil && (!errors.As(err, &no) || no.Code != node.CodeJoinTokenUsedUp) {
						t.Errorf("%s: %v", id, err)
					}
				})
			}
		}
		for i := range resets {
			all.Go(func() {
				if _, err := other.Operate(t.Context(), ids[i%nodes], node.EventReset, deployer.Operator{Name: "bob"}, ""); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		w.restart()
		joins, joined := 0, 0
		for _, id := range ids {
			n := w.node(id)
			if n.SecretHash != "" {
				joined++
			}
			for _, line := range n.History {
				if strings.Contains(line.Reason, "with the token t") {
					joins++
				}
			}
		}
		used := w.token("t").Used
		if used > uses || joins != used || joined > used || resets == 0 && used != min(uses, nodes) {
			t.Errorf("%d nodes, %d resets: %d of %d uses, %d joins, %d joined", nodes, resets, used, uses, joins, joined)
		}
	})
}

// TestTokenUses: what is a use and what is none.
func TestTokenUses(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01", "node02")...)
	token := w.createToken(node.Token{Name: "t", Uses: 2})
	booted := func(machine, secret string) node.Report {
		r := offering(token, secret)
		r.Phase, r.MachineID = node.PhaseBooted, machine
		return r
	}
	uses := func(want int) {
		t.Helper()
		if got := w.token("t").Used; got != want {
			t.Errorf("%d uses, want %d", got, want)
		}
	}
	w.says("node01", booted(machineA, "one"))
	uses(1)
	w.says("node01", booted(machineA, "two")) // the ISO has forgotten its secret
	uses(1)
	w.clock.add(time.Hour)
	w.says("node01", booted(machineB, "three")) // another machine in its place
	uses(2)
	w.refused("node02", booted(machineA, "four"), node.CodeJoinTokenUsedUp)
	w.says("node01", booted(machineB, "five"))
	w.clock.add(time.Hour)
	w.refused("node01", booted(machineA, "six"), node.CodeJoinTokenUsedUp)
	uses(2)
	if n := w.node("node01"); n.MachineID != machineB || n.SecretHash != node.HashSecret("five") {
		t.Errorf("a refusal changed the node: %+v", n.Node)
	}

	// A token of the same name is another token.
	if err := w.RevokeToken(t.Context(), "t", deployer.Operator{}); err != nil {
		t.Fatal(err)
	}
	w.refused("node02", booted(machineA, "seven"), node.CodeJoinTokenWrong)
	if err := w.RevokeToken(t.Context(), "t", deployer.Operator{}); !errors.Is(err, store.ErrNoToken) {
		t.Errorf("revoked twice: %v", err)
	}
	token = w.createToken(node.Token{Name: "t", Uses: 1})
	w.says("node01", booted(machineB, "eight"))
	uses(1)
	if _, _, err := w.CreateToken(t.Context(), node.Token{Name: "t"}, deployer.Operator{}); !errors.Is(err, store.ErrTokenExists) {
		t.Errorf("created twice: %v", err)
	}
}

// TestSecretResetUnderWay: a secret that an operator takes away between the read and the
// write of a report does not let that report in without its token.
func TestSecretResetUnderWay(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01")...)
	token := w.createToken(node.Token{Name: "t"})
	w.says("node01", offering(token, "one"))
	for i, word := range []string{token, token + "x"} {
		w.store.before = func() {
			w.store.before = nil
			if _, err := w.Operate(t.Context(), "node01", node.EventResetSecret, deployer.Operator{Name: "alice"}, ""); err != nil {
				t.Error(err)
			}
		}
		r := offering(word, "one")
		r.BootID = fmt.Sprint("boot", i+7) // no heartbeat
		if i == 0 {
			w.says("node01", r)
		} else {
			w.refused("node01", r, node.CodeJoinTokenWrong)
		}
	}
	if got := w.token("t").Used; got != 2 {
		t.Errorf("%d uses, want 2", got)
	}
}

// TestTwoOperators: of orders that contradict each other one is first, and the history
// has each that was done.
func TestTwoOperators(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01")...)
	w.says("node01", report(node.PhaseReady))
	other := w.second(func(*deployer.Config) {})
	const each = 12 // so that the history keeps all of it
	var all sync.WaitGroup
	for i, r := range []*deployer.Registry{w.Registry, other} {
		all.Go(func() {
			for turn := range each {
				verb := []node.Event{node.EventHold, node.EventRelease}[(turn+i)%2]
				if _, err := r.Operate(t.Context(), "node01", verb, deployer.Operator{Name: fmt.Sprint("operator", i)}, "turn"); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for range each {
				if _, err := r.PhoneHome(t.Context(), "node01", report(node.PhaseReady)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	n := w.node("node01")
	held := false
	for _, line := range n.History {
		switch line.Event {
		case node.EventHold:
			held = true
		case node.EventRelease:
			if !held {
				t.Error("released what was not held")
			}
			held = false
		}
	}
	if held != (n.Held != nil) || n.State != node.Active {
		t.Errorf("%s, held %v, and the history says %v", n.State, n.Held, held)
	}
	page, err := w.Audit(t.Context(), "", 1000)
	orders := 0
	for _, e := range page.Events {
		if e.Result == store.ResultDone {
			orders++
		}
	}
	for _, line := range n.History {
		if line.By != "" {
			orders--
		}
	}
	if err != nil || orders != 0 {
		t.Errorf("the audit log has %d entries more than the history, %v", orders, err)
	}
}

// manyTokens has so many more tokens than its store.
type manyTokens struct {
	store.Store
	more int
}

func (m manyTokens) Tokens(ctx context.Context) ([]node.Token, error) {
	tokens, err := m.Store.Tokens(ctx)
	return append(make([]node.Token, m.more), tokens...), err
}

// TestTokensAreBoundedAtOnce: of those who make a token at once where there is room for
// one, one has it.
func TestTokensAreBoundedAtOnce(t *testing.T) {
	w := newWorld(t)
	w.store.Store = manyTokens{w.store.Store, deployer.MaxTokens - 1}
	var made, refused atomic.Int32
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			_, _, err := w.CreateToken(t.Context(), node.Token{Name: fmt.Sprint("t", i)}, deployer.Operator{Name: "alice"})
			switch {
			case err == nil:
				made.Add(1)
			case errors.Is(err, deployer.ErrTooManyTokens):
				refused.Add(1)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 || refused.Load() != 15 {
		t.Errorf("%d were made and %d refused", made.Load(), refused.Load())
	}
}
