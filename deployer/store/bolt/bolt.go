// Package bolt keeps the deployer's nodes in one bbolt file.
//
// Writers that come at the same time share one transaction and one fsync, and a
// write is on disk when its call returns. When a node was last heard lives in a
// bucket of its own, so that noting it does not rewrite the record.
package bolt

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

var (
	bucketMeta  = []byte("meta")
	bucketNodes = []byte("nodes")     // id -> JSON of node.Node
	bucketSeen  = []byte("last_seen") // id -> Unix nanoseconds, 8 bytes big-endian; counts over the record
	keySchema   = []byte("schema_version")

	bucketEvents = []byte("events")       // number, 8 bytes big-endian -> JSON of store.Event
	keyEpoch     = []byte("events_epoch") // name of these logs of events
	bucketAudit  = []byte("audit")        // as bucketEvents
	bucketTokens = []byte("join_tokens")  // name -> JSON of node.Token

	// bucketCorrupt is there once a record was mended: id/number -> the bytes that
	// could not be read. Nothing reads it but people.
	bucketCorrupt = []byte("corrupt")
)

// Config says which file to open and how.
type Config struct {
	Path          string
	LockTimeout   time.Duration // how long to wait for another process; 0: one second
	MaxBatchDelay time.Duration // how long a write waits for more company while there is some; 0: three milliseconds
	KeptEvents    int           // 0: store.KeptEvents
	KeepSchema    bool          // leave a file of an older version what it is
}

// Store is a store.Store in one file.
type Store struct {
	db    *bbolt.DB
	write *commits
	nodes *cache
	keep  uint64 // events
	epoch string // of the events
}

var _ store.Store = (*Store)(nil)

// Open opens the file, and makes it with mode 0600 when it is not there. Its
// directory must exist. Another process that has it open is an error that says so.
func Open(cfg Config) (*Store, error) {
	if cfg.LockTimeout == 0 {
		cfg.LockTimeout = time.Second
	}
	if cfg.MaxBatchDelay == 0 {
		cfg.MaxBatchDelay = 3 * time.Millisecond
	}
	_, err := os.Stat(cfg.Path)
	fresh := errors.Is(err, fs.ErrNotExist)
	db, err := bbolt.Open(cfg.Path, 0o600, &bbolt.Options{
		Timeout:      cfg.LockTimeout,
		OpenFile:     cfg.open,
		FreelistType: bbolt.FreelistMapType, // constant time where the array is linear
	})
	if err != nil {
		if fresh && !errors.Is(err, berrors.ErrTimeout) {
			removeHalf(cfg.Path)
		}
		return nil, openError(cfg.Path, err)
	}
	epoch, err := prepare(db, fresh, cfg.KeepSchema)
	if err != nil {
		_ = db.Close() // the first error says it all, in one line
		return nil, fmt.Errorf("store %s: %w", cfg.Path, err)
	}
	opened, err := os.Stat(cfg.Path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store: %w", err), db.Close())
	}
	nodes := newCache()
	return &Store{db: db, write: newCommits(db, nodes, cfg.MaxBatchDelay, func() error { return stays(cfg.Path, opened) }), nodes: nodes, keep: uint64(cmp.Or(cfg.KeptEvents, store.KeptEvents)), epoch: epoch}, nil
}

// removeHalf removes a new file that had no room for the four pages that a store begins
// with, since next time it would be none. One that has them is left: another may have made it.
func removeHalf(path string) {
	if info, err := os.Stat(path); err == nil && info.Size() < 4*int64(os.Getpagesize()) {
		_ = os.Remove(path)
	}
}

// stays is an error where the file at path is not the one that was opened any more: what
// goes into that one is gone with this process.
func stays(path string, opened fs.FileInfo) error {
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(opened, now) {
		return fmt.Errorf("%s was taken away or replaced under the running deployer; put it back, or start the deployer anew to take what is there", path)
	}
	return nil
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("store: another deployer has %s open; stop it, or give this one a store.path of its own", path)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("store: the directory %s does not exist; create it, or set store.path elsewhere", filepath.Dir(path))
	case errors.Is(err, syscall.EISDIR):
		return fmt.Errorf("store: %s is a directory; set store.path to a file in it", path)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("store: there is no room for %s on its filesystem; make some, or set store.path elsewhere", path)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("store: %s is on a filesystem that is mounted read-only; mount it for writing, or set store.path elsewhere", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("store: no permission to write %s; run this as the user who owns it, or give it to this one", path)
	case errors.Is(err, errDamaged):
		return fmt.Errorf("store: %s cannot be used: %w; move it away, and restore a backup, or start anew without it", path, err)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrChecksum):
		return fmt.Errorf("store: %s is not a deployer's store (%w); move it away, or set store.path elsewhere", path, err)
	default:
		return fmt.Errorf("store: open %s: %w", path, err)
	}
}

