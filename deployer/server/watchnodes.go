package server

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strings"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
)

// Watchers of nodes are sent what differs between the fleet as they have it and as it is.
const (
	batchBytes = 256 << 10 // of a message to a watcher
	watchAge   = time.Second
)

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

func newMarks(views []deployer.View) *marks {
	m := &marks{ids: make([]string, len(views)), sums: make([]uint64, len(views))}
	for i, v := range views {
		n := wireNode(v)
		n.LastSeen = nil
		m.ids[i], m.sums[i] = n.ID, shortSum(encode(n))
		m.buckets[bucket(n.ID)] += m.sums[i]
	}
	return m
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
	pace := s.newPace(r.Context())
	defer pace.stop()
	var before *marks
	for {
		state, err := s.fleetState(r.Context(), func(f *fleetState) bool {
			return time.Since(f.began) < max(watchAge, 10*f.took)
		})
		if err != nil {
			return s.fail(r, err)
		}
		marks := state.marks()
		changed := marks.changed(before, has)
		cursor := marks.buckets.cursor()
		if (before == nil || len(changed) > 0) && !sendBatches(state.views, changed, cursor, time.Now().Add(s.cfg.WriteTimeout), send) {
			return answer{}
		}
		before = marks
		if !pace.wait(func() bool { return send(nil, cursor, time.Now().Add(s.cfg.WriteTimeout)) }) {
			return answer{}
		}
	}
}

// sendBatches sends the chosen nodes, several in each message, and the cursor with the
// last one.
func sendBatches(views []deployer.View, chosen []int, cursor string, deadline time.Time, send func([]api.Node, string, time.Time) bool) bool {
	var batch []api.Node
	size := 0
	for _, i := range chosen {
		if size > batchBytes {
			if !send(batch, "", deadline) {
				return false
			}
			batch, size = nil, 0
		}
		n := wireNode(views[i])
		batch = append(batch, n)
		size += roughSize(n)
	}
	return send(batch, cursor, deadline)
}
