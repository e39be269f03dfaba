package bolt_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
	"github.com/centra/plasmacloud/deployer/store/storetest"
)

func open(t testing.TB, path string) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(bolt.Config{Path: path, KeptEvents: storetest.KeptEvents})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		path := filepath.Join(t.TempDir(), "state.db")
		s := open(t, path)
		shut := func() {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return storetest.Opened{
			Store: s,
			Reopen: func() store.Store {
				shut()
				s = open(t, path)
				return s
			},
			Spoil: func(id, value string) (store.Store, string) {
				shut()
				edit(t, path, "nodes", id, value)
				s = open(t, path)
				return s, "nodes/" + id
			},
			SpoilToken: func(name, value string) (store.Store, string) {
				shut()
				edit(t, path, "join_tokens", name, value)
				s = open(t, path)
				return s, "join_tokens/" + name
			},
			Version: func(version string, keep bool) (store.Store, error) {
				shut()
				edit(t, path, "meta", "schema_version", version)
				drop(t, path, "audit", "join_tokens")
				again, err := bolt.Open(bolt.Config{Path: path, KeepSchema: keep})
				if err == nil {
					s = again
				}
				return again, err
			},
			Schema: func() string {
				shut()
				return peek(t, path, "meta", "schema_version")[0]
			},
			Kept: func(id string) []string { return peek(t, path, "corrupt", id+"/") },
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
	note := filepath.Join(dir, "note.txt")
	if err := os.WriteFile(note, []byte("not a database\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	edit(t, newer, "meta", "schema_version", "99")

	for _, test := range []struct{ path, want string }{
		{held, "another deployer has " + held + " open"},
		{text, text + " is not a deployer's store"},
		{note, note + " is not a deployer's store"},
		{filepath.Join(dir, "none", "state.db"), "the directory " + filepath.Join(dir, "none") + " does not exist"},
		{newer, "schema version 99, and this deployer reads 2"},
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

// TestCheck: a file whose pages are damaged is found out.
func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	for i := range 200 { // more than one page
		id := fmt.Sprintf("node%03d", i)
		if err := s.Update(t.Context(), id, func(node.Node, bool) (node.Node, error) { return storetest.Full(id), nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Check(), s.Close()); err != nil {
		t.Fatalf("a good file: %v", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// In every page that has it: which of them the file still uses, it alone knows.
	for page := range slices.Chunk(data, os.Getpagesize()) {
		if bytes.Contains(page, []byte("node000")) {
			copy(page, "damaged!")
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Open(bolt.Config{Path: path}); err == nil || !strings.Contains(err.Error(), "the file is damaged") {
		t.Errorf("a damaged page was not found: %v", err)
	}
}

// drop takes buckets out of the file behind the store's back.
func drop(t *testing.T, path string, buckets ...string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, bucket := range buckets {
			if err := tx.DeleteBucket([]byte(bucket)); err != nil && !errors.Is(err, berrors.ErrBucketNotFound) {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// peek reads the values of all keys with a prefix behind the store's back.
func peek(t *testing.T, path, bucket, prefix string) (values []string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(key, value []byte) error {
			if bytes.HasPrefix(key, []byte(prefix)) {
				values = append(values, string(value))
			}
			return nil
		})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return values
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
