package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/fleet"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/vmtests/deployerproc"
)

// storm lets all nodes of a fleet boot at once, and once more, and kills the deployer
// with SIGKILL again and again meanwhile, until it was killed so often. What was
// answered to anybody must be there each time that the deployer runs again.
func (s soak) storm(ctx context.Context, program string, nodes, kills int) error {
	s.say("storm: seed %d, %d nodes, %d kills", s.seed, nodes, kills)
	random := mathrand.New(mathrand.NewPCG(s.seed, 1))
	for cycle := 0; kills > 0; cycle++ {
		now := min(kills, 5)
		kills -= now
		if err := s.stormOnce(ctx, program, random, cycle, nodes, now); err != nil {
			return fmt.Errorf("seed %d, cycle %d: %w", s.seed, cycle, err)
		}
	}
	return nil
}

func (s soak) stormOnce(ctx context.Context, program string, random *mathrand.Rand, cycle, nodes, kills int) error {
	dir, err := os.MkdirTemp("", "plasmacloud-storm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	token := rand.Text()
	tokens := filepath.Join(dir, "join-tokens")
	if err := os.WriteFile(tokens, []byte("all "+token+"\n"), 0o600); err != nil {
		return err
	}
	d, err := deployerproc.New(program, dir, map[string]any{
		"manifest": "", "allow_unknown_nodes": true, "max_unknown_nodes": 100_000, "tokens": map[string]any{"join_file": tokens},
	})
	if err != nil {
		return err
	}
	if err := d.Start(ctx); err != nil {
		return err
	}
	defer func() { d.Kill() }()

	l := ledger{nodes: map[string]promise{}}
	f, err := fleet.New(fleet.Config{URL: d.URL, Nodes: nodes, Seed: random.Uint64(), JoinToken: token, Connections: min(nodes, 1024), Answered: l.note})
	if err != nil {
		return err
	}
	defer f.Close()
	before, err := d.Client.Events(ctx, "") // without the place before them all, the first may run away unseen
	if err != nil {
		return err
	}
	stopISOs, err := startISOs(ctx, d.URL, token, &l)
	if err != nil {
		return err
	}
	defer func() { _ = stopISOs() }() // it was asked before, where all went well
	watched := follow(ctx, d.Client, before.Next)
	defer watched.stop()

	acts := []func(context.Context) ([]fleet.Result, error){f.Join, f.Reboot}
	for i, act := range acts {
		results := make(chan error, 1)
		before := l.answers.Load()
		go func() {
			played, err := act(ctx)
			for _, r := range played {
				for _, fault := range r.Faults {
					err = errors.Join(err, errors.New(r.Act+": "+fault))
				}
				for code, n := range r.Refused {
					if code != api.CodeBusy {
						err = errors.Join(err, fmt.Errorf("%s: %d reports were refused: %s", r.Act, n, code))
					}
				}
			}
			results <- err
		}()
		var when []int64 // answers after which it is killed
		for k := i; k < kills; k += len(acts) {
			when = append(when, before+1+random.Int64N(int64(2*nodes-1)))
		}
		slices.Sort(when)
		for _, at := range when {
			for l.answers.Load() < at && ctx.Err() == nil {
				time.Sleep(100 * time.Microsecond)
			}
			d.Kill()
			promised := l.snapshot()
			if err := d.Start(ctx); err != nil {
				return err
			}
			if err := promised.kept(ctx, d.Client); err != nil {
				return fmt.Errorf("killed after %d answers: %w", at, err)
			}
		}
		select {
		case err := <-results:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := stopISOs(); err != nil {
		return err
	}
	if err := l.snapshot().kept(ctx, d.Client); err != nil {
		return err
	}
	if err := watched.complete(ctx, d.Client); err != nil {
		return err
	}
	s.say("cycle %d: killed %d times, %d answers kept, %d secrets void and refused, the watcher began anew %d times",
		cycle, kills, l.answers.Load(), l.void.Load(), watched.begunAnew())
	return nil
}

// ledger is what the deployer has answered.
type ledger struct {
	answers, void atomic.Int64

	mu    sync.Mutex
	nodes map[string]promise
}

// promise is the furthest that a node was told it is.
type promise struct {
	machine string
	phase   node.Phase
	state   node.State
}

func (l *ledger) note(a fleet.Answer) {
	l.answers.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[a.ID] = promise{a.MachineID, a.Phase, a.State}
}

type promises map[string]promise

func (l *ledger) snapshot() promises {
	l.mu.Lock()
	defer l.mu.Unlock()
	copied := promises{}
	for id, p := range l.nodes {
		copied[id] = p
	}
	return copied
}

// kept compares what the deployer has now with what it promised before.
func (all promises) kept(ctx context.Context, client *api.Client) error {
	list, err := client.List(ctx)
	if err != nil {
		return err
	}
	known := map[string]api.Node{}
	for _, n := range list {
		known[n.ID] = n
	}
	var broken []error
	for id, p := range all {
		n, there := known[id]
		switch {
		case !there:
			err = fmt.Errorf("%s was accepted as %s, and is lost", id, p.state)
		case n.MachineID != p.machine:
			err = fmt.Errorf("%s is machine %s, and was %s", id, n.MachineID, p.machine)
		case slices.Index(node.States, n.State) < slices.Index(node.States, p.state):
			err = fmt.Errorf("%s went back to %s, and was told %s", id, n.State, p.state)
		case p.state == node.Active && n.Hold == "":
			err = fmt.Errorf("%s was Active, and may be installed over", id)
		case n.State == node.Provisioning && n.Deadline == nil:
			err = fmt.Errorf("%s lost its deadline", id)
		default:
			continue
		}
		if broken = append(broken, err); len(broken) > 10 {
			break
		}
	}
	return errors.Join(broken...)
}

// startISOs runs machines that boot an ISO again and again, and so forget their secret
// and join anew. The one before must never count again, whatever was killed meanwhile.
// stop ends them and says what was wrong; it may be called twice.
func startISOs(ctx context.Context, url, token string, l *ledger) (stop func() error, err error) {
	// Wrong secrets are counted by address, so not from that of the fleet.
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	client, err := api.NewClient(url, 10*time.Second, &http.Transport{DialContext: dialer.DialContext})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	var mu sync.Mutex
	var wrong error
	for i := range 5 {
		all.Go(func() {
			if err := iso(ctx, client, fmt.Sprintf("iso-%d", i), token, l); err != nil && ctx.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				wrong = errors.Join(wrong, err)
			}
		})
	}
	return func() error {
		cancel()
		all.Wait()
		return wrong
	}, nil
}

func iso(ctx context.Context, client *api.Client, id, token string, l *ledger) error {
	current := ""
	report := func(secret, token string) error {
		_, err := client.PhoneHome(ctx, api.PhoneHomeRequest{
			NodeID: id, MachineID: "machine-of-" + id, BootID: secret, Phase: node.PhaseBooted, Secret: secret, JoinToken: token,
		})
		return err
	}
	for ctx.Err() == nil {
		fresh := rand.Text()
		var answered *api.Error
		err := report(fresh, token)
		switch {
		case err == nil:
		case errors.As(err, &answered) && !answered.Temporary():
			return fmt.Errorf("%s may not join anew: %w", id, err)
		default: // it was killed: nobody knows which of the two counts
			current = ""
			continue
		}
		before := current
		current = fresh
		if before == "" {
			continue
		}
		// Twice a second at most, from all of them: wrong secrets are counted.
		select {
		case <-time.After(3 * time.Second):
		case <-ctx.Done():
			return nil
		}
		err = report(before, "")
		switch {
		case err == nil:
			return fmt.Errorf("%s was accepted with a secret that it had before", id)
		case errors.As(err, &answered) && answered.Code == node.CodeNodeSecretWrong:
			l.void.Add(1)
		case answered != nil && !answered.Temporary():
			return fmt.Errorf("%s, with a secret that it had before: %w", id, err)
		}
	}
	return nil
}

// watcher follows the events of all nodes over the deaths of the deployer. An event
// that does not begin where the one before it ended was lost, or came twice. The store
// keeps so few events that they may run away while it waits for the deployer to be back:
// then it is told so, and begins anew without after.
type watcher struct {
	cancel context.CancelFunc
	ended  chan error

	mu     sync.Mutex
	states map[string]node.State
	broken error
	late   int // times that it began anew
}

func follow(ctx context.Context, client *api.Client, cursor string) *watcher {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{cancel: cancel, ended: make(chan error, 1), states: map[string]node.State{}}
	go func() {
		for after := cursor; ; after = "" {
			err := client.Follow(ctx, after, w.event)
			var answer *api.Error
			if !errors.As(err, &answer) || answer.Code != api.CodeCursorGone {
				w.ended <- err
				return
			}
			w.mu.Lock()
			w.late++
			clear(w.states)
			w.mu.Unlock()
		}
	}()
	return w
}

func (w *watcher) event(e api.Event) error {
	if e.From == e.To {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	at, known := w.states[e.NodeID]
	if at = cmp.Or(at, node.Pending); at != e.From && (known || w.late == 0) {
		w.broken = errors.Join(w.broken, fmt.Errorf("an event takes %s from %s to %s, and it was %s", e.NodeID, e.From, e.To, at))
	}
	w.states[e.NodeID] = e.To
	return nil
}

func (w *watcher) stop() { w.cancel() }

func (w *watcher) begunAnew() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.late
}

// complete waits until the events have told of what the nodes are.
func (w *watcher) complete(ctx context.Context, client *api.Client) error {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		list, err := client.List(ctx)
		if err != nil {
			return err
		}
		behind := ""
		w.mu.Lock()
		for _, n := range list {
			if at, known := w.states[n.ID]; at != n.State && (known || w.late == 0) {
				behind = fmt.Sprintf("%s is %s, and its events end with %q", n.ID, n.State, w.states[n.ID])
			}
		}
		broken := w.broken
		w.mu.Unlock()
		select {
		case err := <-w.ended:
			return fmt.Errorf("the events are no longer followed: %w", err)
		default:
		}
		if broken != nil || behind == "" {
			return broken
		}
		if time.Now().After(end) {
			return errors.New(strings.TrimSpace(behind))
		}
	}
}
