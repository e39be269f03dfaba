package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// Pages of nodes, and what watchers of nodes are sent, are cut from all nodes as they
// were at one time, read from the store for all who ask.
const (
	listPagesAtOnce = 32
	pageBytes       = 1 << 20   // of a page; gRPC's clients take 4 MiB
	batchBytes      = 256 << 10 // of a message to a watcher
	pageAge         = 10 * time.Second
	watchAge        = time.Second
	fleetIdle       = 15 * time.Second // then nobody wants it any more
)

type fleet struct {
	mu   sync.Mutex
	last *fleetState
	idle *time.Timer
}

// fleetState is all nodes at one time, without their history.
type fleetState struct {
	began time.Time
	took  time.Duration // to be read
	nodes []api.Node    // by ascending id

	marked sync.Once
	marks  marks
}

// get is the state that was made last where that will do, else a new one.
func (s *server) fleetState(enough func(*fleetState) bool) (*fleetState, error) {
	f := &s.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil || !enough(f.last) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // whoever leaves meanwhile
		defer cancel()
		began := time.Now()
		views, err := s.registry.Nodes(ctx)
		if err != nil {
			return nil, err
		}
		next := &fleetState{began: began, nodes: make([]api.Node, len(views))}
		for i, v := range views {
			next.nodes[i] = wireNode(v)
			next.nodes[i].History = nil
		}
		next.took = time.Since(began)
		f.last = next
	}
	if f.idle == nil {
		f.idle = time.AfterFunc(fleetIdle, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.last = nil
		})
	} else {
		f.idle.Reset(fleetIdle)
	}
	return f.last, nil
}

// after is where the nodes behind id begin.
func (f *fleetState) after(id string) int {
	i, found := slices.BinarySearchFunc(f.nodes, id, func(n api.Node, id string) int { return cmp.Compare(n.ID, id) })
	if found {
		i++
	}
	return i
}

// nodesAfter answers with up to limit nodes behind the node after, or less where they are
// large. A first page has all that was answered before it was asked for.
func (s *server) nodesAfter(r *http.Request, after string, limit int) answer {
	switch {
	case after != "" && !node.ValidID(after):
		return refused(*badQuery("after", "want next of the page before, which is the id of a node"))
	case limit < 0 || limit > api.MaxList:
		return refused(*badLimit())
	case !s.enter(r, s.listPages):
		return busy()
	}
	done := func() { <-s.listPages }
	asked := time.Now()
	state, err := s.fleetState(func(f *fleetState) bool {
		return f.began.After(asked) || after != "" && asked.Sub(f.began) < pageAge
	})
	if err != nil {
		done()
		return s.fail(r, err)
	}
	list := api.NodeList{Nodes: []api.Node{}}
	size := 0
	for _, n := range state.nodes[state.after(after):] {
		if len(list.Nodes) == cmp.Or(limit, api.MaxList) || size > pageBytes {
			list.Next = list.Nodes[len(list.Nodes)-1].ID
			break
		}
		list.Nodes = append(list.Nodes, n)
		size += roughSize(n)
	}
	return answer{status: http.StatusOK, body: list, written: done}
}

// roughSize is about how many bytes a node without history takes.
func roughSize(n api.Node) int {
	size := 512 + len(n.Hold) + len(n.Hostname)
	if n.LastError != nil {
		size += len(n.LastError.Message)
	}
	for key, value := range n.Facts {
		size += len(key) + len(value) + 8
	}
	for _, vip := range n.VIPs {
		size += len(vip) + 4
	}
	for _, v := range n.VIPStates {
		size += len(v.VIP) + len(v.State) + len(v.Reason) + 32
	}
	for _, s := range n.Services {
		size += len(s.Name) + len(s.State) + len(s.Reason) + 32
	}
	return size
}

// marks tell which nodes changed between two states, and between a state and a cursor.
type marks struct {
	ids     []string
	sums    []uint64 // of each node, but for when it was last heard
	buckets digest
}

// digest is what a watcher has: the sum of the nodes in each bucket. A cursor is a
// digest, and so needs nothing remembered by the deployer: it is good over restarts, for
// every deployer of a store, and never too old. Nodes in a bucket that differs are sent
// again.
type digest [64]uint64

