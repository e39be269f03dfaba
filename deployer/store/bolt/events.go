package bolt

import (
	"context"
	"encoding/binary"
	"encoding/json"

	"go.etcd.io/bbolt"

	"github.com/centra/plasmacloud/deployer/store"
)

// put stores events, and drops the oldest over those that are kept.
func (s *Store) put(tx *bbolt.Tx, events []store.Event) error {
	bucket := tx.Bucket(bucketEvents)
	for _, e := range events {
		number, err := bucket.NextSequence()
		if err != nil {
			return err
		}
		value, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := bucket.Put(binary.BigEndian.AppendUint64(nil, number), value); err != nil {
			return err
		}
		oldest := bucket.Cursor()
		for key, _ := oldest.First(); key != nil && binary.BigEndian.Uint64(key)+s.keep <= number; key, _ = oldest.First() {
			if err := bucket.Delete(key); err != nil {
				return err
			}
		}
	}
	return nil
}

// Append implements store.Store.
func (s *Store) Append(ctx context.Context, events ...store.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return closed(s.db.Batch(func(tx *bbolt.Tx) error { return s.put(tx, events) }))
}

// Events implements store.Store.
func (s *Store) Events(ctx context.Context, after string, limit int) (page store.Page, err error) {
	if err := ctx.Err(); err != nil {
		return page, err
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketEvents)
		cursor := bucket.Cursor()
		oldest, value := cursor.First()
		key := oldest
		last := bucket.Sequence() // that was read
		if oldest != nil {
			last = binary.BigEndian.Uint64(oldest) - 1
		}
		if after != "" {
			numbers, err := store.ReadCursor(after, s.epoch, 1)
			switch {
			case err != nil:
				return err
			case uint64(numbers[0]) < last || uint64(numbers[0]) > bucket.Sequence():
				return store.ErrCursorGone
			}
			last = uint64(numbers[0])
			key, value = cursor.Seek(binary.BigEndian.AppendUint64(nil, last+1))
		}
		for ; key != nil; key, value = cursor.Next() {
			if page.More = len(page.Events) == limit; page.More {
				break
			}
			e := store.DecodeEvents(value)[0]
			last = binary.BigEndian.Uint64(key)
			e.Cursor = store.MakeCursor(s.epoch, int64(last))
			page.Events = append(page.Events, e)
		}
		page.Next = store.MakeCursor(s.epoch, int64(last))
		return nil
	})
	return page, closed(err)
}

// Trim implements store.Store. There is nothing left to do: see put.
func (s *Store) Trim(ctx context.Context) error {
	return closed(s.db.View(func(*bbolt.Tx) error { return ctx.Err() }))
}
