package etcd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

type update struct {
	call
	id     string
	token  string // name of the one that change sees; "" is none
	change store.JoinChange
	result error // of the change
}

func (u *update) shared() *call { return &u.call }

// Update implements store.Store. An error other than the change's own may leave it
// open whether the record was written: an answer that did not come tells nothing.
func (s *Store) Update(ctx context.Context, id string, change store.Change) error {
	return s.Join(ctx, id, "", func(old node.Node, found bool, t node.Token) (node.Node, node.Token, error) {
		changed, err := change(old, found)
		return changed, t, err
	})
}

// Join implements store.Store. Of its errors the same is true as of those of Update.
func (s *Store) Join(ctx context.Context, id, token string, change store.JoinChange) error {
	u := &update{id: id, token: token, change: change}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(id))
	return share(ctx, s, s.writes[hash.Sum32()%writers], u)
}

// write is one of those who serve Update.
func (s *Store) write(queue <-chan *update) {
	for {
		batch := next(s, queue)
		if batch == nil {
			return
		}
		ctx, cancel := until(batch)
		s.commit(ctx, batch)
		cancel()
	}
}

// group is the updates of one node in a batch, in the order in which they came. One
// write has them all.
type group struct {
	record   record
	updates  []*update
	value    []byte   // to write; nil: nothing
	happened happened // with it
}

// compute runs the changes on the record and the tokens, each on what the one before it
// made.
func (g *group) compute(tokens map[string]token) {
	current, found, corrupt := g.record.node, g.record.err == nil, !errors.Is(g.record.err, store.ErrNotFound)
	g.value, g.happened = nil, happened{}
	for _, u := range g.updates {
		t := tokens[u.token]
		switch {
		case !found && corrupt:
			u.result = g.record.err
			continue
		case t.err != nil:
			u.result = t.err
			continue
		}
		changed, used, err := u.change(current, found, t.value)
		silent := errors.Is(err, store.ErrNoEvents)
		if silent {
			err = nil
		}
		var value []byte
		if err == nil {
			value, err = encode(g.record.id, changed)
		}
		u.result = err
		if err != nil {
			if errors.Is(err, store.ErrUnchanged) {
				u.result = nil
			}
			continue
		}
		if used != t.value && t.revision != 0 {
			t.value, t.changed = used, true
			tokens[u.token] = t
		}
		if !silent {
			g.happened.add(store.Happened(current, found, changed))
		}
		current, found, g.value = changed, true, value
	}
}

func encode(id string, n node.Node) ([]byte, error) {
	value, err := marshal(n)
	if err == nil && len(value) > maxBytes {
		err = fmt.Errorf("%w: the record of node %s has %d bytes, more than the %d that go into etcd", store.ErrTooLarge, id, len(value), maxBytes)
	}
	return value, err
}

// marshal is v as JSON without the escapes that HTML wants: these make six bytes of one,
// and a node chooses what it says.
func marshal(v any) ([]byte, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), err
}

// finish ends all updates of g: with err, or with what their changes gave.
func (g *group) finish(err error) {
	for _, u := range g.updates {
		if err != nil {
			u.finish(err)
		} else {
			u.finish(u.result)
		}
	}
}

// commit reads the records of batch, changes them, and writes them where they are
// still as they were read; the others are tried again on what is there now.
func (s *Store) commit(ctx context.Context, batch []*update) {
	todo, err := s.groups(ctx, batch)
	var tokens map[string]token
	if err == nil {
		tokens, err = s.tokensOf(ctx, batch)
	}
	if err != nil {
		for _, u := range batch {
			u.finish(err)
		}
		return
	}
	for len(todo) > 0 {
		part, rest := s.compute(todo, tokens)
		todo = rest
		if len(part) == 0 {
			continue
		}
		swapped, err := s.swap(ctx, part, tokens)
		if err == nil && !swapped {
			todo = append(todo, part...)
			continue
		}
		for _, g := range part {
			g.finish(err)
		}
		if err != nil && len(tokens) > 0 && len(todo) > 0 { // what was not written does not count
			if tokens, err = s.tokensOf(ctx, batch); err != nil {
				for _, g := range todo {
					g.finish(err)
				}
				return
			}
		}
	}
}

// compute changes the first of groups, as many as one request can carry. Those that
// write nothing end here, unless what another one of them does to a token is why: that
// may come to nothing.
func (s *Store) compute(groups []*group, tokens map[string]token) (part, rest []*group) {
	size := 0
	names := map[string]bool{}
	for i, g := range groups {
		before := maps.Clone(tokens)
		g.compute(tokens)
		unsure := slices.ContainsFunc(g.updates, func(u *update) bool { return tokens[u.token].changed })
		if g.value == nil && !unsure {
			g.finish(nil)
			continue
		}
		size += len(g.value) + g.happened.size()
		for _, u := range g.updates {
			if u.token != "" {
				names[u.token] = true
			}
		}
		checks, puts := 1+2*(len(part)+1)+len(names), len(part)+1+len(names)+maxLogOps
		if len(part) > 0 && (size > maxBytes || max(checks, puts) > maxOps) {
			maps.Copy(tokens, before)
			return part, groups[i:]
		}
		part = append(part, g)
	}
	return part, nil
}

// groups are the updates by node, with the nodes' records.
func (s *Store) groups(ctx context.Context, batch []*update) ([]*group, error) {
	var ids []string
	byID := map[string]*group{}
	for _, u := range batch {
		if byID[u.id] == nil {
			byID[u.id] = &group{}
			ids = append(ids, u.id)
		}
		byID[u.id].updates = append(byID[u.id].updates, u)
	}
	records, err := s.readAll(ctx, ids)
	if err != nil {
		return nil, err
	}
	groups := make([]*group, len(records))
	for i, r := range records {
		groups[i] = byID[r.id]
		groups[i].record = r
	}
	return groups, nil
}

