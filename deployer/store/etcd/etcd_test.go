package etcd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/certtest"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/etcd"
	"github.com/centra/plasmacloud/deployer/store/etcdtest"
	"github.com/centra/plasmacloud/deployer/store/storetest"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var prefixes atomic.Int64

// fresh is a prefix that no other test uses.
func fresh() string { return fmt.Sprintf("/test/%d/", prefixes.Add(1)) }

func open(t testing.TB, server *etcdtest.Server, prefix string) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(context.Background(), etcd.Config{Endpoints: []string{server.URL}, Prefix: prefix, KeptEvents: storetest.KeptEvents})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// on is what a test works on: one etcd serves all tests of its version.
type on struct {
	version string
	server  *etcdtest.Server
	client  *clientv3.Client
}

// TestEtcd runs all of these on an etcd of each version.
func TestEtcd(t *testing.T) {
	t.Parallel()
	for _, version := range etcdtest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			server := etcdtest.Start(t, version, "--bcrypt-cost=4")
			it := on{version, server, server.Client()}
			t.Run("conformance", it.conformance)
			t.Run("shared", it.shared)
			t.Run("heard meanwhile", it.heardMeanwhile)
			t.Run("follow", it.follow)
			t.Run("schema", it.schema)
			t.Run("large", it.large)
			t.Run("lead", it.lead)
			t.Run("away", it.away)
			t.Run("login", it.login) // the last: it goes on with TLS
		})
	}
}

func set(id string, change func(*node.Node)) store.Change {
	return func(n node.Node, found bool) (node.Node, error) {
		if !found {
			n = node.New(id, start)
		}
		change(&n)
		return n, nil
	}
}

func (it on) conformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		prefix := fresh()
		s := open(t, it.server, prefix)
		reopen := func() store.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, it.server, prefix)
			return s
		}
		return storetest.Opened{
			Store:  s,
			Reopen: reopen,
			Spoil: func(id, value string) (store.Store, string) {
				key := prefix + "nodes/" + id
				if _, err := it.client.Put(t.Context(), key, value); err != nil {
					t.Fatal(err)
				}
				return reopen(), key
			},
			SpoilToken: func(name, value string) (store.Store, string) {
				key := prefix + "join_tokens/" + name
				if _, err := it.client.Put(t.Context(), key, value); err != nil {
					t.Fatal(err)
				}
				return reopen(), key
			},
			Version: func(version string, keep bool) (store.Store, error) {
				_, putErr := it.client.Put(t.Context(), prefix+"meta/schema_version", version)
				_, delErr := it.client.Delete(t.Context(), prefix+"join_tokens/", clientv3.WithPrefix())
				_, auditErr := it.client.Delete(t.Context(), prefix+"audit/", clientv3.WithPrefix())
				if err := errors.Join(s.Close(), putErr, delErr, auditErr); err != nil {
					t.Fatal(err)
				}
				again, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{it.server.URL}, Prefix: prefix, KeepSchema: keep})
				if err == nil {
					s = again
					t.Cleanup(func() { _ = again.Close() })
				}
				return again, err
			},
			Schema: func() string {
				version, err := it.client.Get(t.Context(), prefix+"meta/schema_version")
				if err != nil {
					t.Fatal(err)
				}
				return string(version.Kvs[0].Value)
			},
			Another: func() store.Store { return open(t, it.server, prefix) },
			Kept: func(id string) (values []string) {
				kept, err := it.client.Get(t.Context(), prefix+"corrupt/"+id+"/", clientv3.WithPrefix())
				if err != nil {
					t.Fatal(err)
				}
				for _, kv := range kept.Kvs {
					values = append(values, string(kv.Value))
				}
				return values
			},
		}
	})
}

