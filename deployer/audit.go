package deployer

import (
	"context"
	"errors"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

const msec = time.Millisecond // how fine the times are that are stored

// Audit returns up to limit entries of the audit log after the cursor, as Events does:
// what operators did, and what of it came to nothing. What was done is there in the step
// in which it was done.
func (r *Registry) Audit(ctx context.Context, after string, limit int) (store.Page, error) {
	return r.cfg.Store.Audit(ctx, after, limit)
}

// Refused notes that an operator may not do what they wanted to node, "" for none.
func (r *Registry) Refused(ctx context.Context, by Operator, verb node.Event, id, code string) {
	e := r.entry(by, verb, store.ResultRefused)
	e.Node, e.Code = id, code
	r.idle(ctx, e)
}

func (r *Registry) entry(by Operator, verb node.Event, result store.Result) store.Event {
	return store.Event{At: r.cfg.Now().UTC().Truncate(msec), Event: verb, By: by.Name, Remote: by.Remote, Result: result}
}

// ordered notes what became of an order to a node.
func (r *Registry) ordered(ctx context.Context, id string, in node.Input, made []node.Transition, err error) {
	e := r.entry(Operator{Name: in.By, Remote: in.Remote}, in.Event, store.ResultDone)
	e.Node, e.Reason = id, in.Reason
	var no *node.RefusedError
	switch {
	case err == nil && len(made) > 0: // in the store with the change
		r.logAudit(ctx, e)
	case err == nil:
		e.Result = store.ResultUnchanged
		r.idle(ctx, e)
	case errors.As(err, &no):
		e.Result, e.Code = store.ResultRefused, no.Code
		r.idle(ctx, e)
	}
}

// idle stores an entry that is about no change. An operator who tries the same again and
// again, or very much, pushes out nothing of what others did.
func (r *Registry) idle(ctx context.Context, e store.Event) {
	what := string(e.Event) + " " + e.Node + " " + e.Code
	if !r.idleOrders.take(r.cfg.Now(), e.By, what) {
		return
	}
	r.logAudit(ctx, e)
	if err := r.write(r.cfg.Store.AppendAudit(context.WithoutCancel(ctx), e)); err != nil {
		r.idleOrders.forget(e.By, what)
		r.cfg.Logger.ErrorContext(ctx, "entry of the audit log not stored", "error", err)
	}
}

func (r *Registry) logAudit(ctx context.Context, e store.Event) {
	fields := []any{"by", e.By, "remote", e.Remote, "action", e.Event, "result", e.Result}
	for _, more := range []struct{ key, value string }{{"node", e.Node}, {"token", e.Token}, {"code", e.Code}, {"reason", e.Reason}} {
		if more.value != "" {
			fields = append(fields, more.key, more.value)
		}
	}
	r.cfg.Logger.InfoContext(ctx, "operator", fields...)
}
