package store

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/centra/plasmacloud/deployer/node"
)

var (
	// ErrNoToken: there is no join token of that name.
	ErrNoToken = errors.New("no such token")
	// ErrTokenExists: there is a join token of that name already.
	ErrTokenExists = errors.New("there is a token of that name already")
)

// JoinChange is a Change that sees a join token too, the zero one where there is none,
// and says how that is then. A token that is not there stays so.
type JoinChange func(old node.Node, found bool, t node.Token) (node.Node, node.Token, error)

// DecodeToken reads the record of the token, as all stores keep it. Where it cannot be
// read, the error is a *CorruptError with key in it.
func DecodeToken(name, key string, value []byte) (node.Token, error) {
	var t node.Token
	if err := json.Unmarshal(value, &t); err != nil {
		return node.Token{}, &CorruptError{Token: name, Key: key, Err: err}
	}
	if t.Name != name || t.Hash == "" {
		return node.Token{}, &CorruptError{Token: name, Key: key, Err: fmt.Errorf("it holds the token %q", t.Name)}
	}
	return t, nil
}

// Audited is the entries of the audit log among events: what operators did.
func Audited(events []Event) []Event {
	var entries []Event
	for _, e := range events {
		if e.By != "" {
			e.Result = ResultDone
			entries = append(entries, e)
		}
	}
	return entries
}
