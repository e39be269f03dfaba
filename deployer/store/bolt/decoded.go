package bolt

import (
	"hash/maphash"
	"sync"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// decoded keeps the nodes beside their records, since decoding one takes longer than
// all else that a heartbeat asks of the store. What is kept goes with the hash of the
// very bytes that the file has, under a seed of this process, so nothing has to be told
// of a change, whether it was committed or not.
//
// The nodes share what they refer to with those who were given them: nobody changes
// that, see [store.Store].
type decoded struct {
	seed  maphash.Seed
	mu    sync.RWMutex
	nodes map[string]entry // by id
}

type entry struct {
	sum  uint64
	node *node.Node
}

func newDecoded() *decoded {
	return &decoded{seed: maphash.MakeSeed(), nodes: map[string]entry{}}
}

// node decodes the record value of id.
func (d *decoded) node(id, value []byte) (node.Node, error) {
	sum := maphash.Bytes(d.seed, value)
	d.mu.RLock()
	kept := d.nodes[string(id)]
	d.mu.RUnlock()
	if kept.node != nil && kept.sum == sum {
		return *kept.node, nil
	}
	n, err := store.Decode(string(id), "nodes/"+string(id), value)
	if err != nil {
		return node.Node{}, err
	}
	d.put(sum, n)
	return n, nil
}

// encoded is called with what n was stored as.
func (d *decoded) encoded(value []byte, n node.Node) { d.put(maphash.Bytes(d.seed, value), n) }

func (d *decoded) put(sum uint64, n node.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nodes[n.ID] = entry{sum, &n}
}
