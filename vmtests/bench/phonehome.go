package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
	"github.com/centra/plasmacloud/deployer/store/etcd"
)

const (
	phoneHomes  = 10_000
	connections = 256
)

// load is what one round of 10,000 requests over 256 connections came to.
type load struct {
	rate float64 // a second
	p99  time.Duration
	cpu  time.Duration // of a request, of both ends and an etcd: what else runs on the machine counts less in it
}

func (l load) String() string {
	return fmt.Sprintf("%.0f/s, p99 %.1f ms, %d µs of CPU", l.rate, float64(l.p99.Microseconds())/1000, l.cpu.Microseconds())
}

// benchPhoneHome lets 10,000 machines boot at once: each reports `ready`, which the
// deployer has on disk before it answers, in its own file or in an etcd beside it, and
// then once more, which is a heartbeat. Peers are a bare net/http handler that decodes
// the same request and has no store, and an etcd that is given values of the same size,
// over as many connections, and over four that its clients share. All take turns in each
// run, and what is compared is compared within one.
func benchPhoneHome(ctx context.Context, b *bench) ([]figure, error) {
	endpoint, pid, stop, err := startEtcd(ctx, filepath.Join(b.dir, "etcd"))
	if err != nil {
		return nil, err
	}
	defer stop()
	const bare, puts, shared, bbolt, inEtcd, beats, etcdBeats = "bare", "puts", "shared", "bbolt", "etcd", "heartbeats", "heartbeats, etcd"
	all := map[string][]load{}
	for run := range b.runs {
		add := func(name string, l load, err error) error {
			all[name] = append(all[name], l)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		}
		l, _, err := storms(ctx, http.HandlerFunc(answerBare), 1, pid)
		if err := add(bare, l, err); err != nil {
			return nil, err
		}
		for name, clients := range map[string]int{puts: connections, shared: 4} {
			l, err = etcdPuts(ctx, endpoint, fmt.Sprint(name, run), clients, pid)
			if err := add(name, l, err); err != nil {
				return nil, err
			}
		}
		for _, kept := range []struct {
			name, beats string
			open        func() (store.Store, error)
		}{
			{bbolt, beats, func() (store.Store, error) {
				return bolt.Open(bolt.Config{Path: filepath.Join(b.dir, fmt.Sprintf("state%d.db", run))})
			}},
			{inEtcd, etcdBeats, func() (store.Store, error) {
				return etcd.Open(ctx, etcd.Config{Endpoints: []string{endpoint}, Prefix: fmt.Sprintf("/%d/", run)})
			}},
		} {
			handler, writes, shut, err := registryHandler(ctx, kept.open)
			if err != nil {
				return nil, err
			}
			first, second, err := storms(ctx, handler, 2, pid)
			shut()
			if err == nil && writes.Load() != phoneHomes {
				err = fmt.Errorf("%d writes of %d nodes and as many heartbeats", writes.Load(), phoneHomes)
			}
			if err := errors.Join(add(kept.name, first, err), add(kept.beats, second, err)); err != nil {
				return nil, err
			}
		}
	}
	line := func(work, name, peer, than string) figure {
		f := figure{work: work, value: medianLoad(all[name]).String()}
		if peer != "" {
			var rates, cpus []float64
			for run, l := range all[name] {
				rates = append(rates, l.rate/all[peer][run].rate)
				cpus = append(cpus, all[peer][run].cpu.Seconds()/l.cpu.Seconds())
			}
			f.peer, f.ratio = fmt.Sprintf("%s; by CPU time %.2f times", than, middle(cpus)), middle(rates)
		}
		return f
	}
	const handler, plain = "a bare net/http handler", "bare etcd puts"
	return []figure{
		line("10000 registrations, bbolt", bbolt, bare, handler),
		line("the same", bbolt, puts, plain),
		line("the same", bbolt, shared, plain+" over 4 connections"),
		line("10000 registrations, etcd beside it", inEtcd, bare, handler),
		line("the same", inEtcd, puts, plain),
		line("10000 heartbeats, bbolt", beats, bare, handler),
		line("10000 heartbeats, etcd beside it", etcdBeats, bare, handler),
		line("a bare net/http handler, no store", bare, "", ""),
		line("10000 puts of 700 bytes into that etcd", puts, "", ""),
		line("the same over 4 connections", shared, "", ""),
	}, nil
}

func medianLoad(all []load) load {
	var l load
	var rates, p99s, cpus []float64
	for _, each := range all {
		rates, p99s, cpus = append(rates, each.rate), append(p99s, each.p99.Seconds()), append(cpus, each.cpu.Seconds())
	}
	l.rate = middle(rates)
	l.p99, l.cpu = time.Duration(middle(p99s)*float64(time.Second)), time.Duration(middle(cpus)*float64(time.Second))
	return l
}

