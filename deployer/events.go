package deployer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// Events returns up to limit events of all nodes after the cursor; see store.Store. A
// line of a node's history, but for declarations, is an event from the moment on when
// it is durable. So are a manifest that changed something, and a refusal of note.
func (r *Registry) Events(ctx context.Context, after string, limit int) (store.Page, error) {
	return r.cfg.Store.Events(ctx, after, limit)
}

// notable are things worth an event or an entry of the audit log: each the first time in a
// window, and no more than notableBudget of one origin. A node that is refused asks again
// and again, and so may an operator, and neither must push out what else happened.
type notable struct {
	mu     sync.Mutex
	window time.Time
	known  map[string]map[string]bool // by origin
}

const (
	notableWindow = 10 * time.Minute
	notableBudget = 50
)

func (n *notable) take(now time.Time, origin, what string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if age := now.Sub(n.window); n.known == nil || age >= notableWindow || age < 0 {
		n.window, n.known = now, map[string]map[string]bool{}
	}
	of := n.known[origin]
	switch {
	case of[what] || len(of) >= notableBudget:
		return false
	case of == nil:
		of = map[string]bool{}
		n.known[origin] = of
	}
	of[what] = true
	return true
}

// forget has what was taken be taken again, since it is not noted.
func (n *notable) forget(origin, what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known[origin], what)
}

// refused notes a refusal, also where its client leaves: else nobody would know whether it
// was written. Where that cannot be written it is refused all the same, and the next one
// like it is noted.
func (r *Registry) refused(ctx context.Context, id string, no *node.RefusedError) {
	now := r.cfg.Now()
	r.refusals.add(ctx, now, id, no)
	what := id + " " + no.Code
	if !r.notable.take(now, "", what) { // anybody may say to be any node
		return
	}
	e := store.Event{At: now.UTC().Truncate(time.Millisecond), Node: id, Event: store.EventRefused, Code: no.Code, Reason: no.Detail}
	if err := r.write(r.cfg.Store.Append(context.WithoutCancel(ctx), e)); err != nil {
		r.notable.forget("", what)
		r.cfg.Logger.DebugContext(ctx, "refusal is no event, it could not be written", "node", id, "error", err)
	}
}

// declared notes what a manifest did.
func (r *Registry) declared(ctx context.Context, now time.Time, d Declared) error {
	if d.Added+d.Changed+d.Undeclared == 0 {
		return nil
	}
	err := r.write(r.cfg.Store.Append(ctx, store.Event{
		At: now.UTC().Truncate(time.Millisecond), Event: store.EventManifest,
		Reason: fmt.Sprintf("declares %d nodes: %d added, %d changed, %d taken out", d.Nodes, d.Added, d.Changed, d.Undeclared),
	}))
	if err != nil {
		return fmt.Errorf("write the event of the manifest: %w", err)
	}
	return nil
}
