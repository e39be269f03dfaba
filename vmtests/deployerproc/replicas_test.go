package deployerproc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/vmtests/deployerproc"
	"github.com/centra/plasmacloud/vmtests/lab"
)

const patience = 30 * time.Second

// replicas is three members of an etcd and two deployers, each on a host of its own.
type replicas struct {
	hosts     map[string]*lab.Host // m0 to m2, d0 and d1
	processes map[string]*lab.Process
	commands  map[string][]string
	endpoints []string
	etcd      *clientv3.Client
	clients   []*api.Client
}

func startReplicas(t *testing.T) *replicas {
	t.Helper()
	program, err := deployerproc.Build(t.Context(), t.TempDir(), "../..")
	require.NoError(t, err)
	l, err := lab.New("replicas")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	r := &replicas{hosts: map[string]*lab.Host{}, processes: map[string]*lab.Process{}, commands: map[string][]string{}}
	addresses := map[*lab.Host][]netip.Prefix{}
	address := map[string]string{"m0": "10.9.0.10", "m1": "10.9.0.11", "m2": "10.9.0.12", "d0": "10.9.0.20", "d1": "10.9.0.21", "nodes": "10.9.0.30"}
	var cluster []string
	for _, name := range []string{"m0", "m1", "m2", "d0", "d1", "nodes"} {
		host, err := l.Host(name)
		require.NoError(t, err)
		r.hosts[name] = host
		addresses[host] = []netip.Prefix{netip.MustParsePrefix(address[name] + "/24")}
		if name[0] == 'm' {
			r.endpoints = append(r.endpoints, "http://"+address[name]+":2379")
			cluster = append(cluster, name+"=http://"+address[name]+":2380")
		}
	}
	require.NoError(t, l.Switch(addresses))
	for i := range 3 {
		name := fmt.Sprintf("m%d", i)
		peer := "http://" + address[name] + ":2380"
		r.commands[name] = []string{"etcd", "--name=" + name, "--data-dir=" + filepath.Join(r.hosts[name].Dir, "data"), "--log-level=error",
			"--listen-client-urls=" + r.endpoints[i], "--advertise-client-urls=" + r.endpoints[i], "--listen-peer-urls=" + peer,
			"--initial-advertise-peer-urls=" + peer, "--initial-cluster=" + strings.Join(cluster, ","),
			"--heartbeat-interval=50", "--election-timeout=500"}
		require.NoError(t, r.start(name))
	}
	for i := range 2 {
		name := fmt.Sprintf("d%d", i)
		config, err := json.Marshal(map[string]any{
			"listen": address[name] + ":8080", "manifest": "", "allow_unknown_nodes": true, "heartbeat_interval": "1s",
			"store": map[string]any{"type": "etcd", "endpoints": r.endpoints, "timeout": "1s"},
		})
		require.NoError(t, err)
		path := filepath.Join(r.hosts[name].Dir, "deployer.json")
		require.NoError(t, os.WriteFile(path, config, 0o600))
		r.commands[name] = []string{program, "serve", "--config", path}
		client, err := api.NewClient("http://"+address[name]+":8080", 2*time.Second, &http.Transport{
			DialContext: r.hosts["nodes"].Dial, MaxIdleConnsPerHost: 64,
		})
		require.NoError(t, err)
		r.clients = append(r.clients, client)
		require.NoError(t, lab.Eventually(patience, func() error { // etcd has to be there
			if p := r.processes[name]; p == nil || p.Ended() {
				if err := r.start(name); err != nil {
					return err
				}
			}
			_, err := client.Health(t.Context())
			return err
		}))
	}
	r.etcd, err = clientv3.New(clientv3.Config{Endpoints: r.endpoints, Logger: zap.NewNop(), DialOptions: []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return r.hosts["nodes"].Dial(ctx, "tcp", strings.TrimPrefix(address, "http://"))
		}),
	}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.etcd.Close() })
	return r
}

func (r *replicas) start(name string) (err error) {
	r.processes[name], err = r.hosts[name].Start(name, r.commands[name]...)
	return err
}

// leader is the member that leads.
func (r *replicas) leader(t *testing.T) (name string) {
	t.Helper()
	require.NoError(t, lab.Eventually(patience, func() error {
		for i, endpoint := range r.endpoints {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			status, err := r.etcd.Status(ctx, endpoint)
			cancel()
			if err == nil && status.Leader == status.Header.MemberId {
				name = fmt.Sprintf("m%d", i)
				return nil
			}
		}
		return errors.New("no member leads")
	}))
	return name
}

