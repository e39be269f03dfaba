package deployer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/tokens"
)

// Operator is who gives an order, and from where, in words for histories and logs.
type Operator struct {
	Name   string // of the token or the certificate
	Remote string // address; "" on the deployer's own machine
}

const maxReason = 512 // bytes

// RoleFor is the role that an operator needs for one of node.Verbs: operator for what
// can be undone, admin for the others.
func RoleFor(verb node.Event) tokens.Role {
	switch verb {
	case node.EventApprove, node.EventHold, node.EventRelease, node.EventRetry:
		return tokens.Operator
	default:
		return tokens.Admin
	}
}

// Operate does one of node.Verbs to the node id, and is durable when it returns. What is
// so already stays as it is, and is no error. What the node's state does not permit is a
// *node.RefusedError; store.ErrNotFound when there is no such node.
//
// EventReset also rewrites a record that cannot be read, and its bytes are kept.
func (r *Registry) Operate(ctx context.Context, id string, verb node.Event, by Operator, reason string) (View, error) {
	return r.operate(ctx, id, node.Input{Event: verb, Reason: reason}, by)
}

// Approve is Operate with EventApprove of one certain machine: that which
// node.Node.MachineName names. Where another one waits meanwhile, it is refused.
func (r *Registry) Approve(ctx context.Context, id, machine string, by Operator, reason string) (View, error) {
	return r.operate(ctx, id, node.Input{Event: node.EventApprove, Reason: reason, Machine: machine}, by)
}

func (r *Registry) operate(ctx context.Context, id string, in node.Input, by Operator) (View, error) {
	if !slices.Contains(node.Verbs, in.Event) {
		return View{}, fmt.Errorf("%q is nothing that an operator does", in.Event)
	}
	if by.Name == "" {
		return View{}, fmt.Errorf("%s of node %s: the operator has no name", in.Event, id)
	}
	in.Reason, in.By, in.Remote = words(in.Reason), by.Name, by.Remote
	n, made, err := r.apply(ctx, id, "", in, r.cfg.Now(), false)
	var corrupt *store.CorruptError
	if errors.As(err, &corrupt) && in.Event == node.EventReset {
		n, made, err = r.rewrite(ctx, id, in)
	}
	r.ordered(ctx, id, in, made, err)
	if err != nil {
		return View{}, err
	}
	return r.view(n), nil
}

// rewrite gives a node whose record cannot be read a new one.
func (r *Registry) rewrite(ctx context.Context, id string, in node.Input) (node.Node, []node.Transition, error) {
	now := r.cfg.Now()
	in.Reason = strings.TrimSpace(in.Reason + " (the record before could not be read; its bytes are kept in the store)")
	n, made, err := r.rules().Apply(node.New(id, now), in, now)
	if err != nil {
		return n, nil, err
	}
	if err := r.write(r.cfg.Store.Mend(ctx, n)); err != nil {
		return n, nil, fmt.Errorf("rewrite node %s: %w", id, err)
	}
	r.mu.Lock()
	delete(r.heard, id)
	delete(r.corrupt, id)
	r.unknown[id] = true // until the manifest is declared again
	r.mu.Unlock()
	r.logMade(ctx, id, made)
	return n, made, nil
}

// words makes an operator's text one line that may be stored, logged and shown.
func words(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s))
	if len(s) <= maxReason {
		return s
	}
	cut := maxReason - len("…")
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
