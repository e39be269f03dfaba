// Package etcd keeps the deployer's nodes behind the etcd v3 API, in etcd itself or
// in what speaks the same API.
//
// Any number of deployers may use one prefix at the same time. A record is written
// only where it is still the one that was read (compare-and-swap on its revision),
// and every read is linearizable, so each deployer answers with what all of them
// acknowledged. Callers that come at the same time share transactions, which makes a
// storm of them cheap; nothing waits for company.
//
// Keys below the prefix:
//
//	meta/schema_version    store.SchemaVersion; every transaction depends on it
//	meta/cluster           the cluster whose nodes these are
//	meta/probe             written to find out whether etcd takes writes
//	nodes/ID               JSON of node.Node
//	seen/ID                when the node was last heard, and the revision of the record that it belongs to
//	corrupt/ID/REVISION    bytes that could not be read, kept by Mend
//	events/RANDOM-NUMBER   JSON list of NUMBER events that were stored in one transaction
//	meta/events_epoch      name of this log of events
//	meta/events_last       written with each of events/; their number
//	meta/events_floor      the revision up to which events were dropped
//	join_tokens/NAME       JSON of node.Token
//	audit/, meta/audit_*   as events/ and meta/events_*
//	leader                 name of the deployer that looks after the deadlines, bound to its lease
package etcd

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/centra/plasmacloud/deployer/store"
)

// Limits that etcd has by default: --max-txn-ops and --max-request-bytes, the latter
// with room for the rest of a request.
const (
	maxOps   = 128
	maxBytes = 1 << 20
)

// maxBatch is how many nodes share a transaction: each takes two operations, the
// schema one.
const maxBatch = (maxOps - 1) / 2

// How many transactions of one kind may be under way at once.
const (
	readers = 4
	writers = 4
)

// Config says which etcd and how. Zero values mean the defaults beside them.
type Config struct {
	Endpoints []string    // URLs: http://HOST:PORT or https://HOST:PORT
	Prefix    string      // of all keys; "/plasmacloud/"
	TLS       *tls.Config // nil: the system's roots for https
	Username  string      // "": no authentication
	Password  string
	Timeout   time.Duration // of every call; 3s
	Logger    *slog.Logger  // nil: slog.Default()

	KeptEvents int  // 0: store.KeptEvents
	KeepSchema bool // leave what is of an older version what it is
}

// Store is a store.Store behind the etcd v3 API.
type Store struct {
	cfg    Config
	client *clientv3.Client

	ctx     context.Context // ends with Close
	close   context.CancelFunc
	working sync.WaitGroup

	reads  chan *get
	writes [writers]chan *update // by id, so that no two of ours race for one record

	leading atomic.Bool
	schema  string // the version below the prefix
	epoch   string // of the events
}

var _ store.Store = (*Store)(nil)

// Open connects, and lays the schema below a prefix that has none. An etcd that does
// not answer within the timeout is an error.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg.Prefix = cmp.Or(cfg.Prefix, "/plasmacloud/")
	cfg.Timeout = cmp.Or(cfg.Timeout, 3*time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.KeptEvents = cmp.Or(cfg.KeptEvents, store.KeptEvents)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints,
		TLS:       cfg.TLS,
		Username:  cfg.Username,
		Password:  cfg.Password,
		// A member that is stopped or cut off keeps its connection: without a ping, all
		// calls would go on waiting for it while the other members answer.
		DialKeepAliveTime:    10 * time.Second, // gRPC's least
		DialKeepAliveTimeout: cfg.Timeout,
		DialTimeout:          cfg.Timeout,
		PermitWithoutStream:  true,
		// An etcd that comes back after an hour has to be found at once; by default that
		// takes up to two minutes.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: cfg.Timeout,
		})},
		Logger: zap.NewNop(), // errors reach the caller, who logs them
	})
	s := &Store{cfg: cfg, client: client, reads: make(chan *get)}
	if err != nil {
		return nil, s.unopened(ctx, err)
	}
	if err := s.prepare(ctx); err != nil {
		_ = client.Close() // the first error says it all
		return nil, s.unopened(ctx, err)
	}
	s.ctx, s.close = context.WithCancel(context.Background())
	for range readers {
		s.working.Go(s.read)
	}
	for i := range s.writes {
		s.writes[i] = make(chan *update)
		s.working.Go(func() { s.write(s.writes[i]) })
	}
	return s, nil
}

func (s *Store) key(parts ...string) string { return s.cfg.Prefix + strings.Join(parts, "/") }

func (s *Store) schemaKey() string { return s.key("meta", "schema_version") }

// prepare checks the schema, or lays it below a fresh prefix, and finds the epoch.
func (s *Store) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := s.laySchema(ctx); err != nil {
		return err
	}
	key, epoch := s.key("meta", "events_epoch"), rand.Text()[:8]
	answer, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, epoch)).
		Else(clientv3.OpGet(key)).
		Commit()
	switch {
	case err != nil:
		return s.failed(err)
	case answer.Succeeded:
		s.epoch = epoch
	default:
		s.epoch = string(answer.Responses[0].GetResponseRange().Kvs[0].Value)
	}
	return nil
}

