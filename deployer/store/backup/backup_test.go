package backup_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/backup"
	"github.com/centra/plasmacloud/deployer/store/bolt"
	"github.com/centra/plasmacloud/deployer/store/storetest"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func open(t *testing.T) store.Store {
	t.Helper()
	s, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func list(t *testing.T, s store.Store) []node.Node {
	t.Helper()
	nodes, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

// full is a store with some nodes, one of which was heard since it was written.
func full(t *testing.T) store.Store {
	t.Helper()
	s := open(t)
	for i := range 20 {
		n := storetest.Full(fmt.Sprintf("node%02d", i))
		if err := s.Update(t.Context(), n.ID, func(node.Node, bool) (node.Node, error) { return n, nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"b", "a"} {
		if err := s.PutToken(t.Context(), storetest.FullToken(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Append(t.Context(), store.Event{At: now, Event: store.EventManifest, Reason: "declares 20 nodes"}); err != nil {
		t.Fatal(err)
	}
	if err := s.AppendAudit(t.Context(), store.Event{At: now, Event: store.EventTokenCreate, By: "alice", Token: "a", Result: store.ResultDone}); err != nil {
		t.Fatal(err)
	}
	if err := s.Seen(t.Context(), map[string]time.Time{"node07": now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBackup(t *testing.T) {
	from := full(t)
	var file bytes.Buffer
	done, unreadable, err := backup.Write(t.Context(), &file, from, now)
	if got, want := done.String(), "nodes: 20, join tokens: 2, events: 21, entries of the audit log: 1"; err != nil || got != want || len(unreadable) != 0 {
		t.Fatalf("%s, %v, %v, want %s", got, unreadable, err, want)
	}
	content, err := backup.Read(bytes.NewReader(file.Bytes()))
	tokens := []node.Token{storetest.FullToken("a"), storetest.FullToken("b")}
	if err != nil || !content.Made.Equal(now) || !reflect.DeepEqual(content.Nodes, list(t, from)) || !slices.Equal(content.Tokens, tokens) {
		t.Fatalf("read: %+v, %v", content, err)
	}

	into := open(t)
	interrupted := backup.Content{Nodes: content.Nodes[:7], Tokens: content.Tokens[:1], Events: content.Events[:5]}
	for _, part := range []backup.Content{interrupted, content, content} {
		if err := backup.Restore(t.Context(), into, part); err != nil {
			t.Errorf("restore: %v", err)
		}
	}
	if !reflect.DeepEqual(list(t, into), list(t, from)) {
		t.Errorf("restored\n%+v\nwant\n%+v", list(t, into), list(t, from))
	}
	if got, err := into.Tokens(t.Context()); err != nil || !slices.Equal(got, tokens) {
		t.Errorf("restored the tokens %+v, %v", got, err)
	}
	other := open(t)
	if err := other.PutToken(t.Context(), storetest.FullToken("other")); err != nil {
		t.Fatal(err)
	}
	if err := backup.Restore(t.Context(), other, content); err == nil || len(list(t, other)) > 0 {
		t.Errorf("over another token: %v, %d nodes", err, len(list(t, other)))
	}

	for name, change := range map[string]func() error{
		"another node": func() error {
			return into.Update(t.Context(), "other", func(node.Node, bool) (node.Node, error) { return node.New("other", now), nil })
		},
		"a node that is otherwise": func() error {
			return into.Update(t.Context(), "node03", func(n node.Node, _ bool) (node.Node, error) { n.Role = "other"; return n, nil })
		},
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		before := list(t, into)
		if err := backup.Restore(t.Context(), into, content); err == nil || !strings.Contains(err.Error(), "restore into one without nodes") {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(list(t, into), before) {
			t.Errorf("%s: it was written all the same", name)
		}
	}

	var empty bytes.Buffer
	if _, _, err := backup.Write(t.Context(), &empty, open(t), now); err != nil {
		t.Fatal(err)
	}
	if c, err := backup.Read(&empty); err != nil || len(c.Nodes)+len(c.Tokens) != 0 {
		t.Errorf("an empty store: %v, %v", c, err)
	}
}

// sealed is a backup with the lines, whose sum is right.
func sealed(number int, lines ...string) string { return sealedWith(fmt.Sprint(number), lines...) }

func sealedWith(numbers string, lines ...string) string {
	content := strings.Join(lines, "\n") + "\n"
	sum := sha256.Sum256([]byte(content))
	return content + fmt.Sprintf(`{"nodes":%s,"sha256":"%s"}`, numbers, hex.EncodeToString(sum[:])) + "\n"
}

const head = `{"plasmacloud_deployer_backup":1,"made_at":"2026-03-01T12:00:00Z"}`

func line(id string) string {
	return `{"id":"` + id + `","declared":true,"state":"Active","since":"2026-03-01T12:00:00Z","attempt":0}`
}

const event = `{"event":{"at":"2026-03-01T12:00:00Z","event":"manifest"}}`

func token(name string) string {
	return `{"token":{"name":"` + name + `","hash":"sha256:aa","created":"2026-03-01T12:00:00Z"}}`
}

func TestReadRefuses(t *testing.T) {
	good := sealed(2, head, line("a"), line("b"))
	if c, err := backup.Read(strings.NewReader(good)); err != nil || len(c.Nodes) != 2 || !c.NoLogs {
		t.Fatalf("the good one: %v, %v", c, err)
	}
	lines := strings.SplitAfter(good, "\n")
	for name, test := range map[string]struct{ body, want string }{
		"empty":                    {"", "not a backup of plasmacloud-deployer"},
		"other text":               {"hello\nworld\n", "not a backup of plasmacloud-deployer"},
		"other JSON":               {"{}\n{}\n", "not a backup of plasmacloud-deployer"},
		"a newer version":          {sealed(0, `{"plasmacloud_deployer_backup":4,"more":1}`), "a backup of version 4, and this deployer reads 3"},
		"a key in the head":        {sealed(0, `{"plasmacloud_deployer_backup":1,"more":1}`), `line 1: json: unknown field "more"`},
		"the head alone":           {lines[0], "cut short"},
		"no foot":                  {lines[0] + lines[1] + lines[2], "cut short"},
		"cut in the foot":          {good[:len(good)-10], "cut short"},
		"without the end":          {strings.TrimSuffix(good, "\n"), "cut short"},
		"a line less":              {lines[0] + lines[1] + lines[3], "changed or damaged"},
		"a byte changed":           {strings.Replace(good, "Active", "active", 1), "changed or damaged"},
		"more nodes claimed":       {sealed(3, head, line("a"), line("b")), "changed or damaged"},
		"a key of a node":          {sealed(1, head, `{"id":"a","state":"Active","more":1}`), `line 2: not a node: json: unknown field "more"`},
		"no such state":            {sealed(1, head, `{"id":"a","state":"asleep"}`), `line 2: record of node a is corrupt: it holds id "a" in state "asleep"`},
		"a bad id":                 {sealed(1, head, line("A b")), `line 2: node "A b": not a node's id`},
		"an id twice":              {sealed(2, head, line("a"), line("a")), "line 3: node a is not behind node a"},
		"a token less":             {sealedWith(`1,"tokens":2`, head, line("a"), token("a")), "changed or damaged"},
		"no nodes, they say":       {sealedWith(`-1,"tokens":2`, head, token("a")), "changed or damaged"},
		"not a token":              {sealedWith(`0,"tokens":1`, head, line("a")), `line 2: not a token: json: unknown field "id"`},
		"tokens not in order":      {sealedWith(`0,"tokens":2`, head, token("b"), token("a")), "line 3: the token a is not behind the token b"},
		"a token without its hash": {sealedWith(`0,"tokens":1`, head, `{"token":{"name":"a"}}`), "line 2: not a token"},
		"an event less":            {sealedWith(`0,"events":2`, head, event), "changed or damaged"},
		"too many, they say":       {sealedWith(`0,"events":9223372036854775807,"audit":9223372036854775807`, head, event), "changed or damaged"},
		"not an event":             {sealedWith(`0,"events":1`, head, `{"event":{"at":"2026-03-01T12:00:00Z"}}`), "line 2: not an event"},
		"a key of an event":        {sealedWith(`0,"events":1`, head, `{"event":{"more":1}}`), `line 2: not an event: json: unknown field "more"`},
		"an event in the audit":    {sealedWith(`0,"audit":1`, head, event), "line 2: not an event"},
		"out of order":             {sealed(2, head, line("b"), line("a")), "line 3: node a is not behind node b"},
	} {
		c, err := backup.Read(strings.NewReader(test.body))
		if err == nil || !strings.Contains(err.Error(), test.want) || c.Nodes != nil || c.Tokens != nil {
			t.Errorf("%s: %v, %v, want %q", name, c, err, test.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(sealed(2, head, line("a"), line("b"))))
	f.Add([]byte(sealed(0, head)))
	f.Add([]byte(sealedWith(`1,"tokens":2`, head, line("a"), token("a"), token("b"))))
	f.Add([]byte(sealedWith(`1,"events":1,"audit":1`, head, line("a"), event, `{"audit":{"at":"2026-03-01T12:00:00Z","event":"hold"}}`)))
	f.Add([]byte(head + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := backup.Read(bytes.NewReader(data))
		nodes := c.Nodes
		if err != nil && (nodes != nil || c.Tokens != nil) {
			t.Errorf("%+v beside %v", c, err)
		}
		for i, u := range c.Tokens {
			if !node.ValidTokenName(u.Name) || u.Hash == "" || i > 0 && c.Tokens[i-1].Name >= u.Name {
				t.Errorf("accepted %+v", u)
			}
		}
		for i, n := range nodes {
			if !node.ValidID(n.ID) || node.Lifecycle[n.State] == nil || i > 0 && nodes[i-1].ID >= n.ID {
				t.Errorf("accepted %+v", n)
			}
		}
	})
}
