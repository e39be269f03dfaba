package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store/etcd"
	"github.com/centra/plasmacloud/deployer/store/etcdtest"
)

// TestCluster: with one member of three gone all goes on; with two gone nothing is
// answered; and what was answered is there when they are back.
func TestCluster(t *testing.T) {
	t.Parallel()
	members := etcdtest.StartCluster(t, "3.7", 3)
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, m.URL)
	}
	s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: endpoints, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	const nodes = 8
	var answered [nodes]atomic.Int64
	var failed atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range nodes {
		id := fmt.Sprintf("node%d", i)
		all.Go(func() {
			for ctx.Err() == nil {
				if s.Update(t.Context(), id, set(id, func(n *node.Node) { n.Attempt++ })) == nil {
					answered[i].Add(1)
				} else {
					failed.Add(1)
				}
			}
		})
	}
	goOn := func() {
		t.Helper()
		var before [nodes]int64
		for i := range nodes {
			before[i] = answered[i].Load()
		}
		within(t, func() bool {
			for i := range nodes {
				if answered[i].Load() < before[i]+3 {
					return false
				}
			}
			return true
		})
	}
	goOn()
	members[0].Kill()
	goOn()
	members[1].Kill()
	until := failed.Load() + 2*nodes
	within(t, func() bool { return failed.Load() >= until })
	members[0].Run()
	members[1].Run()
	goOn()
	stop()
	all.Wait()
	list, err := s.List(t.Context())
	if err != nil || len(list) != nodes {
		t.Fatalf("%d nodes, %v", len(list), err)
	}
	for i, n := range list {
		if int64(n.Attempt) < answered[i].Load() {
			t.Errorf("%s: %d writes were answered, %d are there", n.ID, answered[i].Load(), n.Attempt)
		}
	}
}

// TestOutOfSpace: an etcd over its quota is told apart from one that is away.
func TestOutOfSpace(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, "3.7", "--quota-backend-bytes=1000000")
	client := server.Client()
	s := open(t, server, fresh())
	within(t, func() bool {
		_, err := client.Put(t.Context(), "fill", strings.Repeat("x", 500_000))
		return errors.Is(err, rpctypes.ErrNoSpace)
	})
	err := s.Update(t.Context(), "node01", set("node01", func(*node.Node) {}))
	if err == nil || !strings.Contains(err.Error(), "is out of space: compact and defragment it") {
		t.Error(err)
	}
	if err := s.Seen(t.Context(), nil); err == nil {
		t.Error("it seems to take writes")
	}
	if _, err := s.List(t.Context()); err != nil {
		t.Errorf("reading: %v", err)
	}
}