// prepare checks the schema and migrates an older one, or lays it in a fresh file. It
// returns the epoch of the events.
func prepare(db *bbolt.DB, fresh, keep bool) (epoch string, err error) {
	if err := os.Chmod(db.Path(), 0o600); err != nil {
		return "", err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(bucketMeta)
		if err != nil {
			return err
		}
		switch found := string(meta.Get(keySchema)); {
		case found == store.SchemaVersion, store.CanMigrate(found) && keep:
		case found == "", store.CanMigrate(found):
			if err := meta.Put(keySchema, []byte(store.SchemaVersion)); err != nil {
				return err
			}
		default:
			return fmt.Errorf("schema version %s, and this deployer reads %s; run the deployer that wrote it", found, store.SchemaVersion)
		}
		for _, name := range [][]byte{bucketNodes, bucketSeen, bucketEvents, bucketAudit, bucketTokens} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if epoch = string(meta.Get(keyEpoch)); epoch != "" {
			return nil
		}
		epoch = rand.Text()[:8]
		return meta.Put(keyEpoch, []byte(epoch))
	})
	if err != nil || !fresh {
		return epoch, err
	}
	return epoch, syncDir(filepath.Dir(db.Path()))
}

// syncDir makes a new file's name survive a power loss; bbolt syncs only the file.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if errors.Is(err, syscall.EINVAL) { // a filesystem that cannot sync a directory
		err = nil
	}
	return errors.Join(err, dir.Close())
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, id string) (n node.Node, err error) {
	if err := ctx.Err(); err != nil {
		return node.Node{}, err
	}
	if k, ok := s.nodes.get(id); ok {
		return k.node(), nil
	}
	since := s.nodes.now()
	err = s.db.View(func(tx *bbolt.Tx) error {
		k, err := s.read(tx, id)
		if err == nil {
			s.nodes.add(id, k, since)
			n = k.node()
		}
		return err
	})
	return n, closed(err)
}

// List implements store.Store.
func (s *Store) List(ctx context.Context) (nodes []node.Node, err error) {
	since := s.nodes.now()
	err = s.db.View(func(tx *bbolt.Tx) error {
		var broken []error
		cursor := tx.Bucket(bucketNodes).Cursor()
		for key, _ := cursor.First(); key != nil; key, _ = cursor.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			id := string(key)
			k, err := s.read(tx, id)
			if err != nil {
				broken = append(broken, err)
				continue
			}
			s.nodes.add(id, k, since)
			nodes = append(nodes, k.node())
		}
		return errors.Join(broken...)
	})
	return nodes, closed(err)
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, id string, change store.Change) error {
	return s.Join(ctx, id, "", func(old node.Node, found bool, t node.Token) (node.Node, node.Token, error) {
		changed, err := change(old, found)
		return changed, t, err
	})
}

// Join implements store.Store.
func (s *Store) Join(ctx context.Context, id, token string, change store.JoinChange) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// An error returned would roll back everybody else's write, so what concerns this node
	// alone stays in refused.
	var refused error
	err := s.write.do(ctx, func(tx *txn) error {
		var old node.Node
		var k kept
		k, refused = s.latest(tx, id)
		found := refused == nil
		switch {
		case found:
			old = k.node()
		case !errors.Is(refused, store.ErrNotFound):
			return nil
		}
		var before, after node.Token
		if token != "" {
			if before, refused = readToken(tx.Tx, token); refused != nil && !errors.Is(refused, store.ErrNoToken) {
				return nil
			}
		}
		changed := new(node.Node)
		*changed, after, refused = change(old, found, before)
		silent := errors.Is(refused, store.ErrNoEvents)
		if refused != nil && !silent {
			return nil
		}
		var value []byte
		if value, refused = json.Marshal(changed); refused != nil {
			return nil
		}
		if after != before && before.Name != "" {
			if err := putToken(tx.Tx, after); err != nil {
				return err
			}
		}
		if err := s.record(tx, changed, value, found && k.seen.IsZero()); err != nil || silent {
			return err
		}
		return s.happened(tx.Tx, store.Happened(old, found, *changed))
	})
	if err == nil {
		err = refused
	}
	if errors.Is(err, store.ErrUnchanged) {
		return nil
	}
	return closed(err)
}