const cursorPrefix = "n1."

func (d digest) cursor() string {
	raw := make([]byte, 0, 8*len(d))
	for _, sum := range d {
		raw = binary.BigEndian.AppendUint64(raw, sum)
	}
	return cursorPrefix + base64.RawURLEncoding.EncodeToString(raw)
}

func readDigest(cursor string) (d digest, ok bool) {
	text, ok := strings.CutPrefix(cursor, cursorPrefix)
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if !ok || err != nil || len(raw) != 8*len(d) {
		return d, false
	}
	for i := range d {
		d[i] = binary.BigEndian.Uint64(raw[8*i:])
	}
	return d, true
}

// bucket is where the node id is.
func bucket(id string) int { return int(shortSum([]byte(id)) % uint64(len(digest{}))) }

func shortSum(b []byte) uint64 {
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:])
}

func (f *fleetState) mark() *marks {
	f.marked.Do(func() {
		m := &f.marks
		m.ids, m.sums = make([]string, len(f.nodes)), make([]uint64, len(f.nodes))
		for i, n := range f.nodes {
			n.LastSeen = nil
			m.ids[i], m.sums[i] = n.ID, shortSum(encode(n))
			m.buckets[bucket(n.ID)] += m.sums[i]
		}
	})
	return &f.marks
}

// changed is the indexes of the nodes that a watcher lacks. It has those of before, or
// where that is nil, those of the digest.
func (m *marks) changed(before *marks, has digest) []int {
	var changed []int
	at := 0
	for i, id := range m.ids {
		if before == nil {
			if b := bucket(id); m.buckets[b] != has[b] {
				changed = append(changed, i)
			}
			continue
		}
		for at < len(before.ids) && before.ids[at] < id {
			at++
		}
		if at == len(before.ids) || before.ids[at] != id || before.sums[at] != m.sums[i] {
			changed = append(changed, i)
		}
	}
	return changed
}

// followNodes gives send the nodes that the watcher does not have, then those that
// change, and none for a heartbeat, until send says that the peer is gone or too slow, or
// it has lasted long enough. send has until the deadline, which is the same for all that
// belongs together: a state stays in memory until it is sent. What it answers with is the
// problem that ended it, if any.
func (s *server) followNodes(r *http.Request, has digest, send func(nodes []api.Node, cursor string, deadline time.Time) bool) answer {
	end := time.NewTimer(streamLife)
	defer end.Stop()
	silence := time.NewTicker(s.cfg.Heartbeat)
	defer silence.Stop()
	poll := time.NewTicker(streamPoll)
	defer poll.Stop()
	var before *marks
	for {
		state, err := s.fleetState(func(f *fleetState) bool {
			return time.Since(f.began) < max(watchAge, 10*f.took)
		})
		if err != nil {
			return s.fail(r, err)
		}
		marks := state.mark()
		changed := marks.changed(before, has)
		cursor := marks.buckets.cursor()
		if (before == nil || len(changed) > 0) && !sendBatches(state.nodes, changed, cursor, time.Now().Add(s.cfg.WriteTimeout), send) {
			return answer{}
		}
		before = marks
		select {
		case <-poll.C:
		case <-silence.C:
			if !send(nil, cursor, time.Now().Add(s.cfg.WriteTimeout)) {
				return answer{}
			}
		case <-end.C:
			return answer{}
		case <-r.Context().Done():
			return answer{}
		case <-s.cfg.Stop:
			return answer{}
		}
	}
}

// sendBatches sends the chosen nodes, several in each message, and the cursor with the
// last one.
func sendBatches(nodes []api.Node, chosen []int, cursor string, deadline time.Time, send func([]api.Node, string, time.Time) bool) bool {
	var batch []api.Node
	size := 0
	for _, i := range chosen {
		if size > batchBytes {
			if !send(batch, "", deadline) {
				return false
			}
			batch, size = nil, 0
		}
		batch = append(batch, nodes[i])
		size += roughSize(nodes[i])
	}
	return send(batch, cursor, deadline)
}
