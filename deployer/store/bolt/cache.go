package bolt

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
)

// cache has nodes as the last transaction left them, so that reading one needs neither a
// transaction nor its JSON. Only this process writes the file, and only [commits] writes
// nodes: it publishes what a transaction changed before anybody is told of it.
//
// The nodes share what they refer to with those who were given them: nobody changes
// that, see [store.Store].
type cache struct {
	seed      maphash.Seed
	mu        sync.RWMutex
	nodes     map[string]kept // by id
	published uint64          // transactions
}

// kept is a node's record, with when it was heard since. Without a record it stands for
// one that the file has and the cache does not.
type kept struct {
	record *node.Node
	sum    uint64    // of the bytes that the file has of it
	seen   time.Time // zero: the record has it
}

func (k kept) node() node.Node {
	n := *k.record
	if !k.seen.IsZero() {
		n.LastSeen = k.seen
	}
	return n
}

func newCache() *cache { return &cache{seed: maphash.MakeSeed(), nodes: map[string]kept{}} }

func (c *cache) sum(value []byte) uint64 { return maphash.Bytes(c.seed, value) }

func (c *cache) get(id string) (k kept, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	k, ok = c.nodes[id]
	return k, ok
}

// now is what add wants to be given by those who read the file from then on.
func (c *cache) now() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.published
}

// add keeps what was read, unless it may have changed since.
func (c *cache) add(id string, k kept, since uint64) {
	if known, ok := c.get(id); ok && known == k {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.published == since {
		c.nodes[id] = k
	}
}

// publish is called after each transaction that may have changed nodes, with those. What
// the file has of them after one that failed is to be read anew.
func (c *cache) publish(changed map[string]kept, committed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published++
	for id, k := range changed {
		if committed && k.record != nil {
			c.nodes[id] = k
		} else {
			delete(c.nodes, id)
		}
	}
}

// clear is for a file that is closed.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published++
	clear(c.nodes)
}
