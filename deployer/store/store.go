// Package store says what the deployer needs of the thing that keeps its nodes.
// Every implementation passes the suite in storetest.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
)

var (
	// ErrNotFound: no node has that id.
	ErrNotFound = errors.New("no such node")
	// ErrTooLarge: one record is larger than the store takes. The others can be written.
	ErrTooLarge = errors.New("too large")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("the store is closed")
)

// CorruptError is a record that cannot be read. The others can.
type CorruptError struct {
	ID    string // of the node
	Token string // its name, where the record is a token's
	Key   string // where the record is, in the store's own terms
	Err   error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("record %s is corrupt: %v", e.Key, e.Err)
}
func (e *CorruptError) Unwrap() error { return e.Err }

// Corrupt splits an error of List into the records that it is about and the rest.
func Corrupt(err error) (records []*CorruptError, rest error) {
	switch err := err.(type) { //nolint:errorlint // it takes the tree apart
	case nil:
		return nil, nil
	case *CorruptError:
		return []*CorruptError{err}, nil
	case interface{ Unwrap() []error }:
		for _, each := range err.Unwrap() {
			more, other := Corrupt(each)
			records, rest = append(records, more...), errors.Join(rest, other)
		}
		return records, rest
	default:
		return nil, err
	}
}

// Store keeps nodes. Its methods may be called concurrently. What the nodes that it
// returns refer to, lists and maps, may be shared with others: nobody changes it.
type Store interface {
	// Get returns the node, or ErrNotFound.
	Get(ctx context.Context, id string) (node.Node, error)

	// List returns all nodes by ascending id. On an error it returns what could be
	// read; each unreadable record is a *CorruptError within the error.
	List(ctx context.Context) ([]node.Node, error)

	// Update gives change the stored node, or a zero one and found false, and
	// stores what it returns, as one step that no other Update interleaves with.
	// What is stored is durable when Update returns. An error of change is returned
	// as it is and nothing is written; ErrUnchanged writes nothing and is no error, and
	// with ErrNoEvents the record is stored without the events of the change.
	// change may be called more than once and must not have side effects.
	Update(ctx context.Context, id string, change Change) error

	// Join is Update with the join token of that name, which changes in the same step.
	Join(ctx context.Context, id, token string, change JoinChange) error

	// Tokens returns all join tokens by ascending name. On an error it returns what could
	// be read, as List does.
	Tokens(ctx context.Context) ([]node.Token, error)

	// Token returns one, or ErrNoToken.
	Token(ctx context.Context, name string) (node.Token, error)

	// PutToken stores a new one, or returns ErrTokenExists. DeleteToken takes one away, or
	// returns ErrNoToken. Both store the entries of the audit log in the same step.
	PutToken(ctx context.Context, t node.Token, entries ...Event) error
	DeleteToken(ctx context.Context, name string, entries ...Event) error

	// Mend stores n in place of a record that Get finds corrupt, and keeps the bytes
	// of that one aside. Any other record stays as it is.
	Mend(ctx context.Context, n node.Node) error

	// Seen records when nodes were last heard. An unknown id and a time that is no
	// News are ignored. It changes nothing else about a node. What Update stores counts
	// over what Seen recorded before. With nobody heard it finds out whether the store
	// takes writes.
	Seen(ctx context.Context, heard map[string]time.Time) error

	// Update, Join and Mend also store, in the same step, the events that Happened derives
	// from the change, and those of Audited in the audit log. Append stores events that are
	// about no change.
	Append(ctx context.Context, events ...Event) error

	// Events returns up to limit events after the cursor, in the order in which they
	// were stored; "" is from the oldest on that is kept. No event is ever stored before
	// one that was returned. ErrBadCursor, and ErrCursorGone where some of those after
	// it are gone.
	Events(ctx context.Context, after string, limit int) (Page, error)

	// AppendAudit and Audit are Append and Events for the audit log.
	AppendAudit(ctx context.Context, entries ...Event) error
	Audit(ctx context.Context, after string, limit int) (Page, error)

	// Trim drops the oldest events over those that the store keeps, and the oldest entries
	// of the audit log. It is called now and then, by one of those who share the store.
	Trim(ctx context.Context) error

	// Close releases the store. Calls after it return ErrClosed.
	Close() error
}

// Change computes the new record from the old one.
type Change func(old node.Node, found bool) (node.Node, error)

// ErrUnchanged is what a Change returns to leave the record as it is.
var ErrUnchanged = errors.New("unchanged")

// ErrNoEvents is what a Change returns to have the record stored, and no events of it:
// the logs have them already, or will.
var ErrNoEvents = errors.New("no events")

// Decode reads the record of the node id, as all stores keep it. Where it cannot be
// read, the error is a *CorruptError with key in it.
func Decode(id, key string, value []byte) (node.Node, error) {
	var n node.Node
	if err := json.Unmarshal(value, &n); err != nil {
		return node.Node{}, &CorruptError{ID: id, Key: key, Err: err}
	}
	if n.ID != id || node.Lifecycle[n.State] == nil {
		return node.Node{}, &CorruptError{ID: id, Key: key, Err: fmt.Errorf("it holds id %q in state %q", n.ID, n.State)}
	}
	return n, nil
}

// News says whether hearing n at the given time is later than what is known of it. A
// node that was reset has forgotten when it was heard before.
func News(n node.Node, at time.Time) bool {
	return node.Later(n.LastSeen, at) && (!n.LastSeen.IsZero() || !at.Before(n.Since))
}