// laySchema finds the schema, migrates an older one, or lays it. Several deployers may
// come here at once: the first one does it.
func (s *Store) laySchema(ctx context.Context) error {
	key := s.schemaKey()
	for {
		answer, err := s.client.Txn(ctx).
			Then(clientv3.OpGet(key), clientv3.OpGet(s.key("nodes", ""), clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly())).
			Commit()
		if err != nil {
			return s.failed(err)
		}
		var found string
		unchanged := clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
		if kvs := answer.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			found = string(kvs[0].Value)
			unchanged = clientv3.Compare(clientv3.Value(key), "=", found)
		}
		switch {
		case found == store.SchemaVersion, store.CanMigrate(found) && s.cfg.KeepSchema:
			s.schema = found
			return nil
		case found != "" && !store.CanMigrate(found):
			return s.otherSchema(found)
		case found == "" && answer.Responses[1].GetResponseRange().Count > 0:
			return fmt.Errorf("etcd has keys below %s that no deployer wrote; set store.prefix to one of its own", s.key("nodes", ""))
		}
		if _, err := s.client.Txn(ctx).If(unchanged).Then(clientv3.OpPut(key, store.SchemaVersion)).Commit(); err != nil {
			return s.failed(err)
		}
	}
}

func (s *Store) checkSchema(found []byte) error {
	if string(found) != s.schema {
		return s.otherSchema(string(found))
	}
	return nil
}

func (s *Store) otherSchema(found string) error {
	return failuref("%s says schema version %q, and this deployer reads %s; run the deployer that wrote it", s.schemaKey(), found, cmp.Or(s.schema, store.SchemaVersion))
}

// errGone is what a running deployer sees when the keys are taken from under it. To
// go on would be to build a new registry in silence.
func (s *Store) errGone() error {
	return failuref("%s is gone: the prefix was emptied; restore it, or start the deployer anew to begin with none", s.schemaKey())
}

// Close implements store.Store. What is under way is done first.
func (s *Store) Close() error {
	if s.ctx.Err() != nil {
		return nil
	}
	s.close()
	s.working.Wait()
	return s.client.Close()
}

// call is a caller's part in a transaction that it shares with others.
type call struct {
	ctx  context.Context // with the deadline of this call
	err  error           // once done
	done chan struct{}
}

func (c *call) finish(err error) {
	c.err = err
	close(c.done)
}

// share hands request to the workers behind queue and waits for its end.
func share[T interface{ shared() *call }](ctx context.Context, s *Store, queue chan<- T, request T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := request.shared()
	mine, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	c.ctx, c.done = mine, make(chan struct{})
	select {
	case queue <- request:
	case <-s.ctx.Done():
		return store.ErrClosed
	case <-mine.Done():
		return s.late(ctx)
	}
	select {
	case <-c.done:
		var ours *failure
		if errors.As(c.err, &ours) && over(ctx) != nil {
			return over(ctx) // our time was the caller's
		}
		return c.err
	case <-mine.Done():
		return s.late(ctx)
	}
}

// late is the error of a call whose time is over: its caller's own, or ours.
func (s *Store) late(caller context.Context) error {
	if err := over(caller); err != nil {
		return err
	}
	return s.failed(context.DeadlineExceeded)
}

// over is the error of a context that has ended, or would within this very moment:
// two timers for one deadline do not fire at once.
func over(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
		return context.DeadlineExceeded
	}
	return nil
}

// next takes what waits in queue, up to maxBatch, and nothing when the store closes.
// It leaves out those whose caller has gone.
func next[T interface{ shared() *call }](s *Store, queue <-chan T) []T {
	for {
		var batch []T
		add := func(request T) {
			if request.shared().ctx.Err() == nil {
				batch = append(batch, request)
			}
		}
		select {
		case request := <-queue:
			add(request)
		case <-s.ctx.Done():
			return nil
		}
		for waiting := true; waiting && len(batch) < maxBatch; {
			select {
			case request := <-queue:
				add(request)
			default:
				waiting = false
			}
		}
		if len(batch) > 0 {
			return batch
		}
	}
}

// until is a context that lasts as long as the most patient caller of batch.
func until[T interface{ shared() *call }](batch []T) (context.Context, context.CancelFunc) {
	var latest time.Time
	for _, request := range batch {
		if at, ok := request.shared().ctx.Deadline(); ok && at.After(latest) {
			latest = at
		}
	}
	return context.WithDeadline(context.Background(), latest)
}

// within bounds a call that is shared with nobody.
func (s *Store) within(ctx context.Context) (context.Context, context.CancelFunc, error) {
	switch {
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case s.ctx.Err() != nil:
		return nil, nil, store.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	return ctx, cancel, nil
}

// failedFor is failed, unless the caller itself gave up.
func (s *Store) failedFor(caller context.Context, err error) error {
	if err := over(caller); err != nil {
		return err
	}
	return s.failed(err)
}
