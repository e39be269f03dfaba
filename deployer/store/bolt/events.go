package bolt

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"

	"go.etcd.io/bbolt"

	"github.com/centra/plasmacloud/deployer/store"
)

// happened stores the events of a change, those of an operator in the audit log too.
func (s *Store) happened(tx *bbolt.Tx, events []store.Event) error {
	return errors.Join(s.put(tx, bucketEvents, events), s.put(tx, bucketAudit, store.Audited(events)))
}

// put stores events in the log, and drops the oldest over those that are kept.
func (s *Store) put(tx *bbolt.Tx, log []byte, events []store.Event) error {
	bucket := tx.Bucket(log)
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
	return s.append(ctx, bucketEvents, events)
}

// AppendAudit implements store.Store.
func (s *Store) AppendAudit(ctx context.Context, entries ...store.Event) error {
	return s.append(ctx, bucketAudit, entries)
}

func (s *Store) append(ctx context.Context, log []byte, events []store.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return closed(s.write.do(ctx, func(tx *txn) error { return s.put(tx.Tx, log, events) }))
}

// Events implements store.Store.
func (s *Store) Events(ctx context.Context, after string, limit int) (store.Page, error) {
	return s.page(ctx, bucketEvents, s.epoch, after, limit)
}

// Audit implements store.Store.
func (s *Store) Audit(ctx context.Context, after string, limit int) (store.Page, error) {
	return s.page(ctx, bucketAudit, s.epoch+"-audit", after, limit)
}

func (s *Store) page(ctx context.Context, log []byte, epoch, after string, limit int) (page store.Page, err error) {
	if err := ctx.Err(); err != nil {
		return page, err
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(log)
		cursor := bucket.Cursor()
		oldest, value := cursor.First()
		key := oldest
		last := bucket.Sequence() // that was read
		if oldest != nil {
			last = binary.BigEndian.Uint64(oldest) - 1
		}
		if after != "" {
			numbers, err := store.ReadCursor(after, epoch, 1)
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
			e.Cursor = store.MakeCursor(epoch, int64(last))
			page.Events = append(page.Events, e)
		}
		page.Next = store.MakeCursor(epoch, int64(last))
		return nil
	})
	return page, closed(err)
}

// Trim implements store.Store. There is nothing left to do: see put.
func (s *Store) Trim(ctx context.Context) error {
	return closed(s.db.View(func(*bbolt.Tx) error { return ctx.Err() }))
}
