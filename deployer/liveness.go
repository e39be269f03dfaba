package deployer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// When a node was last heard is kept in memory and stored in one write for all,
// since a heartbeat of thousands of nodes would otherwise be that many writes. A
// crash loses at most FlushInterval of it, and a deployer that has just started
// judges nobody by it.

func (r *Registry) hear(id string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if node.Later(r.heard[id], at) {
		r.heard[id] = at
	}
}

// recorded drops what was heard of n before the store took n.
func (r *Registry) recorded(n node.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if newer := r.heard[n.ID].Sub(n.LastSeen); newer <= 0 || newer > node.ClockSlack {
		delete(r.heard, n.ID)
	}
}

// refresh gives n the last_seen that the store may not have yet.
func (r *Registry) refresh(n node.Node) node.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.heard[n.ID]; ok && store.News(n, at) {
		n.LastSeen = at
	}
	return n
}

// Flush stores when nodes were last heard.
func (r *Registry) Flush(ctx context.Context) error {
	r.mu.Lock()
	heard := maps.Clone(r.heard)
	r.mu.Unlock()
	if len(heard) == 0 && r.writeFailed.Load() == nil {
		return nil
	}
	if err := r.write(r.cfg.Store.Seen(ctx, heard)); err != nil {
		return fmt.Errorf("store when nodes were last heard: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, at := range heard {
		if r.heard[id].Equal(at) {
			delete(r.heard, id)
		}
	}
	return nil
}

// Tick fails the nodes whose deadline has passed. It reads the deadlines from the
// store, so those set before a restart count as well. Where the clock was set back,
// it brings what lies in the future to now: no silence and no deadline may last
// until a year that a wrong clock once showed. It drops old events. Where several registries share the
// store, the leader does this for all.
func (r *Registry) Tick(ctx context.Context) error {
	nodes, failure := r.list(ctx)
	listed := failure == nil
	now := r.cfg.Now().Round(0)
	if r.listeningSince.Load().Sub(now) > node.ClockSlack {
		r.listeningSince.Store(&now)
	}
	if listed {
		failure = r.watchVIPs(ctx, nodes)
	}
	if r.cfg.Lead != nil {
		if listed {
			r.recount(nodes)
		}
		if !r.cfg.Lead() {
			return failure
		}
	}
	if err := r.cfg.Store.Trim(ctx); err != nil {
		failure = errors.Join(failure, fmt.Errorf("drop old events: %w", err))
	}
	rules, late := r.rules(), map[string]node.Input{}
	for _, n := range nodes {
		n = r.refresh(n)
		if n.LastSeen.Sub(now) > node.ClockSlack {
			r.hear(n.ID, now)
		}
		tick := node.Input{Event: node.EventTick}
		_, made, err := rules.Apply(n, tick, now)
		if err != nil {
			failure = errors.Join(failure, err)
		}
		if len(made) > 0 {
			late[n.ID] = tick
		}
	}
	// Thousands may be late at once, and a store that is away takes its time to refuse each.
	return errors.Join(failure, each(late, func(id string, tick node.Input) error {
		_, _, err := r.apply(ctx, id, "", tick, now, false)
		return err
	}))
}

// recount finds the undeclared nodes that others let in.
func (r *Registry) recount(nodes []node.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.unknown)
	for _, n := range nodes {
		if !n.Declared {
			r.unknown[n.ID] = true
		}
	}
}

// stayAwake looks at the clock each second, and waits for nothing else: a slow store is
// no sleep.
func (r *Registry) stayAwake(ctx context.Context) {
	defer r.awake.Store(nil)
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		now := r.cfg.Now().Round(0)
		r.noticeSleep(now)
		r.awake.Store(&now)
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// noticeSleep notices that this process did not run for a while, as when its machine was
// suspended, or that the clock was set forward. Nobody was heard in that time, so silence
// counts only from then on.
func (r *Registry) noticeSleep(now time.Time) {
	// With less than this a node that spoke in time is not offline.
	gap := max((r.cfg.OfflineAfter-r.cfg.HeartbeatInterval)/2, 2*time.Second)
	last := r.awake.Load()
	if last == nil || now.Sub(*last) <= gap {
		return
	}
	r.listeningSince.Store(&now) // before another judges by the clock
	if r.awake.CompareAndSwap(last, &now) {
		r.cfg.Logger.Warn("did not run, or the clock was set forward", "for", now.Sub(*last).Truncate(time.Second))
	}
}

// Run ticks and flushes until ctx ends, then flushes once more.
func (r *Registry) Run(ctx context.Context) error {
	var awake sync.WaitGroup
	awake.Go(func() { r.stayAwake(ctx) })
	defer awake.Wait()
	every := min(max(r.cfg.ProvisioningTimeout/20, time.Second), 10*time.Second)
	tick, flush, look := time.NewTicker(every), time.NewTicker(r.cfg.FlushInterval), time.NewTicker(vipLook)
	defer tick.Stop()
	defer flush.Stop()
	defer look.Stop()
	for {
		var err error
		select {
		case <-tick.C:
			err = r.Tick(ctx)
		case <-flush.C:
			err = r.Flush(ctx)
		case <-look.C:
			err = r.lookAtVIPs(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			return r.Flush(last)
		}
		if err != nil && ctx.Err() == nil {
			r.cfg.Logger.ErrorContext(ctx, "registry upkeep failed", "error", err)
		}
	}
}