// TestReplicas: nodes report to two deployers over an etcd of three members, without
// end. Its leader is killed, cut off, and stopped; then a deployer is, or is cut off from
// etcd alone. Each time the others go on, and nothing that was answered is lost.
func TestReplicas(t *testing.T) {
	t.Parallel()
	r := startReplicas(t)
	const nodes = 12
	var answered [nodes]atomic.Int64
	var served [2]atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	for i := range nodes {
		all.Go(func() {
			for turn := int64(1); ctx.Err() == nil; turn++ {
				to := (i + int(turn)) % 2
				_, err := r.clients[to].PhoneHome(ctx, api.PhoneHomeRequest{
					NodeID: fmt.Sprintf("node%02d", i), MachineID: fmt.Sprintf("machine-of-node%02d", i), Role: "worker", Phase: node.PhaseReady,
					Facts: map[string]string{"turn": fmt.Sprint(turn)}, // so that each is a write
				})
				var no *api.Error
				switch {
				case err == nil:
					answered[i].Store(turn)
					served[to].Add(1)
				case errors.As(err, &no) && !no.Temporary():
					t.Errorf("node%02d: %v", i, err)
					return
				}
			}
		})
	}
	goesOn := func(when string, deployers ...int) {
		t.Helper()
		var before [nodes]int64
		for i := range nodes {
			before[i] = answered[i].Load()
		}
		var each [2]int64
		for i := range served {
			each[i] = served[i].Load()
		}
		err := lab.Eventually(patience, func() error {
			for i := range nodes {
				if answered[i].Load() < before[i]+2 {
					return fmt.Errorf("node%02d is not answered", i)
				}
			}
			for _, d := range deployers {
				if served[d].Load() < each[d]+nodes {
					return fmt.Errorf("deployer %d does not answer", d)
				}
			}
			return nil
		})
		require.NoError(t, err, when)
	}
	goesOn("at the begin", 0, 1)

	leader := r.leader(t)
	require.NoError(t, r.processes[leader].Kill())
	goesOn("the leader of etcd was killed", 0, 1)
	require.NoError(t, r.start(leader))

	leader = r.leader(t)
	require.NoError(t, r.hosts[leader].Plug("eth0", false))
	goesOn("the leader of etcd is cut off", 0, 1)
	require.NoError(t, r.hosts[leader].Plug("eth0", true))

	leader = r.leader(t)
	require.NoError(t, r.processes[leader].Signal(syscall.SIGSTOP))
	goesOn("the leader of etcd is stopped", 0, 1)
	require.NoError(t, r.processes[leader].Signal(syscall.SIGCONT))

	require.NoError(t, r.processes["d0"].Signal(syscall.SIGSTOP))
	goesOn("one deployer is stopped", 1)
	require.NoError(t, r.processes["d0"].Signal(syscall.SIGCONT))
	goesOn("and goes on", 0, 1)

	require.NoError(t, r.hosts["d1"].Plug("eth0", false))
	goesOn("the other deployer is cut off", 0)
	require.NoError(t, r.hosts["d1"].Plug("eth0", true))
	goesOn("and is back", 0, 1)

	// Nodes reach it, and it does not reach etcd: it acknowledges nothing, and says so.
	_, err := r.hosts["d0"].Run("nft", "add table inet cut; add chain inet cut out { type filter hook output priority 0; }; add rule inet cut out tcp dport 2379 drop")
	require.NoError(t, err)
	patient, err := api.NewClient("http://10.9.0.20:8080", 10*time.Second, &http.Transport{DialContext: r.hosts["nodes"].Dial})
	require.NoError(t, err)
	unavailable := func(err error) error {
		var no *api.Error
		if !errors.As(err, &no) || no.Code != api.CodeUnavailable {
			return fmt.Errorf("%w, not %s", err, api.CodeUnavailable)
		}
		return nil
	}
	report := api.PhoneHomeRequest{NodeID: "node99", MachineID: "machine-of-node99", Role: "worker", Phase: node.PhaseReady}
	require.NoError(t, lab.Eventually(patience, func() error { // what was under way is over
		_, err := patient.List(t.Context())
		return unavailable(err)
	}))
	before := served[0].Load()
	_, err = patient.PhoneHome(t.Context(), report)
	require.NoError(t, unavailable(err))
	health, err := patient.Health(t.Context())
	require.NoError(t, err)
	require.Equal(t, "failing", health.Status)
	goesOn("a deployer is cut off from etcd alone", 1)
	require.Equal(t, before, served[0].Load(), "reports that it acknowledged meanwhile")
	_, err = r.hosts["d0"].Run("nft", "delete table inet cut")
	require.NoError(t, err)
	goesOn("and reaches it again", 0, 1)

	stop()
	all.Wait()
	for d, client := range r.clients {
		require.NoError(t, lab.Eventually(patience, func() error {
			list, err := client.List(t.Context())
			if err != nil {
				return err
			}
			if len(list) != nodes {
				return fmt.Errorf("%d nodes", len(list))
			}
			for i, n := range list {
				var turn int64
				_, _ = fmt.Sscan(n.Facts["turn"], &turn)
				if n.State != node.Active || turn < answered[i].Load() {
					return fmt.Errorf("deployer %d: %s is %s after report %d, and %d was answered", d, n.ID, n.State, turn, answered[i].Load())
				}
			}
			return nil
		}))
	}
}
