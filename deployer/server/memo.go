package server

import (
	"bytes"
	"hash/maphash"
	"sync"

	"github.com/centra/plasmacloud/deployer/node"
)

// memo remembers what accepted reports were read as. A heartbeat is the very bytes of
// the one before it, and reading it is half of the work that it makes. What comes from
// reading depends on nothing but the bytes, so there is nothing to bring up to date.
type memo struct {
	seed maphash.Seed

	mu      sync.RWMutex
	entries map[uint64]remembered
}

type remembered struct {
	body   []byte
	id     string
	report node.Report // what it refers to is shared: nobody changes it
}

// How many reports are remembered, and how long ones. Beyond that others are forgotten.
const (
	maxRemembered     = 16384
	maxRememberedBody = 2 << 10
)

func newMemo() *memo {
	return &memo{seed: maphash.MakeSeed(), entries: map[uint64]remembered{}}
}

func (m *memo) find(body []byte) (id string, report node.Report, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, ok := m.entries[maphash.Bytes(m.seed, body)]
	if !ok || !bytes.Equal(e.body, body) {
		return "", node.Report{}, false
	}
	return e.id, e.report, true
}

// keep remembers the report of id that was accepted, and belongs to body.
func (m *memo) keep(body []byte, id string, report node.Report) {
	if len(body) > maxRememberedBody {
		return
	}
	report.Credentials = nil // they come in headers
	key := maphash.Bytes(m.seed, body)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.entries) >= maxRemembered {
		for other := range m.entries { // any
			delete(m.entries, other)
			break
		}
	}
	m.entries[key] = remembered{bytes.Clone(body), id, report}
}
