package server

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
)

// reading is one reading of the store, for all who wait for it. It goes on when those
// leave, so that no lock is held over it and none of them waits longer than he likes.
type reading[T any] struct {
	began time.Time
	done  chan struct{}
	value T // it and err may be looked at once it is done
	err   error
}

// beginReading begins one that takes no longer than limit.
func beginReading[T any](limit time.Duration, read func(context.Context) (T, error)) *reading[T] {
	r := &reading[T]{began: time.Now(), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		defer func() { // no request's own guard is here
			if v := recover(); v != nil {
				r.err = fmt.Errorf("reading the store panicked: %v\n%s", v, debug.Stack())
			}
		}()
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		r.value, r.err = read(ctx)
	}()
	return r
}

// over says whether it is done.
func (r *reading[T]) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// wait is what was read, or why nothing was, or that ctx has ended.
func (r *reading[T]) wait(ctx context.Context) (value T, err error) {
	select {
	case <-r.done:
		return r.value, r.err
	case <-ctx.Done():
		return value, ctx.Err()
	}
}
