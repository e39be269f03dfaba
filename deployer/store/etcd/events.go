package etcd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/centra/plasmacloud/deployer/store"
)

// The order of events is that of the revisions at which they were stored, which etcd
// gives out: no counter that all writers would have to agree on. A cursor is a revision
// and how many of its events were read.

// events are those of one transaction, each as JSON.
type events []json.RawMessage

func (e *events) add(more []store.Event) {
	for _, event := range more {
		value, err := json.Marshal(event)
		if err != nil {
			panic(err) // a type that JSON does not have
		}
		*e = append(*e, value)
	}
}

func (e events) size() (size int) {
	for _, event := range e {
		size += len(event)
	}
	return size
}

// opsToPut is two operations, or none where nothing happened.
func (s *Store) opsToPut(happened events) []clientv3.Op {
	if len(happened) == 0 {
		return nil
	}
	value, err := json.Marshal(happened)
	if err != nil {
		panic(err) // it is made of JSON
	}
	number := strconv.Itoa(len(happened))
	return []clientv3.Op{
		clientv3.OpPut(s.key("events", rand.Text()+"-"+number), string(value)),
		clientv3.OpPut(s.key("meta", "events_last"), number),
	}
}

// Append implements store.Store.
func (s *Store) Append(ctx context.Context, happened ...store.Event) error {
	if len(happened) == 0 {
		return ctx.Err()
	}
	mine, cancel, err := s.within(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	var all events
	all.add(happened)
	answer, err := s.client.Txn(mine).
		If(clientv3.Compare(clientv3.Value(s.schemaKey()), "=", schemaVersion)).
		Then(s.opsToPut(all)...).
		Else(s.opsToRead(nil)...).
		Commit()
	if err != nil {
		return s.failedFor(ctx, err)
	}
	if !answer.Succeeded {
		_, err = s.recordsRead(nil, answer)
	}
	return err
}

// place is a cursor: the events before the revision were read, and so many of those
// of the revision.
type place struct{ revision, read int64 }

func (s *Store) cursor(p place) string { return store.MakeCursor(s.epoch, p.revision, p.read) }

// pageKeys is how many of events/ are read at once. Each may have as many events as
// a transaction has nodes.
const pageKeys = 200

// Events implements store.Store.
func (s *Store) Events(ctx context.Context, after string, limit int) (store.Page, error) {
	var from place
	if after != "" {
		numbers, err := store.ReadCursor(after, s.epoch, 2)
		if err != nil {
			return store.Page{}, err
		}
		from = place{numbers[0], numbers[1]}
	}
	mine, cancel, err := s.within(ctx)
	if err != nil {
		return store.Page{}, err
	}
	defer cancel()
	ops := []clientv3.Op{
		clientv3.OpGet(s.schemaKey()),
		clientv3.OpGet(s.key("meta", "events_floor")),
		clientv3.OpGet(s.key("meta", "events_last")),
	}
	// To find the new ones etcd goes through all that are kept, so ask first whether there
	// are any.
	answer, err := s.ask(mine, ops...)
	if err != nil {
		return store.Page{}, s.failedFor(ctx, err)
	}
	news, err := s.news(&from, after, answer)
	if err != nil || !news {
		return store.Page{Next: s.cursor(from)}, err
	}
	answer, err = s.ask(mine, append(ops, clientv3.OpGet(s.key("events", ""), clientv3.WithPrefix(),
		clientv3.WithMinModRev(from.revision), clientv3.WithLimit(pageKeys),
		clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend)))...)
	if err != nil {
		return store.Page{}, s.failedFor(ctx, err)
	}
	if _, err := s.news(&from, after, answer); err != nil { // some may have been dropped
		return store.Page{}, err
	}
	return s.page(answer.Responses[3].GetResponseRange().Kvs, from, limit), nil
}

