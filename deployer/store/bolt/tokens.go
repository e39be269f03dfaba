package bolt

import (
	"context"
	"encoding/json"
	"errors"

	"go.etcd.io/bbolt"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

func readToken(tx *bbolt.Tx, name string) (node.Token, error) {
	value := tx.Bucket(bucketTokens).Get([]byte(name))
	if value == nil {
		return node.Token{}, store.ErrNoToken
	}
	return store.DecodeToken(name, "join_tokens/"+name, value)
}

func putToken(tx *bbolt.Tx, t node.Token) error {
	value, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketTokens).Put([]byte(t.Name), value)
}

// Token implements store.Store.
func (s *Store) Token(ctx context.Context, name string) (t node.Token, err error) {
	if err := ctx.Err(); err != nil {
		return t, err
	}
	err = s.db.View(func(tx *bbolt.Tx) (err error) {
		t, err = readToken(tx, name)
		return err
	})
	return t, closed(err)
}

// Tokens implements store.Store.
func (s *Store) Tokens(ctx context.Context) (all []node.Token, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		var broken []error
		cursor := tx.Bucket(bucketTokens).Cursor()
		for name, _ := cursor.First(); name != nil; name, _ = cursor.Next() {
			t, err := readToken(tx, string(name))
			if err != nil {
				broken = append(broken, err)
				continue
			}
			all = append(all, t)
		}
		return errors.Join(broken...)
	})
	return all, closed(err)
}

// PutToken implements store.Store.
func (s *Store) PutToken(ctx context.Context, t node.Token, entries ...store.Event) error {
	return s.update(ctx, func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketTokens).Get([]byte(t.Name)) != nil {
			return store.ErrTokenExists
		}
		return errors.Join(putToken(tx, t), s.put(tx, bucketAudit, entries))
	})
}

// DeleteToken implements store.Store.
func (s *Store) DeleteToken(ctx context.Context, name string, entries ...store.Event) error {
	return s.update(ctx, func(tx *bbolt.Tx) error {
		tokens := tx.Bucket(bucketTokens)
		if tokens.Get([]byte(name)) == nil {
			return store.ErrNoToken
		}
		return errors.Join(tokens.Delete([]byte(name)), s.put(tx, bucketAudit, entries))
	})
}

// update is a transaction by itself, for what is rare.
func (s *Store) update(ctx context.Context, change func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.write.there(); err != nil {
		return err
	}
	return closed(s.db.Update(change))
}
