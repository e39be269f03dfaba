package labcluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// Watch looks again and again, until it is stopped, for a router that would send
// packets for a VIP to a node that does not hold it.
type Watch struct {
	stop  chan struct{}
	done  sync.WaitGroup
	mu    sync.Mutex
	found []string
	looks int
}

// Watch starts to look at all VIPs that are held as addresses and the routers of these names.
func (c *Cluster) Watch(routers ...string) *Watch {
	w := &Watch{stop: make(chan struct{})}
	for _, name := range routers {
		w.done.Go(func() {
			for {
				select {
				case <-w.stop:
					return
				case <-time.After(50 * time.Millisecond): // between two looks
				}
				if found := c.blackholes(name); len(found) > 0 {
					w.mu.Lock()
					w.found = append(w.found, found...)
					w.mu.Unlock()
				}
				w.mu.Lock()
				w.looks++
				w.mu.Unlock()
			}
		})
	}
	return w
}

// blackholes looks at the hosts, at the router, and at the hosts again: a VIP that
// was not held before and after it was routed was not held while it was. What
// cannot be read, since it is just killed, is not looked at.
func (c *Cluster) blackholes(router string) (found []string) {
	before := c.held()
	daemon := c.Routers[router].daemon()
	if daemon == nil {
		return nil
	}
	routes, err := daemon.Routes()
	if err != nil {
		return nil
	}
	for id, held := range c.held() {
		for _, v := range c.Nodes[id].VIPs() {
			missing := before[id] != nil && !before[id][v.Address] && !held[v.Address]
			if missing && v.Hold == "address" && slices.ContainsFunc(routes, func(r lab.Route) bool {
				return r.Prefix.Addr() == v.Address && r.NextHop == c.Nodes[id].NextHop(v.Address)
			}) {
				found = append(found, fmt.Sprintf("%s: router %s sends %s to %s, which does not hold it", time.Now().UTC().Format(time.RFC3339Nano), router, v.Address, id))
			}
		}
	}
	return found
}

func (c *Cluster) held() map[string]map[netip.Addr]bool {
	all := map[string]map[netip.Addr]bool{}
	for id, n := range c.Nodes {
		if held, err := n.Held(); err == nil {
			all[id] = held
		}
	}
	return all
}

// Stop ends the watch, and tells what was found.
func (w *Watch) Stop() error {
	close(w.stop)
	w.done.Wait()
	if w.looks == 0 {
		return errors.New("the watch has not looked once")
	}
	if len(w.found) > 0 {
		return fmt.Errorf("%d times in %d looks, first: %s", len(w.found), w.looks, w.found[0])
	}
	return nil
}

// Found is how often something was found so far.
func (w *Watch) Found() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.found)
}
