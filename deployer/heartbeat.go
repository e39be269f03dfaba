package deployer

import (
	"time"

	"github.com/centra/plasmacloud/deployer/node"
)

// MaxHeartbeatInterval is as far as a heartbeat interval is stretched.
const MaxHeartbeatInterval = time.Hour

// heartbeatInterval is what a node of a fleet of so many is told, so that all of them
// together send no more than rate heartbeats a second. It grows in steps of a quarter:
// each node keeps what it was told, which is a write whenever that changes.
func heartbeatInterval(least time.Duration, rate, nodes int) time.Duration {
	need := time.Duration(float64(nodes) / float64(rate) * float64(time.Second))
	interval := least
	for interval < need && interval < MaxHeartbeatInterval {
		interval += interval / 4
	}
	if interval > least { // nodes are told whole seconds
		interval = (interval + time.Second - 1).Truncate(time.Second)
	}
	return max(least, min(interval, MaxHeartbeatInterval))
}

// reporting is how many nodes send heartbeats, or did: one that is offline now may be
// back at any time, with all others that are.
func (c *Census) reporting() int {
	all := 0
	for _, n := range c.States {
		all += n
	}
	return all - c.States[node.Pending] - c.States[node.Decommissioned]
}

// HeartbeatInterval is what nodes are told now.
func (r *Registry) HeartbeatInterval() time.Duration {
	nodes := 0
	if c := r.census.Load(); c != nil {
		nodes = c.reporting()
	}
	return heartbeatInterval(r.cfg.HeartbeatInterval, r.cfg.HeartbeatRate, nodes)
}