func middle(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

// etcdPuts puts so many values of a record's size as fast as so many clients let it, each
// of which has a connection.
func etcdPuts(ctx context.Context, endpoint, prefix string, number, pid int) (load, error) {
	var clients []*clientv3.Client
	for range number {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
		if err != nil {
			return load{}, err
		}
		defer client.Close()
		clients = append(clients, client)
	}
	for _, client := range clients { // connected before the clock runs
		if _, err := client.Get(ctx, "/puts"); err != nil {
			return load{}, err
		}
	}
	value := strings.Repeat("x", 700)
	return round(pid, func(i int) error {
		_, err := clients[i%len(clients)].Put(ctx, fmt.Sprintf("/puts/%s/%05d", prefix, i), value)
		return err
	})
}

// cpu is what this process has taken, and the one that pid names; 0 is none.
func cpu(pid int) (time.Duration, error) {
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return 0, err
	}
	took := time.Duration(own.Utime.Nano() + own.Stime.Nano())
	if pid == 0 {
		return took, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	for _, field := range fields[11:13] { // utime and stime, in hundredths (proc_pid_stat(5))
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		took += time.Duration(ticks) * 10 * time.Millisecond
	}
	return took, nil
}

// round calls work for each node, on 256 goroutines.
func round(pid int, work func(i int) error) (load, error) {
	var next atomic.Int64
	took := make([]time.Duration, phoneHomes)
	failed := make(chan error, connections)
	var all sync.WaitGroup
	before, err := cpu(pid)
	if err != nil {
		return load{}, err
	}
	begin := time.Now()
	for range connections {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < phoneHomes; i = int(next.Add(1)) - 1 {
				asked := time.Now()
				if err := work(i); err != nil {
					failed <- err
					return
				}
				took[i] = time.Since(asked)
			}
		})
	}
	all.Wait()
	l := load{rate: phoneHomes / time.Since(begin).Seconds(), p99: percentile(took, 99)}
	after, err := cpu(pid)
	if err != nil {
		return load{}, err
	}
	l.cpu = (after - before) / phoneHomes
	select {
	case err := <-failed:
		return load{}, err
	default:
		return l, nil
	}
}

// startEtcd runs Debian's etcd, alone and with its files in dir.
func startEtcd(ctx context.Context, dir string) (endpoint string, pid int, stop func(), err error) {
	var urls [2]string // for clients, and for peers that there are not
	for i := range urls {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return "", 0, nil, err
		}
		urls[i] = "http://" + l.Addr().String()
		l.Close()
	}
	cmd := exec.CommandContext(ctx, "etcd", "--name=bench", "--data-dir="+dir, "--log-level=error",
		"--listen-client-urls="+urls[0], "--advertise-client-urls="+urls[0], "--listen-peer-urls="+urls[1],
		"--initial-advertise-peer-urls="+urls[1], "--initial-cluster=bench="+urls[1])
	if err := cmd.Start(); err != nil {
		return "", 0, nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		s, err := etcd.Open(ctx, etcd.Config{Endpoints: urls[:1], Prefix: "/ready/", Timeout: time.Second})
		if err == nil {
			return urls[0], cmd.Process.Pid, stop, s.Close()
		}
		if time.Now().After(end) || ctx.Err() != nil {
			stop()
			return "", 0, nil, err
		}
	}
}

// Logging costs time of its own, which neither side is asked for here.
var quiet = slog.New(slog.DiscardHandler)

// counted counts the writes of records.
type counted struct {
	store.Store
	writes atomic.Int64
}

func (c *counted) Update(ctx context.Context, id string, change store.Change) error {
	c.writes.Add(1)
	return c.Store.Update(ctx, id, change)
}

// registryHandler is the deployer without its process: registry, store, HTTP. writes
// counts from when the nodes are declared.
func registryHandler(ctx context.Context, open func() (store.Store, error)) (h http.Handler, writes *atomic.Int64, shut func(), err error) {
	kept, err := open()
	if err != nil {
		return nil, nil, nil, err
	}
	c := &counted{Store: kept}
	registry, err := deployer.New(ctx, deployer.Config{Store: c, Logger: quiet})
	if err == nil {
		_, err = registry.Declare(ctx, declarations(phoneHomes))
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, kept.Close())
	}
	c.writes.Store(0)
	return server.New(server.Config{Registry: registry, Logger: quiet}), &c.writes, func() { kept.Close() }, nil
}

func declarations(nodes int) []node.Declaration {
	var declared []node.Declaration
	for i := range nodes {
		declared = append(declared, node.Declaration{ID: nodeID(i), Role: "worker", IP: nodeIP(i)})
	}
	return declared
}

func nodeID(i int) string { return fmt.Sprintf("node%05d", i) }
func nodeIP(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func answerBare(w http.ResponseWriter, r *http.Request) {
	var request api.PhoneHomeRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(api.PhoneHomeResponse{NodeID: request.NodeID, State: node.Active, HeartbeatIntervalSeconds: 10})
}

// storms sends each node's report, so many times.
func storms(ctx context.Context, handler http.Handler, times, pid int) (first, last load, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return first, last, err
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(listener) }()
	defer srv.Close()
	transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	client, err := api.NewClient("http://"+listener.Addr().String(), time.Minute, transport)
	if err != nil {
		return first, last, err
	}
	for time := range times {
		last, err = round(pid, func(i int) error {
			answer, err := client.PhoneHome(ctx, api.PhoneHomeRequest{
				NodeID: nodeID(i), MachineID: fmt.Sprintf("4c4c4544-0000-4000-8000-%012d", i),
				IP: nodeIP(i).String(), Role: "worker", Phase: node.PhaseReady,
			})
			if err == nil && answer.State != node.Active {
				err = fmt.Errorf("%s is %s", nodeID(i), answer.State)
			}
			return err
		})
		if err != nil {
			return first, last, err
		}
		if time == 0 {
			first = last
		}
	}
	return first, last, nil
}
