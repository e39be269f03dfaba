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
	delay time.Duration // how long it waits for company while there is some
	queue chan *write
	stop  chan struct{} // closed: no more
	done  chan struct{} // closed: none is under way
	once  sync.Once
}

// maxGroup is how many writes a transaction has at most.
const maxGroup = 1024

// write is one of those who wait.
type write struct {
	work   func(*bbolt.Tx) error // an error fails the whole transaction
	err    error
	panics any // what work panicked with: its caller's matter
	done   chan struct{}
}

func newCommits(db *bbolt.DB, delay time.Duration) *commits {
	c := &commits{db: db, delay: delay, queue: make(chan *write, maxGroup), stop: make(chan struct{}), done: make(chan struct{})}
	go c.run()
	return c
}

// do returns when work is on disk, or failed. Once it is queued, work is done whatever
// becomes of ctx.
func (c *commits) do(ctx context.Context, work func(*bbolt.Tx) error) error {
	w := &write{work: work, done: make(chan struct{})}
	select {
	case <-c.stop:
		return store.ErrClosed
	default:
	}
	select {
	case c.queue <- w:
	case <-c.stop:
		return store.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-w.done:
	case <-c.done: // it may have been the last that was taken, or not taken any more
		select {
		case <-w.done:
		default:
			return store.ErrClosed
		}
	}
	if w.panics != nil {
		panic(w.panics)
	}
	return w.err
}

func (c *commits) run() {
	defer close(c.done)
	company := false
	for {
		var group []*write
		select {
		case w := <-c.queue:
			group = append(group, w)
		case <-c.stop:
			return
		}
		if company {
			time.Sleep(c.delay)
		}
		for more := true; more && len(group) < maxGroup; {
			select {
			case w := <-c.queue:
				group = append(group, w)
			default:
				more = false
			}
		}
		company = len(group) > 1
		c.commit(group)
	}
}

func (c *commits) commit(group []*write) {
	err := c.db.Update(func(tx *bbolt.Tx) error {
		for _, w := range group {
			if err := w.run(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && len(group) > 1 { // one of them may be at fault
		for _, w := range group {
			c.commit([]*write{w})
		}
		return
	}
	for _, w := range group {
		w.err = err
		close(w.done)
	}
}

var errPanicked = errors.New("a change panicked")

func (w *write) run(tx *bbolt.Tx) (err error) {
	defer func() {
		if w.panics = recover(); w.panics != nil {
			err = errPanicked
		}
	}()
	return w.work(tx)
}

// close ends it after the transaction under way.
func (c *commits) close() {
	c.once.Do(func() { close(c.stop) })
	<-c.done
}