// news says whether something happened after from, by the first three responses of
// answer. Where there was no cursor, it makes from one.
func (s *Store) news(from *place, after string, answer *clientv3.TxnResponse) (bool, error) {
	if _, err := s.recordsRead(nil, answer); err != nil { // the schema
		return false, err
	}
	number := func(i int) (value, revision int64, err error) {
		kvs := answer.Responses[i].GetResponseRange().Kvs
		if len(kvs) == 0 {
			return 0, 0, nil
		}
		if value, err = strconv.ParseInt(string(kvs[0].Value), 10, 64); err != nil {
			return 0, 0, failuref("%s holds no number: %q", kvs[0].Key, kvs[0].Value)
		}
		return value, kvs[0].ModRevision, nil
	}
	floor, _, err := number(1)
	if err != nil {
		return false, err
	}
	count, last, err := number(2)
	if err != nil {
		return false, err
	}
	switch {
	case after == "" && last <= floor: // there are none
		*from = place{answer.Header.Revision + 1, 0}
		return false, nil
	case after == "":
		*from = place{floor + 1, 0}
	case from.revision <= floor, from.revision > answer.Header.Revision+1:
		return false, store.ErrCursorGone
	}
	return last > from.revision || last == from.revision && count > from.read, nil
}

// page takes the events after from out of kvs.
func (s *Store) page(kvs []*mvccpb.KeyValue, from place, limit int) store.Page {
	page := store.Page{More: len(kvs) == pageKeys}
	last := from
	for _, kv := range kvs {
		for i, event := range store.DecodeEvents(kv.Value) {
			at := place{kv.ModRevision, int64(i + 1)}
			if at.revision == from.revision && at.read <= from.read {
				continue
			}
			if len(page.Events) == limit {
				page.More = true
				page.Next = s.cursor(last)
				return page
			}
			event.Cursor, last = s.cursor(at), at
			page.Events = append(page.Events, event)
		}
	}
	page.Next = s.cursor(last)
	return page
}

// Trim implements store.Store. What is dropped goes together with the note on how far.
func (s *Store) Trim(ctx context.Context) error {
	mine, cancel, err := s.within(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	floor := s.key("meta", "events_floor")
	answer, err := s.ask(mine, clientv3.OpGet(s.schemaKey()), clientv3.OpGet(floor, clientv3.WithKeysOnly()),
		clientv3.OpGet(s.key("events", ""), clientv3.WithPrefix(), clientv3.WithKeysOnly(),
			clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend)))
	if err != nil {
		return s.failedFor(ctx, err)
	}
	if _, err := s.recordsRead(nil, answer); err != nil {
		return err
	}
	var floorRevision int64
	if kvs := answer.Responses[1].GetResponseRange().Kvs; len(kvs) > 0 {
		floorRevision = kvs[0].ModRevision
	}
	kept := 0
	kvs := answer.Responses[2].GetResponseRange().Kvs // the newest first
	old := len(kvs)
	for i, kv := range kvs {
		_, number, _ := strings.Cut(string(kv.Key[strings.LastIndexByte(string(kv.Key), '/')+1:]), "-")
		n, _ := strconv.Atoi(number)
		if kept += max(1, n); kept > s.cfg.KeptEvents && i > 0 {
			old = i
			break
		}
	}
	dropped := slices.Clone(kvs[old:])
	slices.Reverse(dropped)
	for part := range slices.Chunk(dropped, maxOps-2) {
		ops := []clientv3.Op{clientv3.OpPut(floor, strconv.FormatInt(part[len(part)-1].ModRevision, 10))}
		for _, kv := range part {
			ops = append(ops, clientv3.OpDelete(string(kv.Key)))
		}
		// Where the floor has moved, another one is at it.
		answer, err := s.client.Txn(mine).
			If(clientv3.Compare(clientv3.ModRevision(floor), "=", floorRevision)).
			Then(ops...).
			Commit()
		if err != nil {
			return s.failedFor(ctx, err)
		}
		if !answer.Succeeded {
			return nil
		}
		floorRevision = answer.Header.Revision
	}
	return nil
}
