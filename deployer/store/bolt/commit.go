package bolt

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/centra/plasmacloud/deployer/store"
)

// Group commit: one goroutine writes, and takes all who wait into one transaction, so
// that they share its two syncs. bbolt's own Batch begins another transaction for each
// millisecond's arrivals while one is on its way to the disk, and those then queue up,
// each with syncs of its own.
type commits struct {
	db    *bbolt.DB
	nodes *cache
	delay time.Duration // how long it waits for company while there is some
	there func() error  // an error where what is written would be lost
	some  chan struct{} // of one place: next has somebody
	done  chan struct{} // closed: none is under way

	mu     sync.Mutex
	next   *group
	closed bool
}

// group is those who share a transaction. Their callers bound how many they are.
type group struct {
	writes []*write
	done   chan struct{} // closed: each write has its outcome
}

// write is one of those who wait.
type write struct {
	work   func(*txn) error // an error fails the whole transaction
	err    error
	panics any // what work panicked with: its caller's matter
}

// txn is a transaction that knows which nodes it has changed so far.
type txn struct {
	*bbolt.Tx
	nodes map[string]kept
}

func newCommits(db *bbolt.DB, nodes *cache, delay time.Duration, there func() error) *commits {
	c := &commits{db: db, nodes: nodes, delay: delay, there: there, some: make(chan struct{}, 1), done: make(chan struct{}), next: newGroup()}
	go c.run()
	return c
}

func newGroup() *group { return &group{done: make(chan struct{})} }

// do returns when work is on disk, or failed, whatever becomes of ctx meanwhile.
func (c *commits) do(ctx context.Context, work func(*txn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &write{work: work}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return store.ErrClosed
	}
	g := c.next
	g.writes = append(g.writes, w)
	if len(g.writes) == 1 {
		c.some <- struct{}{} // which has room: run took the one of the group before
	}
	c.mu.Unlock()
	<-g.done
	if w.panics != nil {
		panic(w.panics)
	}
	return w.err
}

func (c *commits) run() {
	defer close(c.done)
	company := false
	for range c.some {
		if company {
			time.Sleep(c.delay)
		}
		c.mu.Lock()
		g := c.next
		c.next = newGroup()
		c.mu.Unlock()
		company = len(g.writes) > 1
		c.commit(g.writes)
		close(g.done)
	}
}

func (c *commits) commit(writes []*write) {
	t := txn{nodes: make(map[string]kept, len(writes))}
	if err := c.there(); err != nil {
		for _, w := range writes {
			w.err = err
		}
		return
	}
	err := c.db.Update(func(tx *bbolt.Tx) error {
		t.Tx = tx
		for _, w := range writes {
			if err := w.run(&t); err != nil {
				return err
			}
		}
		return nil
	})
	c.nodes.publish(t.nodes, err == nil)
	if err != nil && len(writes) > 1 { // one of them may be at fault
		for _, w := range writes {
			c.commit([]*write{w})
		}
		return
	}
	for _, w := range writes {
		w.err = err
	}
}

var errPanicked = errors.New("a change panicked")

func (w *write) run(t *txn) (err error) {
	defer func() {
		if w.panics = recover(); w.panics != nil {
			err = errPanicked
		}
	}()
	return w.work(t)
}

// close ends it after those who wait already.
func (c *commits) close() {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.some)
	}
	c.mu.Unlock()
	<-c.done
}
