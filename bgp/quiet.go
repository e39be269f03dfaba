package bgp

import (
	"maps"
	"slices"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
)

// inputs are what a pass decides by, but for the time and for what is under way. A pass
// that did nothing would do nothing again as long as they are the same.
type inputs struct {
	cfg    *Config
	orders DrainOrders
	checks map[health.Check]health.State
	now    live
}

func (i *inputs) state(c health.Check) health.State { return i.checks[c] }

// inputs are those of the pass that has read now.
func (a *Announcer) inputs(cfg *Config, now live) *inputs {
	i := &inputs{cfg: cfg, orders: a.DrainOrders(), checks: map[health.Check]health.State{}, now: now}
	for _, v := range cfg.VIPs {
		for _, c := range v.Checks {
			if _, known := i.checks[c]; !known {
				i.checks[c] = a.health(c)
			}
		}
	}
	return i
}

func (i *inputs) same(last *inputs) bool {
	return last != nil && i.cfg == last.cfg &&
		equalOrder(i.orders.Node, last.orders.Node) && maps.Equal(i.orders.VIPs, last.orders.VIPs) &&
		maps.Equal(i.checks, last.checks) &&
		slices.EqualFunc(i.now.peers, last.now.peers, func(p, q speaker.Peer) bool {
			return p.Address == q.Address && p.ASN == q.ASN && p.Established == q.Established
		}) &&
		maps.Equal(i.now.addrs.Own, last.now.addrs.Own) && maps.Equal(i.now.addrs.Foreign, last.now.addrs.Foreign) &&
		maps.Equal(i.now.table.Foreign, last.now.table.Foreign) &&
		maps.EqualFunc(i.now.table.Own, last.now.table.Own, speaker.Path.Equal)
}

func equalOrder(o, p *DrainOrder) bool { return o == p || o != nil && p != nil && *o == *p }

// idle reports whether r is of a pass that did nothing and waits for nothing.
func (a *Announcer) idle(r result) bool {
	return r.err == nil && r.next.IsZero() && r.now.tableKnown && r.now.addrsKnown && len(a.past) == 0 &&
		len(a.haste.fresh) == 0 && len(a.haste.gone) == 0 && len(a.released) == 0
}

// stillIdle makes the status of the last pass the current one, brought up to date.
func (a *Announcer) stillIdle(now live, began time.Time) {
	s := a.lastStatus()
	s.At, s.Took, s.Interval, s.Peers = time.Now(), time.Since(began), a.interval(), now.peers
	a.set(s)
}
