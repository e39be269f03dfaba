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

// journal is a log of events: the first part of their keys, and what its cursors begin
// with behind the epoch.
type journal struct{ kind, mark string }

var (
	eventLog = journal{"events", ""}
	auditLog = journal{"audit", "-audit"}
	journals = []journal{eventLog, auditLog}
)

// happened is what a transaction stores in the logs.
type happened map[journal]events

// add takes the events of a change, those of an operator for the audit log too.
func (h happened) add(more []store.Event) {
	for log, those := range map[journal][]store.Event{eventLog: more, auditLog: store.Audited(more)} {
		all := h[log]
		all.add(those)
		h[log] = all
	}
}

func (h happened) join(other happened) {
	for log, those := range other {
		h[log] = append(h[log], those...)
	}
}

func (h happened) size() (size int) {
	for _, those := range h {
		size += those.size()
	}
	return size
}

// maxLogOps is how many operations opsToPut is at most.
const maxLogOps = 4

// events are those of one transaction, each as JSON.
type events []json.RawMessage

func (e *events) add(more []store.Event) {
	for _, event := range more {
		value, err := marshal(event)
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

// opsToPut is two operations for each log in which something happened.
func (s *Store) opsToPut(h happened) (ops []clientv3.Op) {
	for _, log := range journals {
		those := h[log]
		if len(those) == 0 {
			continue
		}
		value, err := marshal(those)
		if err != nil {
			panic(err) // it is made of JSON
		}
		number := strconv.Itoa(len(those))
		ops = append(ops,
			clientv3.OpPut(s.key(log.kind, rand.Text()+"-"+number), string(value)),
			clientv3.OpPut(s.key("meta", log.kind+"_last"), number))
	}
	return ops
}

// Append implements store.Store.
func (s *Store) Append(ctx context.Context, events ...store.Event) error {
	return s.append(ctx, eventLog, events)
}

// AppendAudit implements store.Store.
func (s *Store) AppendAudit(ctx context.Context, entries ...store.Event) error {
	return s.append(ctx, auditLog, entries)
}

func (s *Store) append(ctx context.Context, log journal, more []store.Event) error {
	if len(more) == 0 {
		return ctx.Err()
	}
	mine, cancel, err := s.within(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	var all events
	all.add(more)
	answer, err := s.client.Txn(mine).
		If(clientv3.Compare(clientv3.Value(s.schemaKey()), "=", s.schema)).
		Then(s.opsToPut(happened{log: all})...).
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

func (s *Store) cursor(log journal, p place) string {
	return store.MakeCursor(s.epoch+log.mark, p.revision, p.read)
}

// pageKeys is how many of events/ are read at once. Each may have as many events as
// a transaction has nodes.
const pageKeys = 200

// Events implements store.Store.
func (s *Store) Events(ctx context.Context, after string, limit int) (store.Page, error) {
	return s.readLog(ctx, eventLog, after, limit)
}

// Audit implements store.Store.
func (s *Store) Audit(ctx context.Context, after string, limit int) (store.Page, error) {
	return s.readLog(ctx, auditLog, after, limit)
}

func (s *Store) readLog(ctx context.Context, log journal, after string, limit int) (store.Page, error) {
	var from place
	if after != "" {
		numbers, err := store.ReadCursor(after, s.epoch+log.mark, 2)
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
		clientv3.OpGet(s.key("meta", log.kind+"_floor")),
		clientv3.OpGet(s.key("meta", log.kind+"_last")),
	}
	// To find the new ones etcd goes through all that are kept, which takes it 10 ms and
	// more of 10,000, so ask first whether there are any.
	answer, err := s.ask(mine, ops...)
	if err != nil {
		return store.Page{}, s.failedFor(ctx, err)
	}
	news, err := s.news(&from, after, answer)
	if err != nil || !news {
		return store.Page{Next: s.cursor(log, from)}, err
	}
	answer, err = s.ask(mine, append(ops, clientv3.OpGet(s.key(log.kind, ""), clientv3.WithPrefix(),
		clientv3.WithMinModRev(from.revision), clientv3.WithLimit(pageKeys),
		clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend)))...)
	if err != nil {
		return store.Page{}, s.failedFor(ctx, err)
	}
	if _, err := s.news(&from, after, answer); err != nil { // some may have been dropped
		return store.Page{}, err
	}
	return s.page(log, answer.Responses[3].GetResponseRange().Kvs, from, limit), nil
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
func (s *Store) page(log journal, kvs []*mvccpb.KeyValue, from place, limit int) store.Page {
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
				page.Next = s.cursor(log, last)
				return page
			}
			event.Cursor, last = s.cursor(log, at), at
			page.Events = append(page.Events, event)
		}
	}
	page.Next = s.cursor(log, last)
	return page
}

// Trim implements store.Store. What is dropped goes together with the note on how far.
func (s *Store) Trim(ctx context.Context) error {
	for _, log := range journals {
		if err := s.trim(ctx, log); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) trim(ctx context.Context, log journal) error {
	mine, cancel, err := s.within(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	floor := s.key("meta", log.kind+"_floor")
	answer, err := s.ask(mine, clientv3.OpGet(s.schemaKey()), clientv3.OpGet(floor, clientv3.WithKeysOnly()),
		clientv3.OpGet(s.key(log.kind, ""), clientv3.WithPrefix(), clientv3.WithKeysOnly(),
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
