package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// record is one node as it was read.
type record struct {
	id       string
	value    []byte
	revision int64 // of the last write; 0: there is none
	node     node.Node
	err      error // store.ErrNotFound, or a *store.CorruptError

	seenRevision int64 // of the last write of seen/ID; 0: there is none
}

// lastSeen is the value of seen/ID. It counts while the record is the one that it was
// written for, so that what Update stores counts over what was seen before.
type lastSeen struct {
	At     time.Time `json:"at"`
	Record int64     `json:"record"` // its revision
}

// newRecord puts a node together from its two keys. seen may be nil.
func (s *Store) newRecord(id string, stored, seen *mvccpb.KeyValue) record {
	r := record{id: id, err: store.ErrNotFound}
	if seen != nil {
		r.seenRevision = seen.ModRevision
	}
	if stored == nil {
		return r
	}
	r.value, r.revision = stored.Value, stored.ModRevision
	if r.node, r.err = store.Decode(id, s.key("nodes", id), stored.Value); r.err != nil || seen == nil {
		return r
	}
	var heard lastSeen
	// What cannot be read here is made anew by the next heartbeat.
	if json.Unmarshal(seen.Value, &heard) == nil && heard.Record == r.revision {
		r.node.LastSeen = heard.At.UTC()
	}
	return r
}

// opsToRead is the schema, and two operations for each id.
func (s *Store) opsToRead(ids []string) []clientv3.Op {
	ops := []clientv3.Op{clientv3.OpGet(s.schemaKey())}
	for _, id := range ids {
		ops = append(ops, clientv3.OpGet(s.key("nodes", id)), clientv3.OpGet(s.key("seen", id)))
	}
	return ops
}

// recordsRead takes the answer to opsToRead apart.
func (s *Store) recordsRead(ids []string, answer *clientv3.TxnResponse) ([]record, error) {
	first := func(i int) *mvccpb.KeyValue {
		if kvs := answer.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			return kvs[0]
		}
		return nil
	}
	schema := first(0)
	if schema == nil {
		return nil, s.errGone()
	}
	if err := s.checkSchema(schema.Value); err != nil {
		return nil, err
	}
	records := make([]record, len(ids))
	for i, id := range ids {
		records[i] = s.newRecord(id, first(1+2*i), first(2+2*i))
	}
	return records, nil
}

// readAll reads at most maxBatch nodes in one transaction.
func (s *Store) readAll(ctx context.Context, ids []string) ([]record, error) {
	answer, err := s.ask(ctx, s.opsToRead(ids)...)
	if err != nil {
		return nil, s.failed(err)
	}
	return s.recordsRead(ids, answer)
}

// ask reads. A member that does not answer, or is going down, is no reason to fail
// while others may answer: the next attempt goes to another one.
func (s *Store) ask(ctx context.Context, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	const attempts = 3
	for attempt := 1; ; attempt++ {
		mine, cancel := context.WithCancel(ctx)
		if end, ok := ctx.Deadline(); ok && attempt < attempts {
			cancel()
			mine, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		}
		answer, err := s.client.Txn(mine).Then(ops...).Commit()
		cancel()
		if err == nil || attempt == attempts || ctx.Err() != nil {
			return answer, err
		}
		switch code, _ := answered(err); code {
		case codes.DeadlineExceeded:
		case codes.Unavailable:
			select {
			case <-time.After(time.Duration(attempt) * 50 * time.Millisecond):
			case <-ctx.Done():
				return nil, err
			}
		default:
			return nil, err
		}
	}
}

// get asks for a node, or for the token of that name.
type get struct {
	call
	id, name string
	record   record
	token    token
}

func (g *get) shared() *call { return &g.call }

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, id string) (node.Node, error) {
	g := &get{id: id}
	if err := share(ctx, s, s.reads, g); err != nil {
		return node.Node{}, err
	}
	return g.record.node, g.record.err
}

// read is one of those who serve Get.
func (s *Store) read() {
	for {
		batch := next(s, s.reads)
		if batch == nil {
			return
		}
		var ids, names []string
		for _, g := range batch {
			if g.name != "" {
				names = append(names, g.name)
			} else {
				ids = append(ids, g.id)
			}
		}
		ctx, cancel := until(batch)
		var records []record
		var tokens map[string]token
		var err error
		if len(ids) > 0 {
			records, err = s.readAll(ctx, ids)
		}
		if err == nil {
			tokens, err = s.readTokens(ctx, names)
		}
		cancel()
		for _, g := range batch {
			switch {
			case err != nil:
			case g.name != "":
				g.token = tokens[g.name]
			default:
				g.record, records = records[0], records[1:]
			}
			g.finish(err)
		}
	}
}

// pageSize is how many keys List asks for at once.
const pageSize = 500

// List implements store.Store. All of it is as of one revision.
func (s *Store) List(ctx context.Context) ([]node.Node, error) {
	var revision int64
	seen := map[string]*mvccpb.KeyValue{}
	err := s.walk(ctx, "seen", &revision, func(id string, kv *mvccpb.KeyValue) { seen[id] = kv })
	if err != nil {
		return nil, err
	}
	var nodes []node.Node
	var broken []error
	err = s.walk(ctx, "nodes", &revision, func(id string, kv *mvccpb.KeyValue) {
		r := s.newRecord(id, kv, seen[id])
		if r.err != nil {
			broken = append(broken, r.err)
			return
		}
		nodes = append(nodes, r.node)
	})
	if err != nil {
		return nodes, err
	}
	return nodes, errors.Join(broken...)
}

// walk visits what is below the prefix and kind, in order, as of revision. Where that
// is 0, it is set to the revision of the first page.
func (s *Store) walk(ctx context.Context, kind string, revision *int64, visit func(id string, kv *mvccpb.KeyValue)) error {
	prefix := s.key(kind, "")
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		page, cancel, err := s.within(ctx)
		if err != nil {
			return err
		}
		answer, err := s.ask(page, clientv3.OpGet(s.schemaKey()),
			clientv3.OpGet(from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(*revision)))
		cancel()
		if err != nil {
			return s.failedFor(ctx, err)
		}
		if _, err := s.recordsRead(nil, answer); err != nil {
			return err
		}
		if *revision == 0 {
			*revision = answer.Header.Revision
		}
		found := answer.Responses[1].GetResponseRange()
		for _, kv := range found.Kvs {
			visit(string(kv.Key[len(prefix):]), kv)
		}
		if !found.More || len(found.Kvs) == 0 {
			return nil
		}
		from = string(found.Kvs[len(found.Kvs)-1].Key) + "\x00"
	}
}
