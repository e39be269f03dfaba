package deployer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// MaxTokens is how many join tokens there may be, those that have expired or are used up
// too: they are listed in one answer. Deployers that share a store count each for itself, so
// that tokens made at the same moment may be a few more.
const MaxTokens = 10_000

// ErrTooManyTokens: there are MaxTokens already.
var ErrTooManyTokens = errors.New("too many join tokens")

// CreateToken makes a join token with the name and the limits of t, and returns it
// together with the token itself, which nobody can ask for again: NAME.SECRET. A limit
// that is none is a *node.FieldError; store.ErrTokenExists where the name is taken, and
// ErrTooManyTokens where there are as many as there may be.
func (r *Registry) CreateToken(ctx context.Context, t node.Token, by Operator) (made node.Token, token string, err error) {
	now := r.cfg.Now().UTC().Truncate(msec)
	if err := t.Check(now); err != nil {
		return node.Token{}, "", err
	}
	r.creating.Lock() // from the count to the one that is made
	defer r.creating.Unlock()
	all, err := r.Tokens(ctx)
	if r.read(ctx, err) != nil {
		return node.Token{}, "", fmt.Errorf("count the tokens: %w", err)
	}
	if len(all) >= MaxTokens {
		return node.Token{}, "", ErrTooManyTokens
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	token = t.Name + "." + hex.EncodeToString(secret)
	made = node.Token{
		Name: t.Name, Hash: node.HashSecret(token), Node: t.Node, Role: t.Role, Uses: t.Uses,
		Created: now, CreatedBy: by.Name,
	}
	if !t.Expires.IsZero() {
		made.Expires = t.Expires.UTC().Truncate(msec)
	}
	e := r.entry(by, store.EventTokenCreate, store.ResultDone)
	e.Token = t.Name
	if err := r.write(r.cfg.Store.PutToken(ctx, made, e)); err != nil {
		return node.Token{}, "", fmt.Errorf("create the token %s: %w", t.Name, err)
	}
	r.logAudit(ctx, e)
	return made, token, nil
}

// Tokens returns the join tokens by ascending name. Those that cannot be read are left
// out, and logged.
func (r *Registry) Tokens(ctx context.Context) ([]node.Token, error) {
	tokens, err := r.cfg.Store.Tokens(ctx)
	records, err := store.Corrupt(err)
	for _, record := range records {
		r.cfg.Logger.ErrorContext(ctx, "join token left out, its record cannot be read", "error", record, "mend", "plasmactl token revoke")
	}
	return tokens, err
}

// RevokeToken takes a join token away, or returns store.ErrNoToken. Nodes that joined
// with it stay joined.
func (r *Registry) RevokeToken(ctx context.Context, name string, by Operator) error {
	if !node.ValidTokenName(name) {
		return store.ErrNoToken
	}
	e := r.entry(by, store.EventTokenRevoke, store.ResultDone)
	e.Token = name
	if err := r.write(r.cfg.Store.DeleteToken(ctx, name, e)); err != nil {
		return fmt.Errorf("revoke the token %s: %w", name, err)
	}
	r.logAudit(ctx, e)
	return nil
}

// offered judges the token that came with a report, where n does not know the sender by
// its secret and the store may have the token; its name is returned then.
func (r *Registry) offered(ctx context.Context, n node.Node, report *node.Report) (token string, err error) {
	c := report.Credentials
	if !n.Needs(c) {
		return "", nil
	}
	t, err := r.cfg.Store.Token(ctx, c.Offer.Name)
	if err = r.read(ctx, err); err != nil && !errors.Is(err, store.ErrNoToken) {
		return "", fmt.Errorf("read the join token of node %s: %w", n.ID, err)
	}
	report.Credentials = c.Judge(t, r.cfg.Now())
	return c.Offer.Name, nil
}
