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
	if err := s.put(tx, bucketEvents, events); err != nil {
		return err
	}
	return s.put(tx, bucketAudit, store.Audited(events))
}

// trimEvery is how many events come between two looks at the oldest.
const trimEvery = 100

// put stores events in the log, which has at most trimEvery more than are kept.
func (s *Store) put(tx *bbolt.Tx, log []byte, events []store.Event) error {
	if len(events) == 0 {
		return nil
	}
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
		if number%trimEvery == 0 {
			if err := s.trim(bucket); err != nil {
				return err
			}
		}
	}
	return nil
}

// trim drops the oldest over those that are kept.
func (s *Store) trim(log *bbolt.Bucket) error {
	oldest := log.Cursor()
	for key, _ := oldest.First(); s.old(log, key); key, _ = oldest.First() {
		if err := log.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// old says whether key, nil for none, is of an event over those that are kept.
func (s *Store) old(log *bbolt.Bucket, key []byte) bool {
	return key != nil && binary.BigEndian.Uint64(key)+s.keep <= log.Sequence()
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

// Trim implements store.Store.
func (s *Store) Trim(ctx context.Context) error {
	logs := [][]byte{bucketEvents, bucketAudit}
	old := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		for _, log := range logs {
			first, _ := tx.Bucket(log).Cursor().First()
			old = old || s.old(tx.Bucket(log), first)
		}
		return ctx.Err()
	})
	if err != nil || !old {
		return closed(err)
	}
	return closed(s.write.do(ctx, func(tx *txn) error {
		var failed []error
		for _, log := range logs {
			failed = append(failed, s.trim(tx.Bucket(log)))
		}
		return errors.Join(failed...)
	}))
}
