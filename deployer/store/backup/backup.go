// Package backup writes the nodes and join tokens of a store into a file and puts them back, into the
// same kind of store or another: it is also the way from one kind to the other.
//
// A backup is JSON, a value a line: a head, the nodes by ascending id, the join tokens by
// ascending name, and a foot that has their numbers and the SHA-256 of every byte before it. What is cut short or
// changed is found before anything is restored.
package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// version is of the format. It changes when an older deployer would misread a file.
// Version 1 has no tokens.
const version = 2

// maxBytes bounds what Read takes into memory.
const maxBytes = 1 << 30

type head struct {
	Version int       `json:"plasmacloud_deployer_backup"`
	MadeAt  time.Time `json:"made_at"`
}

// tokenLine tells a token from a node.
type tokenLine struct {
	Token *node.Token `json:"token"`
}

type foot struct {
	Nodes  *int   `json:"nodes"`
	Tokens int    `json:"tokens,omitempty"`
	SHA256 string `json:"sha256"`
}

// Written is what Write did.
type Written struct {
	Nodes      int
	Tokens     int
	Unreadable []*store.CorruptError // records that were left out
}

// Content is what a backup has.
type Content struct {
	Nodes  []node.Node
	Tokens []node.Token
	Made   time.Time
}

// Write writes the nodes of s to w, as of one moment, and then its join tokens. Records that cannot be read are
// left out; the backup is good all the same.
func Write(ctx context.Context, w io.Writer, s store.Store, now time.Time) (Written, error) {
	nodes, err := s.List(ctx)
	done := Written{Nodes: len(nodes)}
	if done.Unreadable, err = store.Corrupt(err); err != nil {
		return done, fmt.Errorf("read the store: %w", err)
	}
	tokens, err := s.Tokens(ctx)
	more, err := store.Corrupt(err)
	if err != nil {
		return done, fmt.Errorf("read the join tokens: %w", err)
	}
	done.Tokens, done.Unreadable = len(tokens), append(done.Unreadable, more...)
	sum := sha256.New()
	out := json.NewEncoder(io.MultiWriter(w, sum))
	if err := out.Encode(head{Version: version, MadeAt: now.UTC()}); err != nil {
		return done, err
	}
	for _, n := range nodes {
		if err := out.Encode(n); err != nil {
			return done, err
		}
	}
	for _, t := range tokens {
		if err := out.Encode(tokenLine{&t}); err != nil {
			return done, err
		}
	}
	return done, json.NewEncoder(w).Encode(foot{Nodes: &done.Nodes, Tokens: done.Tokens, SHA256: hex.EncodeToString(sum.Sum(nil))})
}