// heardMeanwhile: a heartbeat stored between the read and the write of an update stays.
func (it on) heardMeanwhile(t *testing.T) {
	s := open(t, it.server, fresh())
	later := start.Add(time.Minute)
	if err := s.Update(t.Context(), "node01", set("node01", func(n *node.Node) { n.LastSeen = start })); err != nil {
		t.Fatal(err)
	}
	runs := 0
	err := s.Update(t.Context(), "node01", set("node01", func(n *node.Node) {
		if runs++; runs == 1 {
			if err := s.Seen(t.Context(), map[string]time.Time{"node01": later}); err != nil {
				t.Error(err)
			}
		}
		n.Attempt++
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), "node01"); err != nil || !got.LastSeen.Equal(later) || got.Attempt != 1 || runs != 2 {
		t.Errorf("attempt %d, last seen %s, after %d runs: %v", got.Attempt, got.LastSeen, runs, err)
	}
}

// shared: two stores on one prefix lose none of each other's writes, and each
// answers with what the other has written.
func (it on) shared(t *testing.T) {
	const nodes, writers, times = 5, 8, 20
	prefix := fresh()
	stores := []*etcd.Store{open(t, it.server, prefix), open(t, it.server, prefix)}
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			for turn := range times {
				id := fmt.Sprintf("node%d", (i+turn)%nodes)
				if err := stores[i%2].Update(t.Context(), id, set(id, func(n *node.Node) { n.Attempt++ })); err != nil {
					t.Error(err)
				}
				other := stores[1-i%2]
				if _, err := other.Get(t.Context(), id); err != nil {
					t.Errorf("the other has it not: %v", err)
				}
				if err := other.Seen(t.Context(), map[string]time.Time{id: start.Add(time.Duration(turn) * time.Minute)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	sum := 0
	list, err := stores[0].List(t.Context())
	for _, n := range list {
		sum += n.Attempt
	}
	if err != nil || len(list) != nodes || sum != writers*times {
		t.Errorf("%d of %d increments in %d nodes, %v", sum, writers*times, len(list), err)
	}
}

// follow: what is written through two stores is followed through one of them.
func (it on) follow(t *testing.T) {
	prefix := fresh()
	storetest.Follow(t, open(t, it.server, prefix), open(t, it.server, prefix))
}

// away: each call ends within the timeout while etcd is stopped, is killed, and
// its error is no error of the caller's context; what was answered is there afterwards.
func (it on) away(t *testing.T) {
	const timeout = 300 * time.Millisecond
	s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{it.server.URL}, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Update(t.Context(), "node01", set("node01", func(n *node.Node) { *n = storetest.Full("node01") })); err != nil {
		t.Fatal(err)
	}
	fails := func(when, want string) {
		t.Helper()
		var all sync.WaitGroup
		for what, call := range map[string]func() error{
			"get":    func() error { _, err := s.Get(t.Context(), "node01"); return err },
			"list":   func() error { _, err := s.List(t.Context()); return err },
			"seen":   func() error { return s.Seen(t.Context(), map[string]time.Time{"node01": start.Add(time.Hour)}) },
			"probe":  func() error { return s.Seen(t.Context(), nil) },
			"events": func() error { _, err := s.Events(t.Context(), "", 1); return err },
			"append": func() error { return s.Append(t.Context(), store.Event{Event: store.EventManifest}) },
			"trim":   func() error { return s.Trim(t.Context()) },
			"mend":   func() error { return s.Mend(t.Context(), storetest.Full("node01")) },
			"update": func() error {
				return s.Update(t.Context(), "node01", set("node01", func(n *node.Node) { n.Role = "x" }))
			},
		} {
			all.Go(func() {
				begin := time.Now()
				err := call()
				took := time.Since(begin)
				if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
					!strings.HasPrefix(err.Error(), "etcd at "+it.server.URL+want) || took > timeout+5*time.Second {
					t.Errorf("%s, %s: %v, after %s", when, what, err, took)
				}
			})
		}
		all.Wait()
	}
	it.server.Stop()
	fails("stopped", " did not answer within 300ms")
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.Get(short, "node01"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller with less time: %v", err)
	}
	it.server.Continue()
	within(t, func() bool { _, err := s.Get(t.Context(), "node01"); return err == nil })
	it.server.Kill()
	fails("killed", "")
	it.server.Run()
	within(t, func() bool { return s.Seen(t.Context(), nil) == nil })
	if n, err := s.Get(t.Context(), "node01"); err != nil || n.ID != "node01" {
		t.Errorf("%+v, %v", n, err)
	}
}

// within polls until done.
func within(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time")
		}
	}
}

// schema: a store whose schema is another's, or gone, is not written any more.
func (it on) schema(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(prefix string) error
		want  string
	}{
		"newer": {func(prefix string) error {
			_, err := it.client.Put(t.Context(), prefix+"meta/schema_version", "99")
			return err
		}, `meta/schema_version says schema version "99", and this deployer reads 2`},
		"emptied": {func(prefix string) error {
			_, err := it.client.Delete(t.Context(), prefix, clientv3.WithPrefix())
			return err
		}, "meta/schema_version is gone: the prefix was emptied"},
	} {
		prefix := fresh()
		s := open(t, it.server, prefix)
		if err := s.Update(t.Context(), "node01", set("node01", func(*node.Node) {})); err != nil {
			t.Fatal(err)
		}
		err := s.Update(t.Context(), "node01", func(n node.Node, _ bool) (node.Node, error) {
			n.Attempt++
			return n, test.spoil(prefix) // between the read and the write
		})
		_, getErr := s.Get(t.Context(), "node01")
		_, listErr := s.List(t.Context())
		_, eventsErr := s.Events(t.Context(), "", 1)
		for what, err := range map[string]error{
			"update": err, "get": getErr, "list": listErr,
			"seen":   s.Seen(t.Context(), map[string]time.Time{"node01": start.Add(time.Hour)}),
			"mend":   s.Mend(t.Context(), storetest.Full("node01")),
			"events": eventsErr, "trim": s.Trim(t.Context()),
			"append": s.Append(t.Context(), store.Event{Event: store.EventManifest}),
		} {
			if err == nil || !strings.Contains(err.Error(), prefix+test.want) {
				t.Errorf("%s, %s: %v, want %q", name, what, err, test.want)
			}
		}
		if left, err := it.client.Get(t.Context(), prefix+"nodes/node01"); err != nil || len(left.Kvs) > 0 && left.Kvs[0].Version > 1 {
			t.Errorf("%s: written all the same: %v, %v", name, left, err)
		}
	}
}

// large: large records go into requests that etcd takes, and one that it does not
// take fails alone.
func (it on) large(t *testing.T) {
	s := open(t, it.server, fresh())
	var all sync.WaitGroup
	for i, size := range []int{100, 300 << 10, 400 << 10, 500 << 10, 600 << 10, 1 << 20, 700 << 10, 100} {
		id := fmt.Sprintf("node%d", i)
		all.Go(func() {
			err := s.Update(t.Context(), id, set(id, func(n *node.Node) { n.Facts = map[string]string{"x": strings.Repeat("x", size)} }))
			tooLarge := errors.Is(err, store.ErrTooLarge) && strings.Contains(err.Error(), "the record of node "+id+" has ")
			if tooLarge != (size == 1<<20) || err != nil && !tooLarge {
				t.Errorf("%d bytes: %v", size, err)
			}
		})
	}
	// The most that a node can say, in characters that JSON may make more of.
	for i, c := range []string{"<", `"`} {
		id := fmt.Sprintf("wordy%d", i)
		all.Go(func() {
			err := s.Update(t.Context(), id, set(id, func(n *node.Node) {
				n.Facts = map[string]string{"x": strings.Repeat(c, api.MaxRequestBytes)}
				n.LastError = &node.Error{Message: strings.Repeat(c, api.MaxErrorBytes)}
				n.History = nil
				for range node.MaxHistory {
					n.History = append(n.History, node.Transition{Event: node.EventFailed, Reason: n.LastError.Message})
				}
			}))
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if nodes, err := s.List(t.Context()); err != nil || len(nodes) != 9 {
		t.Errorf("%d nodes, %v", len(nodes), err)
	}
}

// login: a user with a role for the prefix alone can do all that is needed, over
// TLS with a certificate; who has none, or the wrong password or prefix, is told.
func (it on) login(t *testing.T) {
	ca := certtest.New(t)
	cert, key := ca.Issue("etcd")
	_, err := it.client.UserAdd(t.Context(), "root", "r")
	_, roleErr := it.client.RoleAdd(t.Context(), "deployer")
	_, grantErr := it.client.RoleGrantPermission(t.Context(), "deployer", "/pc/", "/pc0", clientv3.PermissionType(clientv3.PermReadWrite))
	_, userErr := it.client.UserAdd(t.Context(), "deployer", "s3cret")
	_, rootErr := it.client.UserGrantRole(t.Context(), "root", "root")
	_, ownErr := it.client.UserGrantRole(t.Context(), "deployer", "deployer")
	_, enableErr := it.client.AuthEnable(t.Context())
	if err := errors.Join(err, roleErr, grantErr, userErr, rootErr, ownErr, enableErr); err != nil {
		t.Fatal(err)
	}
	it.server.Kill()
	server := it.server.WithTLS(ca.File, cert, key)

	log := new(logged)
	tls := func(files api.TLSFiles) etcd.Config {
		config, err := files.Config()
		if err != nil {
			t.Fatal(err)
		}
		return etcd.Config{
			Endpoints: []string{server.URL}, Prefix: "/pc/", TLS: config, Username: "deployer", Password: "s3cret",
			Timeout: time.Second, Logger: slog.New(slog.NewTextHandler(log, nil)),
		}
	}
	good := tls(api.TLSFiles{CA: ca.File, Cert: cert, Key: key})
	var s *etcd.Store
	within(t, func() bool { s, err = etcd.Open(t.Context(), good); return err == nil })
	defer s.Close()
	go s.Lead(t.Context(), "me", 20*time.Millisecond)
	_, getErr := s.Get(t.Context(), "node01")
	if !errors.Is(getErr, store.ErrNotFound) {
		t.Error(getErr)
	}
	_, listErr := s.List(t.Context())
	if err := errors.Join(listErr, s.Seen(t.Context(), nil),
		s.Update(t.Context(), "node01", set("node01", func(*node.Node) {})),
		s.Seen(t.Context(), map[string]time.Time{"node01": start.Add(time.Hour)})); err != nil {
		t.Error(err)
	}
	within(t, s.Leading)
	// The role is enough for 3.4 to compact; to a newer one it is not, and the log says so.
	same, err := clientv3.New(clientv3.Config{Endpoints: good.Endpoints, TLS: good.TLS, Username: good.Username, Password: good.Password, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()
	now, err := same.Get(t.Context(), "/pc/x")
	if err != nil {
		t.Fatal(err)
	}
	within(t, func() bool {
		if err := s.Seen(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if it.version != "3.4" {
			return log.has("history of etcd not compacted", "this etcd lets only root compact: run it with --auto-compaction-retention")
		}
		_, err := same.Get(t.Context(), "/pc/x", clientv3.WithRev(now.Header.Revision))
		return errors.Is(err, rpctypes.ErrCompacted)
	})

	for name, test := range map[string]struct {
		change func(*etcd.Config)
		want   string
	}{
		"wrong password": {func(c *etcd.Config) { c.Password = "s3cret2" }, "refuses the login"},
		"other prefix":   {func(c *etcd.Config) { c.Prefix = "/other/" }, `give the user "deployer" a role with readwrite on the prefix /other/`},
		"no user":        {func(c *etcd.Config) { c.Username, c.Password = "", "" }, "give the user that the certificate names a role"},
		"no certificate": {func(c *etcd.Config) { c.TLS = tls(api.TLSFiles{CA: ca.File}).TLS; c.Timeout /= 4 }, "remote error: tls: "},
		"another CA": {func(c *etcd.Config) {
			c.TLS = tls(api.TLSFiles{CA: certtest.New(t).File, Cert: cert, Key: key}).TLS
			c.Timeout /= 4 // it waits for all of it
		}, "certificate signed by unknown authority"},
	} {
		config := good
		test.change(&config)
		s, err := etcd.Open(t.Context(), config)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// logged is a log to look into.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) has(words ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, word := range words {
		if !strings.Contains(l.text.String(), word) {
			return false
		}
	}
	return true
}

// lead: one of two leads; when it ends the other one does. The leader compacts.
func (it on) lead(t *testing.T) {
	prefix := fresh()
	first, second := open(t, it.server, prefix), open(t, it.server, prefix)
	go first.Lead(t.Context(), "first", 10*time.Millisecond)
	within(t, first.Leading)
	go second.Lead(t.Context(), "second", 0)
	before, err := it.client.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	within(t, func() bool {
		if err := second.Seen(t.Context(), nil); err != nil { // so that there is something to compact
			t.Fatal(err)
		}
		_, err := it.client.Get(t.Context(), "x", clientv3.WithRev(before.Header.Revision))
		return errors.Is(err, rpctypes.ErrCompacted)
	})
	if second.Leading() {
		t.Error("two lead")
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if first.Leading() {
		t.Error("closed and leading")
	}
	within(t, second.Leading)
}

// BenchmarkUpdate is durable writes of whole records by many callers at once, which
// read and compare; beside it bare puts of the same values, each on its own.
func BenchmarkUpdate(b *testing.B) {
	for _, version := range etcdtest.Versions {
		server := etcdtest.Start(b, version)
		client := server.Client()
		s := open(b, server, fresh())
		for what, write := range map[string]func(id string) error{
			"update": func(id string) error {
				return s.Update(b.Context(), id, func(node.Node, bool) (node.Node, error) { return storetest.Full(id), nil })
			},
			"put": func(id string) error {
				value, err := json.Marshal(storetest.Full(id))
				if err == nil {
					_, err = client.Put(b.Context(), "bare/"+id, string(value))
				}
				return err
			},
		} {
			for _, callers := range []int{1, 64, 256} {
				b.Run(fmt.Sprintf("etcd=%s/%s/callers=%d", version, what, callers), func(b *testing.B) {
					var next atomic.Int64
					b.SetParallelism(max(1, callers/2))
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							if err := write(fmt.Sprintf("node%05d", next.Add(1)%10_000)); err != nil {
								b.Error(err)
							}
						}
					})
				})
			}
		}
	}
}
