package bolt_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
	"github.com/centra/plasmacloud/deployer/store/storetest"
)

func open(t testing.TB, path string) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(bolt.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
		path := filepath.Join(t.TempDir(), "state.db")
		s := open(t, path)
		return s, func() store.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, path)
		}
	})
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	held := filepath.Join(dir, "held.db")
	open(t, held)
	text := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	edit(t, newer, "meta", "schema_version", "2")

	for _, test := range []struct{ path, want string }{
		{held, "another deployer has " + held + " open"},
		{text, text + " is not a deployer's store"},
		{filepath.Join(dir, "none", "state.db"), "the directory " + filepath.Join(dir, "none") + " does not exist"},
		{newer, "schema version 2, and this deployer reads 1"},
		{dir, dir},
	} {
		s, err := bolt.Open(bolt.Config{Path: test.path, LockTimeout: 10 * time.Millisecond})
		if err == nil {
			_ = s.Close()
			t.Errorf("%s opens", test.path)
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q in it", test.path, err, test.want)
		}
	}
}

func TestMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	for range 2 { // made so, and brought back to it
		s := open(t, path)
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("mode %v, %v", info.Mode(), err)
		}
		if err := errors.Join(s.Close(), os.Chmod(path, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCorruptRecord(t *testing.T) {
	for name, value := range map[string]string{
		"not JSON":      "{",
		"another id":    `{"id":"node03","state":"Active"}`,
		"another state": `{"id":"node02","state":"asleep"}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.db")
			good, err := json.Marshal(storetest.Full("node01"))
			if err != nil {
				t.Fatal(err)
			}
			edit(t, path, "nodes", "node01", string(good))
			edit(t, path, "nodes", "node02", value)
			s := open(t, path)

			check := func(what string, err error) {
				t.Helper()
				var corrupt *store.CorruptError
				if !errors.As(err, &corrupt) || corrupt.Key != "nodes/node02" || !strings.Contains(err.Error(), "nodes/node02") {
					t.Errorf("%s: %v, want a corrupt record nodes/node02", what, err)
				}
			}
			_, err = s.Get(t.Context(), "node02")
			check("get", err)
			check("update", s.Update(t.Context(), "node02", func(node.Node, bool) (node.Node, error) {
				t.Error("the change of a corrupt record ran")
				return node.Node{}, nil
			}))
			nodes, err := s.List(t.Context())
			check("list", err)
			if len(nodes) != 1 || nodes[0].ID != "node01" {
				t.Errorf("listed %v, want the good one", nodes)
			}
			if records, rest := store.Corrupt(err); len(records) != 1 || records[0].ID != "node02" || rest != nil {
				t.Errorf("taken apart: %v and %v", records, rest)
			}

			mended := storetest.Full("node02")
			for _, id := range []string{"node01", "node02", "node03"} { // only one of them is corrupt
				n := storetest.Full(id)
				n.Role = "mended"
				if err := s.Mend(t.Context(), n); err != nil {
					t.Errorf("mend %s: %v", id, err)
				}
			}
			mended.Role = "mended"
			nodes, err = s.List(t.Context())
			if err != nil || !reflect.DeepEqual(nodes, []node.Node{storetest.Full("node01"), mended}) {
				t.Errorf("mended: %+v, %v", nodes, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if kept := peek(t, path, "corrupt", "node02/1"); kept != value {
				t.Errorf("kept aside: %q, want %q", kept, value)
			}
		})
	}
}

// peek reads one key behind the store's back.
func peek(t *testing.T, path, bucket, key string) (value string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		value = string(tx.Bucket([]byte(bucket)).Get([]byte(key)))
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return value
}

// edit writes one key behind the store's back.
func edit(t *testing.T, path, bucket, key, value string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		return b.Put([]byte(key), []byte(value))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkUpdate is durable writes of whole records by many callers at once.
func BenchmarkUpdate(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "state.db"))
			var next atomic.Int64
			b.SetParallelism(max(1, callers/2))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					id := fmt.Sprintf("node%05d", next.Add(1)%10_000)
					err := s.Update(b.Context(), id, func(node.Node, bool) (node.Node, error) { return storetest.Full(id), nil })
					if err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