// Read returns what a backup has, all of it or an error.
func Read(r io.Reader) (c Content, err error) {
	bad := func(format string, args ...any) (Content, error) {
		return Content{}, fmt.Errorf(format, args...)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	switch {
	case err != nil:
		return bad("read the backup: %w", err)
	case len(data) > maxBytes:
		return bad("larger than %d bytes", maxBytes)
	}
	first, _, _ := bytes.Cut(data, []byte("\n"))
	var h head
	switch err := strict(first, &h); {
	case err != nil && json.Unmarshal(first, &h) != nil, h.Version < 1:
		return bad("not a backup of plasmacloud-deployer")
	case h.Version > version:
		return bad("a backup of version %d, and this deployer reads %d; use the deployer that made it", h.Version, version)
	case err != nil:
		return bad("line 1: %w", err)
	}
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	last := lines[len(lines)-1]
	var f foot
	if !bytes.HasSuffix(data, []byte("\n")) || strict(last, &f) != nil || f.Nodes == nil {
		return bad("the backup is cut short: it does not end with its sum")
	}
	sum := sha256.Sum256(data[:len(data)-len(last)-1])
	lines = lines[1 : len(lines)-1]
	if f.SHA256 != hex.EncodeToString(sum[:]) || *f.Nodes < 0 || f.Tokens < 0 || *f.Nodes+f.Tokens != len(lines) {
		return bad("the backup was changed or damaged: its sum is not that of its content")
	}
	c.Made = h.MadeAt
	for i, line := range lines[:*f.Nodes] {
		n, err := readNode(line)
		if err == nil && i > 0 && c.Nodes[i-1].ID >= n.ID {
			err = fmt.Errorf("node %s is not behind node %s by its id", n.ID, c.Nodes[i-1].ID)
		}
		if err != nil {
			return bad("line %d: %w", i+2, err)
		}
		c.Nodes = append(c.Nodes, n)
	}
	for i, line := range lines[*f.Nodes:] {
		t, err := readToken(line)
		if err == nil && i > 0 && c.Tokens[i-1].Name >= t.Name {
			err = fmt.Errorf("the token %s is not behind the token %s by its name", t.Name, c.Tokens[i-1].Name)
		}
		if err != nil {
			return bad("line %d: %w", *f.Nodes+i+2, err)
		}
		c.Tokens = append(c.Tokens, t)
	}
	return c, nil
}

// strict decodes one value and refuses keys that this deployer would lose.
func strict(line []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

func readNode(line []byte) (node.Node, error) {
	var n node.Node
	if err := strict(line, &n); err != nil {
		return n, fmt.Errorf("not a node: %w", err)
	}
	if !node.ValidID(n.ID) {
		return n, fmt.Errorf("node %q: not a node's id", n.ID)
	}
	return store.Decode(n.ID, "of node "+n.ID, line)
}

func readToken(line []byte) (node.Token, error) {
	var t tokenLine
	switch err := strict(line, &t); {
	case err != nil:
		return node.Token{}, fmt.Errorf("not a token: %w", err)
	case t.Token == nil || !node.ValidTokenName(t.Token.Name) || t.Token.Hash == "":
		return node.Token{}, errors.New("not a token")
	}
	return *t.Token, nil
}

// writers is how many writes Restore has under way, so that they share transactions.
const writers = 128

// Restore puts what a backup has into s. A store that has other nodes or tokens, or has
// one of these otherwise, is left as it is. One that a Restore was interrupted in is
// completed.
func Restore(ctx context.Context, s store.Store, c Content) error {
	nodes := c.Nodes
	there, err := s.List(ctx)
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	wanted := make(map[string]node.Node, len(nodes))
	for _, n := range nodes {
		wanted[n.ID] = n
	}
	for _, n := range there {
		if w, ok := wanted[n.ID]; !ok || !reflect.DeepEqual(n, w) {
			return taken(n.ID, len(there))
		}
	}

	if err := restoreTokens(ctx, s, c.Tokens); err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	slots := make(chan struct{}, writers)
	for _, n := range nodes {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		all.Go(func() {
			defer func() { <-slots }()
			err := s.Update(ctx, n.ID, func(old node.Node, found bool) (node.Node, error) {
				switch {
				case !found:
					return n, nil
				case reflect.DeepEqual(old, n):
					return n, store.ErrUnchanged
				default: // written meanwhile
					return old, taken(n.ID, 1)
				}
			})
			if err != nil {
				cancel(fmt.Errorf("node %s: %w", n.ID, err))
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

func restoreTokens(ctx context.Context, s store.Store, tokens []node.Token) error {
	there, err := s.Tokens(ctx)
	if err != nil {
		return fmt.Errorf("read the join tokens: %w", err)
	}
	for _, t := range there {
		if !slices.Contains(tokens, t) {
			return fmt.Errorf("the store has join tokens that the backup has not, or has otherwise: %s, among %d; restore into one without", t.Name, len(there))
		}
	}
	for _, t := range tokens {
		if slices.Contains(there, t) {
			continue
		}
		if err := s.PutToken(ctx, t); err != nil {
			return fmt.Errorf("token %s: %w", t.Name, err)
		}
	}
	return nil
}

func taken(id string, number int) error {
	return fmt.Errorf("the store has nodes that the backup has not, or has otherwise: %s, among %d; restore into one without nodes", id, number)
}
