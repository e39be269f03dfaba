package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/centra/plasmacloud/bgp/speaker"
)

// goneAsk is the question whether peers are offered still what is withdrawn. A gobgpd goes
// over its whole table for the answer, so Run has it asked beside the passes.
type goneAsk struct {
	beside func(func()) // nil: in the pass

	mu    sync.Mutex
	busy  bool
	began time.Time             // of the last that was answered
	gone  map[netip.Prefix]bool // as of then, of what it was about
	err   error                 // why there was no answer
	rests time.Time             // not before that is asked again
}

// askShare times what an answer took is how long a speaker is not asked again: meanwhile
// withdraws had to wait.
const askShare = 10

// start starts each delay that does not run yet, of what is known to be gone, or was asked
// about for limit: it is out of the speaker's table already. It returns the others, when
// the first of them has waited for so long, and what the last answer says against them.
func (d drains) start(q *goneAsk, limit time.Duration) (waiting []netip.Prefix, next time.Time, err error) {
	now := time.Now()
	var still []netip.Prefix
	for addr, one := range d {
		if !one.since.IsZero() {
			continue
		}
		if one.asked.IsZero() {
			one.asked = now
		}
		p, end := speaker.HostPrefix(addr), one.asked.Add(limit)
		answered := !q.began.Before(one.asked) // else what is known is of an earlier drain
		gone, about := q.gone[p]
		if !end.After(now) || answered && gone {
			one.since = now
		} else {
			waiting = append(waiting, p)
			if answered && about {
				still = append(still, p)
			} else if answered {
				err = q.err
			}
			if next.IsZero() || end.Before(next) {
				next = end
			}
		}
		d[addr] = one
	}
	if len(still) > 0 {
		slices.SortFunc(still, netip.Prefix.Compare)
		err = fmt.Errorf("the speaker offers peers still what is withdrawn: %s", some(still))
	}
	return waiting, next, err
}

// startDrains starts the delays of what no peer is offered any more, and asks about the
// rest. It returns when there is more to do, unless an answer comes before; zero: nothing.
func (a *Announcer) startDrains(ctx context.Context, limit time.Duration) (next time.Time, err error) {
	q := &a.goneAsk
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting, next, err := a.drains.start(q, limit)
	if len(waiting) > 0 && !q.busy && !time.Now().Before(q.rests) {
		q.busy = true
		if q.beside == nil {
			q.mu.Unlock()
			a.askGone(ctx, waiting, limit)
			q.mu.Lock()
			waiting, next, err = a.drains.start(q, limit)
		} else {
			q.beside(func() { a.askGone(ctx, waiting, limit) })
		}
	}
	if len(waiting) == 0 {
		q.gone, q.err = nil, nil
		return time.Time{}, nil
	}
	if !q.busy && q.rests.Before(next) {
		next = q.rests
	}
	return next, err
}

// askGone asks which of prefixes no peer is offered any more, which takes no longer than limit.
func (a *Announcer) askGone(ctx context.Context, prefixes []netip.Prefix, limit time.Duration) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("took longer than %s", limit))
	defer cancel()
	began := time.Now()
	offered, err := a.speaker.Advertised(ctx, prefixes)
	gone := make(map[netip.Prefix]bool, len(prefixes))
	if err != nil {
		err = fmt.Errorf("ask whether peers are offered what is withdrawn: %w", err)
	} else {
		for _, p := range prefixes {
			gone[p] = len(offered.To[p]) == 0
		}
	}
	q := &a.goneAsk
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy, q.began, q.gone, q.err = false, began, gone, err
	q.rests = time.Now().Add(askShare * time.Since(began))
	a.trigger()
}
