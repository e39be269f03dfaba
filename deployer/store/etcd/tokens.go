package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// A join token is a key of its own, and a join writes it in the transaction that writes
// the node: of all deployers that let somebody join with it at the same time, one does,
// and the others try again with what it left.

// token is one as it was read, and as a transaction is to leave it.
type token struct {
	value    node.Token
	revision int64 // of the last write; 0: there is none
	err      error // a *store.CorruptError
	changed  bool  // value is not what was read
}

func (s *Store) tokenKey(name string) string { return s.key("join_tokens", name) }

func (s *Store) opsToReadTokens(names []string) (ops []clientv3.Op) {
	for _, name := range names {
		ops = append(ops, clientv3.OpGet(s.tokenKey(name)))
	}
	return ops
}

func (s *Store) opToPutToken(t node.Token) clientv3.Op {
	value, err := json.Marshal(t)
	if err != nil {
		panic(err) // a type that JSON does not have
	}
	return clientv3.OpPut(s.tokenKey(t.Name), string(value))
}

func (s *Store) newToken(name string, answer *etcdserverpb.ResponseOp) (t token) {
	if kvs := answer.GetResponseRange().Kvs; len(kvs) > 0 {
		t.revision = kvs[0].ModRevision
		t.value, t.err = store.DecodeToken(name, s.tokenKey(name), kvs[0].Value)
	}
	return t
}

// tokensOf reads the tokens that batch asks for.
func (s *Store) tokensOf(ctx context.Context, batch []*update) (map[string]token, error) {
	var names []string
	for _, u := range batch {
		if u.token != "" {
			names = append(names, u.token)
		}
	}
	return s.readTokens(ctx, names)
}

func (s *Store) readTokens(ctx context.Context, names []string) (map[string]token, error) {
	slices.Sort(names)
	tokens := map[string]token{}
	for part := range slices.Chunk(slices.Compact(names), maxOps-1) {
		answer, err := s.ask(ctx, append(s.opsToRead(nil), s.opsToReadTokens(part)...)...)
		if err != nil {
			return nil, s.failed(err)
		}
		if _, err := s.recordsRead(nil, answer); err != nil {
			return nil, err
		}
		for i, name := range part {
			tokens[name] = s.newToken(name, answer.Responses[1+i])
		}
	}
	return tokens, nil
}

// Token implements store.Store.
func (s *Store) Token(ctx context.Context, name string) (node.Token, error) {
	g := &get{name: name}
	if err := share(ctx, s, s.reads, g); err != nil {
		return node.Token{}, err
	}
	switch t := g.token; {
	case t.err != nil:
		return node.Token{}, t.err
	case t.revision == 0:
		return node.Token{}, store.ErrNoToken
	default:
		return t.value, nil
	}
}

// Tokens implements store.Store.
func (s *Store) Tokens(ctx context.Context) (all []node.Token, err error) {
	var broken []error
	var revision int64
	err = s.walk(ctx, "join_tokens", &revision, func(name string, kv *mvccpb.KeyValue) {
		t, err := store.DecodeToken(name, s.tokenKey(name), kv.Value)
		if err != nil {
			broken = append(broken, err)
			return
		}
		all = append(all, t)
	})
	return all, errors.Join(append(broken, err)...)
}

// PutToken implements store.Store.
func (s *Store) PutToken(ctx context.Context, t node.Token, entries ...store.Event) error {
	return s.changeToken(ctx, clientv3.Compare(clientv3.CreateRevision(s.tokenKey(t.Name)), "=", 0), s.opToPutToken(t), store.ErrTokenExists, entries)
}

// DeleteToken implements store.Store.
func (s *Store) DeleteToken(ctx context.Context, name string, entries ...store.Event) error {
	return s.changeToken(ctx, clientv3.Compare(clientv3.CreateRevision(s.tokenKey(name)), ">", 0), clientv3.OpDelete(s.tokenKey(name)), store.ErrNoToken, entries)
}

// changeToken does op and stores the entries of the audit log where condition holds;
// else it returns otherwise.
func (s *Store) changeToken(ctx context.Context, condition clientv3.Cmp, op clientv3.Op, otherwise error, entries []store.Event) error {
	mine, cancel, err := s.within(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	var all events
	all.add(entries)
	answer, err := s.client.Txn(mine).
		If(clientv3.Compare(clientv3.Value(s.schemaKey()), "=", s.schema), condition).
		Then(append(s.opsToPut(happened{auditLog: all}), op)...).
		Else(s.opsToRead(nil)...).
		Commit()
	if err != nil {
		return s.failedFor(ctx, err)
	}
	if answer.Succeeded {
		return nil
	}
	if _, err := s.recordsRead(nil, answer); err != nil {
		return err
	}
	return otherwise
}