// swap writes all of groups and the tokens that they changed, or nothing, and then reads
// them anew.
func (s *Store) swap(ctx context.Context, groups []*group, tokens map[string]token) (swapped bool, err error) {
	unchanged := []clientv3.Cmp{clientv3.Compare(clientv3.Value(s.schemaKey()), "=", s.schema)}
	var puts []clientv3.Op
	var ids, names []string
	all := happened{}
	for _, g := range groups {
		all.join(g.happened)
		key := s.key("nodes", g.record.id)
		// A heartbeat stored since the read would be forgotten: it counts for the record
		// that is replaced here.
		unchanged = append(unchanged,
			clientv3.Compare(clientv3.ModRevision(key), "=", g.record.revision),
			clientv3.Compare(clientv3.ModRevision(s.key("seen", g.record.id)), "=", g.record.seenRevision))
		if g.value != nil {
			puts = append(puts, clientv3.OpPut(key, string(g.value)))
		}
		ids = append(ids, g.record.id)
		for _, u := range g.updates {
			if u.token != "" && !slices.Contains(names, u.token) {
				names = append(names, u.token)
			}
		}
	}
	for _, name := range names {
		t := tokens[name]
		unchanged = append(unchanged, clientv3.Compare(clientv3.ModRevision(s.tokenKey(name)), "=", t.revision))
		if t.changed {
			puts = append(puts, s.opToPutToken(t.value))
		}
	}
	puts = append(puts, s.opsToPut(all)...)
	answer, err := s.client.Txn(ctx).If(unchanged...).Then(puts...).Else(append(s.opsToRead(ids), s.opsToReadTokens(names)...)...).Commit()
	if err != nil {
		return false, s.failed(err)
	}
	if answer.Succeeded {
		for _, name := range names {
			if t := tokens[name]; t.changed {
				t.revision, t.changed = answer.Header.Revision, false
				tokens[name] = t
			}
		}
		return true, nil
	}
	records, err := s.recordsRead(ids, answer)
	if err != nil {
		return false, err
	}
	for i, g := range groups {
		g.record = records[i]
	}
	for i, name := range names {
		tokens[name] = s.newToken(name, answer.Responses[1+2*len(ids)+i])
	}
	return false, nil
}

// Mend implements store.Store.
func (s *Store) Mend(ctx context.Context, n node.Node) error {
	caller := ctx
	ctx, cancel, err := s.within(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	value, err := encode(n.ID, n)
	if err != nil {
		return err
	}
	mended := happened{}
	mended.add(store.Happened(node.Node{}, false, n))
	for {
		records, err := s.readAll(ctx, []string{n.ID})
		if err != nil {
			return s.failedFor(caller, err)
		}
		bad := records[0]
		var corrupt *store.CorruptError
		if !errors.As(bad.err, &corrupt) {
			return nil
		}
		key := s.key("nodes", n.ID)
		answer, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.Value(s.schemaKey()), "=", s.schema),
				clientv3.Compare(clientv3.ModRevision(key), "=", bad.revision)).
			Then(append(s.opsToPut(mended),
				clientv3.OpPut(s.key("corrupt", n.ID, strconv.FormatInt(bad.revision, 10)), string(bad.value)),
				clientv3.OpPut(key, string(value)))...).
			Commit()
		if err != nil {
			return s.failedFor(caller, err)
		}
		if answer.Succeeded {
			return nil
		}
	}
}

// Seen implements store.Store. With nobody heard it writes all the same, to find out
// whether etcd takes writes.
func (s *Store) Seen(ctx context.Context, heard map[string]time.Time) error {
	if len(heard) == 0 {
		return s.probe(ctx)
	}
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(heard)), maxBatch) {
		if err := s.seen(ctx, ids, heard); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) probe(ctx context.Context) error {
	mine, cancel, err := s.within(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if _, err := s.client.Put(mine, s.key("meta", "probe"), time.Now().UTC().Format(time.RFC3339)); err != nil {
		return s.failedFor(ctx, err)
	}
	return nil
}

// seen records at most maxBatch of heard.
func (s *Store) seen(ctx context.Context, ids []string, heard map[string]time.Time) error {
	caller := ctx
	ctx, cancel, err := s.within(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	for {
		records, err := s.readAll(ctx, ids)
		if err != nil {
			return s.failedFor(caller, err)
		}
		unchanged := []clientv3.Cmp{clientv3.Compare(clientv3.Value(s.schemaKey()), "=", s.schema)}
		var puts []clientv3.Op
		for _, r := range records {
			if r.err != nil || !store.News(r.node, heard[r.id]) {
				continue
			}
			value, err := json.Marshal(lastSeen{At: heard[r.id].UTC(), Record: r.revision})
			if err != nil {
				return err
			}
			key := s.key("seen", r.id)
			unchanged = append(unchanged,
				clientv3.Compare(clientv3.ModRevision(s.key("nodes", r.id)), "=", r.revision),
				clientv3.Compare(clientv3.ModRevision(key), "=", r.seenRevision))
			puts = append(puts, clientv3.OpPut(key, string(value)))
		}
		if len(puts) == 0 {
			return nil
		}
		answer, err := s.client.Txn(ctx).If(unchanged...).Then(puts...).Commit()
		if err != nil {
			return s.failedFor(caller, err)
		}
		if answer.Succeeded {
			return nil
		}
	}
}
