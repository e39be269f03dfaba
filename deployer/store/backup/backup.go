// Package backup writes the nodes of a store into a file and puts them back, into the
// same kind of store or another: it is also the way from one kind to the other.
//
// A backup is JSON, a value a line: a head, the nodes by ascending id, and a foot that
// has their number and the SHA-256 of every byte before it. What is cut short or
// changed is found before anything is restored.
package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"sync"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// version is of the format. It changes when an older deployer would misread a file.
const version = 1

// maxBytes bounds what Read takes into memory.
const maxBytes = 1 << 30

type head struct {
	Version int       `json:"plasmacloud_deployer_backup"`
	MadeAt  time.Time `json:"made_at"`
}

type foot struct {
	Nodes  *int   `json:"nodes"`
	SHA256 string `json:"sha256"`
}

// Written is what Write did.
type Written struct {
	Nodes      int
	Unreadable []*store.CorruptError // records that were left out
}

// Write writes the nodes of s to w, as of one moment. Records that cannot be read are
// left out; the backup is good all the same.
func Write(ctx context.Context, w io.Writer, s store.Store, now time.Time) (Written, error) {
	nodes, err := s.List(ctx)
	done := Written{Nodes: len(nodes)}
	if done.Unreadable, err = store.Corrupt(err); err != nil {
		return done, fmt.Errorf("read the store: %w", err)
	}
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
	return done, json.NewEncoder(w).Encode(foot{Nodes: &done.Nodes, SHA256: hex.EncodeToString(sum.Sum(nil))})
}

// Read returns the nodes of a backup, all of them or an error, and when it was made.
func Read(r io.Reader) (nodes []node.Node, made time.Time, err error) {
	bad := func(format string, args ...any) ([]node.Node, time.Time, error) {
		return nil, time.Time{}, fmt.Errorf(format, args...)
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
	case err != nil && json.Unmarshal(first, &h) != nil, h.Version == 0:
		return bad("not a backup of plasmacloud-deployer")
	case h.Version != version:
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
	if f.SHA256 != hex.EncodeToString(sum[:]) || *f.Nodes != len(lines)-2 {
		return bad("the backup was changed or damaged: its sum is not that of its content")
	}
	for i, line := range lines[1 : len(lines)-1] {
		n, err := readNode(line)
		if err == nil && i > 0 && nodes[i-1].ID >= n.ID {
			err = fmt.Errorf("node %s is not behind node %s by its id", n.ID, nodes[i-1].ID)
		}
		if err != nil {
			return bad("line %d: %w", i+2, err)
		}
		nodes = append(nodes, n)
	}
	return nodes, h.MadeAt, nil
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

// writers is how many writes Restore has under way, so that they share transactions.
const writers = 128

// Restore puts nodes into s. A store that has other nodes, or has one of these
// otherwise, is left as it is. One that a Restore was interrupted in is completed.
func Restore(ctx context.Context, s store.Store, nodes []node.Node) error {
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

func taken(id string, number int) error {
	return fmt.Errorf("the store has nodes that the backup has not, or has otherwise: %s, among %d; restore into one without nodes", id, number)
}
