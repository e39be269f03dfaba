package deployer

import (
	"time"

	"github.com/centra/plasmacloud/deployer/node"
)

// Census is how many nodes there are of each kind, as of At.
type Census struct {
	At           time.Time
	States       map[node.State]int
	Reachability map[node.Reachability]int
	Config       map[node.Config]int
	Held         int // by an operator
	Waiting      int // for an operator's approval
	Undeclared   int
	Unreadable   int // in no other number
}

// Census is the last one. One is made whenever all nodes are read, which the upkeep
// does again and again; asking for it reads nothing. While the store cannot be read
// there is none.
func (r *Registry) Census() (c Census, ok bool) {
	last := r.census.Load()
	if last == nil || r.deaf.Load() {
		return Census{}, false
	}
	return *last, true
}

// Leading says whether this registry looks after the deadlines.
func (r *Registry) Leading() bool { return r.cfg.Lead == nil || r.cfg.Lead() }

// StoreUsable says whether the last read of the store and the last write to it
// succeeded.
func (r *Registry) StoreUsable() bool { return !r.deaf.Load() && r.writeFailed.Load() == nil }

func (r *Registry) count(nodes []node.Node, unreadable int) {
	c := Census{
		At: r.cfg.Now(), Unreadable: unreadable,
		States: map[node.State]int{}, Reachability: map[node.Reachability]int{}, Config: map[node.Config]int{},
	}
	for _, n := range nodes {
		v := r.view(r.refresh(n))
		c.States[v.State]++
		c.Reachability[v.Reachability]++
		c.Config[v.Config]++
		if v.Held != nil {
			c.Held++
		}
		if v.Waiting {
			c.Waiting++
		}
		if !v.Declared {
			c.Undeclared++
		}
	}
	r.census.Store(&c)
}
