package deployer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/centra/plasmacloud/deployer/node"
)

// Declared counts what a Declare did.
type Declared struct {
	Nodes      int // in the manifest
	Added      int // of those, new to the registry
	Changed    int // of those, declared otherwise before
	Undeclared int // known, and in the manifest no longer: kept and shown
}

// writersAtOnce is how many writes of many nodes are under way, so that they share the
// store's transactions.
const writersAtOnce = 256

// Declare makes the manifest's nodes the declared ones. Nobody is deleted. A
// declaration that is wrong, or there twice, is an error before anything is written.
// A node whose record cannot be read is left as it is.
func (r *Registry) Declare(ctx context.Context, declarations []node.Declaration) (Declared, error) {
	wanted := make(map[string]node.Declaration, len(declarations))
	for _, d := range declarations {
		if err := d.Check(); err != nil {
			return Declared{}, err
		}
		if _, twice := wanted[d.ID]; twice {
			return Declared{}, fmt.Errorf("node %s is declared twice", d.ID)
		}
		wanted[d.ID] = d
	}
	nodes, err := r.list(ctx)
	if err != nil {
		return Declared{}, fmt.Errorf("read the nodes: %w", err)
	}

	done := Declared{Nodes: len(wanted)}
	for _, id := range r.Unreadable() {
		delete(wanted, id)
	}
	now := r.cfg.Now()
	inputs := map[string]node.Input{}
	for _, n := range nodes {
		d, declared := wanted[n.ID]
		delete(wanted, n.ID)
		in := node.Input{Event: node.EventUndeclared}
		if declared {
			in = node.Input{Event: node.EventDeclared, Declaration: d}
		}
		_, made, err := r.rules().Apply(n, in, now)
		if err != nil {
			return Declared{}, err
		}
		if len(made) == 0 {
			continue
		}
		inputs[n.ID] = in
		if declared {
			done.Changed++
		} else {
			done.Undeclared++
		}
	}
	for id, d := range wanted {
		inputs[id] = node.Input{Event: node.EventDeclared, Declaration: d}
		done.Added++
	}

	err = each(inputs, func(id string, in node.Input) error {
		n, _, err := r.apply(ctx, id, "", in, now, true)
		if err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if n.Declared {
			delete(r.unknown, id)
		} else {
			r.unknown[id] = true
		}
		return nil
	})
	return done, errors.Join(err, r.declared(ctx, now, done))
}

// each runs work on all inputs, at most writersAtOnce at a time. Of a store that takes
// nothing one error tells as much as thousands.
func each(inputs map[string]node.Input, work func(string, node.Input) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	failed := 0
	slots := make(chan struct{}, writersAtOnce)
	for id, in := range inputs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := work(id, in); err != nil {
				mu.Lock()
				first = cmp.Or(first, err)
				failed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failed > 1 {
		return fmt.Errorf("%w; and so with %d other nodes", first, failed-1)
	}
	return first
}