// Mend implements store.Store.
func (s *Store) Mend(ctx context.Context, n node.Node) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return closed(s.write.do(ctx, func(tx *txn) error {
		var corrupt *store.CorruptError
		if _, err := s.latest(tx, n.ID); !errors.As(err, &corrupt) {
			return nil
		}
		aside, err := tx.CreateBucketIfNotExists(bucketCorrupt)
		if err != nil {
			return err
		}
		number, err := aside.NextSequence()
		if err != nil {
			return err
		}
		value, err := json.Marshal(n)
		if err != nil {
			return err
		}
		// A copy, since bbolt's bytes are not to be written back.
		bad := bytes.Clone(tx.Bucket(bucketNodes).Get([]byte(n.ID)))
		return errors.Join(
			aside.Put(fmt.Appendf(nil, "%s/%d", n.ID, number), bad),
			s.record(tx, &n, value, false),
			s.happened(tx.Tx, store.Happened(node.Node{}, false, n)),
		)
	}))
}

// Seen implements store.Store.
func (s *Store) Seen(ctx context.Context, heard map[string]time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return closed(s.write.do(ctx, func(tx *txn) error {
		seen := tx.Bucket(bucketSeen)
		for id, at := range heard {
			k, err := s.latest(tx, id)
			if err != nil || !store.News(k.node(), at) {
				continue
			}
			if err := seen.Put([]byte(id), binary.BigEndian.AppendUint64(nil, uint64(at.UnixNano()))); err != nil {
				return err
			}
			k.seen = time.Unix(0, at.UnixNano()).UTC() // as lastSeen reads it
			tx.nodes[id] = k
		}
		return nil
	}))
}

// Check goes through the whole file and says what is wrong with its structure. What is
// wrong with a single record, List says.
func (s *Store) Check() error {
	var found []error
	err := s.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			found = append(found, err)
		}
		return nil
	})
	if len(found) > 10 {
		found = append(found[:10], errors.New("and more"))
	}
	return closed(errors.Join(append(found, err)...))
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.write.close()
	err := s.db.Close()
	s.nodes.clear()
	return err
}

// latest is the node as tx has it so far.
func (s *Store) latest(tx *txn, id string) (kept, error) {
	if k, ok := tx.nodes[id]; ok {
		return k, nil
	}
	if k, ok := s.nodes.get(id); ok {
		return k, nil
	}
	return s.read(tx.Tx, id)
}

// record stores n in place of what there was. unseen says that nobody has recorded beside
// it when n was heard.
func (s *Store) record(tx *txn, n *node.Node, value []byte, unseen bool) error {
	tx.nodes[n.ID] = kept{record: n, sum: s.nodes.sum(value)}
	id := []byte(n.ID)
	if err := tx.Bucket(bucketNodes).Put(id, value); err != nil || unseen {
		return err
	}
	return tx.Bucket(bucketSeen).Delete(id) // the record has it
}

// read is the node as the file has it. Decoding it is spared where the cache was given
// the same bytes.
func (s *Store) read(tx *bbolt.Tx, id string) (k kept, err error) {
	key := []byte(id)
	value := tx.Bucket(bucketNodes).Get(key)
	if value == nil {
		return k, store.ErrNotFound
	}
	known, _ := s.nodes.get(id)
	k.record, k.sum = known.record, s.nodes.sum(value)
	if known.record == nil || known.sum != k.sum {
		n, err := store.Decode(id, "nodes/"+id, value)
		if err != nil {
			return k, err
		}
		k.record = &n
	}
	k.seen, _ = lastSeen(tx.Bucket(bucketSeen), key)
	return k, nil
}

func lastSeen(seen *bbolt.Bucket, id []byte) (at time.Time, ok bool) {
	value := seen.Get(id)
	if len(value) != 8 {
		return time.Time{}, false
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(value))).UTC(), true
}

func closed(err error) error {
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return store.ErrClosed
	}
	return err
}
