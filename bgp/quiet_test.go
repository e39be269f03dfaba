package bgp

import (
	"net/netip"
	"testing"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// Whatever a pass decides by, another one of it is not the same.
func TestInputsSame(t *testing.T) {
	addr := netip.MustParseAddr("203.0.113.10")
	prefix := speaker.HostPrefix(addr)
	cfg, check := &Config{}, health.Check{Address: "192.0.2.1:80"}
	inputsOf := func() *inputs {
		return &inputs{cfg: cfg, orders: DrainOrders{Node: &DrainOrder{Reason: "r"}, VIPs: map[netip.Addr]DrainOrder{addr: {Reason: "r"}}},
			checks: map[health.Check]health.State{check: {Status: health.Up}},
			now: live{peers: []speaker.Peer{{Address: addr, Received: speaker.PeerCounters{Total: 1}}},
				addrs: vip.Held{Own: map[netip.Addr]vip.How{addr: vip.Route}, Foreign: map[netip.Addr]bool{}},
				table: speaker.Table{Own: map[netip.Prefix]speaker.Path{prefix: {Prefix: prefix}}, Foreign: map[netip.Prefix]int{prefix: 1}}}}
	}
	last, counted := inputsOf(), inputsOf()
	counted.now.peers[0].Received.Total++
	if !inputsOf().same(last) || !counted.same(last) || last.same(nil) {
		t.Error("equal ones differ, or one is the same as none")
	}
	for name, change := range map[string]func(*inputs){
		"configuration":  func(i *inputs) { i.cfg = &Config{} },
		"order, node":    func(i *inputs) { i.orders.Node = nil },
		"order, reason":  func(i *inputs) { i.orders.Node.Reason = "s" },
		"order, VIP":     func(i *inputs) { i.orders.VIPs = nil },
		"check":          func(i *inputs) { i.checks[check] = health.State{Status: health.Down} },
		"session":        func(i *inputs) { i.now.peers[0].Established = true },
		"peer":           func(i *inputs) { i.now.peers = nil },
		"AS of a peer":   func(i *inputs) { i.now.peers[0].ASN = 1 },
		"held":           func(i *inputs) { i.now.addrs.Own[addr] = vip.Address },
		"not held":       func(i *inputs) { delete(i.now.addrs.Own, addr) },
		"others' hold":   func(i *inputs) { i.now.addrs.Foreign[addr] = true },
		"path":           func(i *inputs) { i.now.table.Own[prefix] = speaker.Path{Prefix: prefix, ASPath: []uint32{1}} },
		"no path":        func(i *inputs) { delete(i.now.table.Own, prefix) },
		"path of others": func(i *inputs) { i.now.table.Foreign[prefix]++ },
	} {
		changed := inputsOf()
		change(changed)
		if changed.same(last) || last.same(changed) {
			t.Errorf("%s: taken for the same", name)
		}
	}
}
