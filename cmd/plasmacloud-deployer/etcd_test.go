package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/etcdtest"
)

// etcdConfig is deployer.json for the nodes in the etcd.
func etcdConfig(t *testing.T, server *etcdtest.Server, ids ...string) string {
	t.Helper()
	dir := t.TempDir()
	m := write(t, filepath.Join(dir, "m.json"), manifest(ids...))
	return write(t, filepath.Join(dir, "c.json"), fmt.Sprintf(`{"manifest": %q, "provisioning_timeout": "1s",
		"heartbeat_interval": "1s", "offline_after": "3s",
		"store": {"type": "etcd", "endpoints": [%q], "timeout": "500ms"}}`, m, server.URL))
}

// await polls until done.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestReplicas: two deployers share an etcd. Nodes report to either while etcd is
// killed and started again, is stopped and goes on, and the leader is killed. What was
// answered is there at the end, and the deadlines are still looked after.
func TestReplicas(t *testing.T) {
	t.Parallel()
	for _, version := range etcdtest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			testReplicas(t, version)
		})
	}
}

func testReplicas(t *testing.T, version string) {
	const nodes = 60
	var ids []string
	for i := range nodes {
		ids = append(ids, fmt.Sprintf("node%03d", i))
	}
	server := etcdtest.Start(t, version)
	etcdClient := server.Client()
	config := etcdConfig(t, server, append(ids, "late", "probe")...)
	leads := func(p *proc) {
		t.Helper()
		await(t, "it leads", func() bool {
			key, err := etcdClient.Get(t.Context(), "/plasmacloud/leader")
			return err == nil && len(key.Kvs) == 1 && strings.HasSuffix(string(key.Kvs[0].Value), fmt.Sprintf(" pid %d", p.cmd.Process.Pid))
		})
	}
	leader := serveProc(t, nil, "--config", config)
	leads(leader)
	follower := serveProc(t, nil, "--config", config)
	followed := newFollowed(t, follower.client)

	// Each node reports phase after phase, to one and the other, until it is answered.
	phases := []node.Phase{node.PhaseBooted, node.PhaseInstalling, node.PhaseInstalled, node.PhaseReady}
	answers := make(chan struct{}, nodes*len(phases))
	var unavailable atomic.Int64
	var all sync.WaitGroup
	for i, id := range ids {
		all.Go(func() {
			for turn, done := 0, 0; done < len(phases) && t.Context().Err() == nil; turn++ {
				to := []*proc{leader, follower}[(i+turn)%2]
				_, err := to.client.PhoneHome(t.Context(), ready(id, phases[done]))
				var answered *api.Error
				switch {
				case err == nil:
					done++
					answers <- struct{}{}
				case errors.As(err, &answered) && answered.Code == api.CodeUnavailable:
					unavailable.Add(1)
				case answered != nil:
					t.Errorf("%s reports %s: %v", id, phases[done], err)
					return
				default: // it was killed
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	answered := func(n int) {
		for range n {
			select {
			case <-answers:
			case <-time.After(20 * time.Second):
				t.Fatal("the reports stand still")
			}
		}
	}

	answered(nodes)
	server.Kill()
	wantUnavailable(t, "etcd is gone", leader, follower)
	server.Run()
	answered(nodes)
	server.Stop()
	wantUnavailable(t, "etcd is stopped", leader, follower)
	server.Continue()
	answered(nodes)
	if err := leader.end(syscall.SIGKILL); err == nil {
		t.Error("killed and ended well")
	}
	all.Wait()
	if unavailable.Load() == 0 {
		t.Error("no report was told that the store is away")
	}

	// The follower looks after the deadlines now.
	leads(follower)
	var list []api.Node
	await(t, "all nodes are listed", func() (ok bool) {
		var err error
		list, err = follower.client.List(t.Context())
		return err == nil
	})
	for _, n := range list {
		if slices.Contains(ids, n.ID) && (n.State != node.Active || n.Phase != node.PhaseReady || !n.Declared) {
			t.Errorf("%s is %s after %s, and ready was answered", n.ID, n.State, n.Phase)
		}
	}
	await(t, "a report of late", func() bool {
		_, err := follower.client.PhoneHome(t.Context(), ready("late", node.PhaseBooted))
		return err == nil
	})
	await(t, "late missed its deadline", func() bool {
		n, err := follower.client.Get(t.Context(), "late")
		return err == nil && n.State == node.Failed
	})
	// Whoever watches got each event once, in the order of its node, and from both.
	await(t, "the events are followed to the end", func() bool { return followed.of("late") == "Pending Provisioning Failed" })
	for _, id := range ids {
		if got := followed.of(id); !strings.HasSuffix(got, " Active") {
			t.Errorf("the events of %s are %q", id, got)
		}
	}
	await(t, "the health is restored", func() bool {
		health, err := follower.client.Health(t.Context())
		return err == nil && health.Status == "ok"
	})
	if err := follower.end(syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	left, err := etcdClient.Get(t.Context(), "/plasmacloud/leader")
	if err != nil || len(left.Kvs) != 0 {
		t.Errorf("a leader that ended well is still the leader: %v, %v", left, err)
	}
}

// followed is what a watcher of the events got. An event that does not begin in the
// state in which the one before it ended is an error: one was lost, or came twice.
type followed struct {
	mu     sync.Mutex
	states map[string]string // of each node, one after the other
}

func newFollowed(t *testing.T, client *api.Client) *followed {
	ctx, stop := context.WithCancel(t.Context())
	f := &followed{states: map[string]string{}}
	ended := make(chan error, 1)
	go func() {
		each := func(e api.Event) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if e.From == e.To {
				return nil
			}
			if f.states[e.NodeID] == "" {
				f.states[e.NodeID] = string(node.Pending)
			}
			if !strings.HasSuffix(f.states[e.NodeID], string(e.From)) {
				t.Errorf("%s went from %s to %s after %s", e.NodeID, e.From, e.To, f.states[e.NodeID])
			}
			f.states[e.NodeID] += " " + string(e.To)
			return nil
		}
		err := client.Follow(ctx, "", each)
		for refused := new(api.Error); errors.As(err, &refused) && refused.Temporary(); { // before it began
			err = client.Follow(ctx, "", each)
		}
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the events are no longer followed: %v", err)
		}
	})
	return f
}

// of is the way of a node through the states.
func (f *followed) of(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.states[id]
}

// wantUnavailable: while the store is away, reports, nodes and the health get a 503
// in time.
func wantUnavailable(t *testing.T, when string, procs ...*proc) {
	t.Helper()
	var all sync.WaitGroup
	for _, p := range procs {
		for what, ask := range map[string]func(context.Context) error{
			"report": func(ctx context.Context) error {
				_, err := p.client.PhoneHome(ctx, ready("probe", node.PhaseBooted))
				return err
			},
			"node":  func(ctx context.Context) error { _, err := p.client.Get(ctx, "node000"); return err },
			"nodes": func(ctx context.Context) error { _, err := p.client.List(ctx); return err },
		} {
			all.Go(func() {
				err := ask(t.Context())
				var answered *api.Error
				if !errors.As(err, &answered) || answered.Code != api.CodeUnavailable || answered.RetryAfter == 0 {
					t.Errorf("%s, %s: %v", when, what, err)
				}
			})
		}
		all.Go(func() {
			if health, err := p.client.Health(t.Context()); err == nil && health.Status != "failing" {
				t.Errorf("%s, health: %+v", when, health)
			}
		})
	}
	all.Wait()
}

// TestEtcdAway: a deployer that cannot reach its etcd, or may not use it, ends and
// says why in one line.
func TestEtcdAway(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, "3.4")
	client := server.Client()
	config := etcdConfig(t, server, "node01")
	serve := func(want string) {
		t.Helper()
		err := run(t.Context(), []string{"serve", "--listen", "127.0.0.1:0", "--config", config}, new(strings.Builder), new(strings.Builder))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q in one line", err, want)
		}
	}
	put := func(key, value string) {
		t.Helper()
		if _, err := client.Put(t.Context(), "/plasmacloud/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("meta/schema_version", "1")
	put("meta/cluster", "other")
	serve("/plasmacloud/ in etcd belongs to the cluster other, and the manifest is of three-nodes: set store.prefix to one of its own")
	if _, err := client.Delete(t.Context(), "/plasmacloud/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	put("nodes/x", "y")
	serve("etcd has keys below /plasmacloud/nodes/ that no deployer wrote; set store.prefix to one of its own")
	put("meta/schema_version", "99")
	serve(`/plasmacloud/meta/schema_version says schema version "99", and this deployer reads ` + store.SchemaVersion)
	server.Stop()
	serve("etcd at " + server.URL + " did not answer within 500ms")
	server.Continue()
	server.Kill()
	serve("etcd at " + server.URL)
}
