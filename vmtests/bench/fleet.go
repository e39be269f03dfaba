package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/fleet"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store/bolt"
	"github.com/centra/plasmacloud/vmtests/deployerproc"
)

const (
	coldNodes = 10_000
	manyNodes = 100_000
)

var unknownNodes = map[string]any{"manifest": "", "allow_unknown_nodes": true, "max_unknown_nodes": 100_000}

// benchFleet lets 10,000 simulated nodes join a deployer at once, the clients on the
// same processors; and starts one with the store of 100,000.
func benchFleet(ctx context.Context, b *bench) ([]figure, error) {
	program, err := deployerproc.Build(ctx, b.dir, b.repo)
	if err != nil {
		return nil, err
	}
	var joined fleet.Result
	var memory [2]int64 // after a while, and the most
	cold, err := median(b.runs, func() (float64, error) {
		var err error
		joined, memory, err = coldJoin(ctx, program)
		return joined.AllActive, err
	})
	if err != nil {
		return nil, fmt.Errorf("cold join: %w", err)
	}
	figures := []figure{
		{work: fmt.Sprintf("%d nodes boot at once until all are Active", coldNodes), value: fmt.Sprintf("%.1f s; %.0f reports/s, p99 %.0f ms", cold, joined.Rate, joined.P99)},
		{work: "memory with them, and the most in the storm", value: fmt.Sprintf("%d MiB, %d MiB", memory[0]>>20, memory[1]>>20)},
	}
	dir := filepath.Join(b.dir, "many")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := fill(ctx, filepath.Join(dir, "state.db"), manyNodes); err != nil {
		return nil, err
	}
	var listed [3]int64 // before a list, after it, and the most
	ready, err := median(b.runs, func() (time.Duration, error) {
		var took time.Duration
		took, listed, err = restart(ctx, program, dir)
		return took, err
	})
	if err != nil {
		return nil, fmt.Errorf("restart: %w", err)
	}
	info, err := os.Stat(filepath.Join(dir, "state.db"))
	if err != nil {
		return nil, err
	}
	return append(figures,
		figure{work: fmt.Sprintf("ready after a restart with %d nodes", manyNodes), value: fmt.Sprintf("%.2f s", ready.Seconds())},
		figure{work: fmt.Sprintf("memory with them, after a list of all, and the most (file: %d MiB)", info.Size()>>20), value: fmt.Sprintf("%d MiB, %d MiB, %d MiB", listed[0]>>20, listed[1]>>20, listed[2]>>20)},
	), nil
}

func coldJoin(ctx context.Context, program string) (joined fleet.Result, memory [2]int64, err error) {
	dir, err := os.MkdirTemp("", "plasmacloud-bench-")
	if err != nil {
		return joined, memory, err
	}
	defer os.RemoveAll(dir)
	d, err := deployerproc.New(program, dir, unknownNodes)
	if err == nil {
		err = d.Start(ctx)
	}
	if err != nil {
		return joined, memory, err
	}
	defer d.Kill()
	f, err := fleet.New(fleet.Config{URL: d.URL, Nodes: coldNodes, Seed: 1})
	if err != nil {
		return joined, memory, err
	}
	defer f.Close()
	results, err := f.Join(ctx)
	if err != nil {
		return joined, memory, err
	}
	if joined = results[0]; !joined.OK() {
		return joined, memory, errors.New(joined.Faults[0])
	}
	if _, err := f.Beat(ctx, 25*time.Second); err != nil { // upkeep and garbage collection come by
		return joined, memory, err
	}
	memory[0], memory[1], err = d.Memory()
	return joined, memory, err
}

// fill makes a store of nodes that are Active.
func fill(ctx context.Context, path string, nodes int) error {
	kept, err := bolt.Open(bolt.Config{Path: path})
	if err != nil {
		return err
	}
	defer kept.Close()
	registry, err := deployer.New(ctx, deployer.Config{Store: kept, Logger: quiet, AllowUnknownNodes: true, MaxUnknownNodes: nodes})
	if err != nil {
		return err
	}
	var next atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, connections)
	for range connections {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < nodes; i = int(next.Add(1)) - 1 {
				for _, phase := range []node.Phase{node.PhaseBooted, node.PhaseReady} {
					_, err := registry.PhoneHome(ctx, fleet.ID(i), node.Report{
						MachineID: fmt.Sprintf("4c4c4544-0000-4000-8000-%012d", i), BootID: fmt.Sprintf("4c4c4544-0000-4000-8001-%012d", i), IP: nodeIP(i),
						Role: "worker", Hostname: fleet.ID(i), Phase: phase, Serial: fmt.Sprintf("S%07d", i),
						MACs:  []string{fmt.Sprintf("02:00:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255)},
						Facts: map[string]string{"arch": "amd64", "cpus": "64", "kernel": "6.12.0", "memory_bytes": "549755813888", "serial": fmt.Sprintf("S%07d", i)},
					})
					if err != nil {
						failed <- err
						return
					}
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// restart is how long a deployer takes from its start to its first answer, and what
// it has in memory once it has looked after all nodes, once it has listed them, and at most.
func restart(ctx context.Context, program, dir string) (took time.Duration, memory [3]int64, err error) {
	d, err := deployerproc.New(program, dir, unknownNodes)
	if err != nil {
		return 0, memory, err
	}
	begin := time.Now()
	if err := d.Start(ctx); err != nil {
		return 0, memory, err
	}
	defer d.Kill()
	took = time.Since(begin)
	select {
	case <-time.After(25 * time.Second):
	case <-ctx.Done():
		return 0, memory, ctx.Err()
	}
	if memory[0], _, err = d.Memory(); err != nil {
		return 0, memory, err
	}
	if _, err := d.Client.List(ctx); err != nil {
		return 0, memory, err
	}
	memory[1], memory[2], err = d.Memory()
	return took, memory, err
}
