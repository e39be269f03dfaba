package health

import (
	"container/heap"
	"time"
)

// queue starts the probes of one sort in the order in which they are due, so many at
// once and no more. A check is in it once, or under way: probes that are late wait,
// and do not pile up. Nothing runs while nothing is due. Guarded by Monitor.mu.
type queue struct {
	limit   int
	advice  string // for when it is late
	running int
	waiting byDue
	timer   *time.Timer
}

// next is the check that is due first, if it is due and may start.
func (q *queue) next(now time.Time) *runner {
	if q.running >= q.limit || len(q.waiting) == 0 || q.waiting[0].due.After(now) {
		return nil
	}
	q.running++
	return heap.Pop(&q.waiting).(*runner)
}

func (q *queue) add(r *runner) { heap.Push(&q.waiting, r) }

// remove takes r out, if it is not under way.
func (q *queue) remove(r *runner) {
	if r.index >= 0 {
		heap.Remove(&q.waiting, r.index)
	}
}

// byDue is a heap.
type byDue []*runner

func (b byDue) Len() int           { return len(b) }
func (b byDue) Less(i, j int) bool { return b[i].due.Before(b[j].due) }
func (b byDue) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].index, b[j].index = i, j
}

func (b *byDue) Push(x any) {
	r := x.(*runner)
	r.index = len(*b)
	*b = append(*b, r)
}

func (b *byDue) Pop() any {
	last := len(*b) - 1
	r := (*b)[last]
	(*b)[last] = nil
	*b = (*b)[:last]
	r.index = -1
	return r
}
