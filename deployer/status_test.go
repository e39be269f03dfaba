package deployer_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
)

func TestStatus(t *testing.T) {
	w := newWorld(t, func(c *deployer.Config) { c.Approval, c.AllowUnknownNodes = node.ApproveUndeclared, true })
	w.declare(declared("active", "drifted", "failed", "gone", "held", "sold", "spare")...)
	if err := w.DeclareVIPs([]deployer.VIPDeclaration{{VIP: "203.0.113.10/32", Nodes: []string{"active"}}}); err != nil {
		t.Fatal(err)
	}
	w.says("gone", report(node.PhaseReady))
	w.clock.add(time.Hour)
	other := report(node.PhaseReady)
	other.Hash = hash2
	for id, r := range map[string]node.Report{
		"active": report(node.PhaseReady), "drifted": other, "failed": report(node.PhaseFailed), "held": report(node.PhaseBooted),
		"sold": report(node.PhaseReady), "stranger": report(node.PhaseBooted),
	} {
		r.MachineID = machineA[:30] + id[:4]
		w.says(id, r)
	}
	for id, verb := range map[string]node.Event{"held": node.EventHold, "sold": node.EventDecommission} {
		if _, err := w.Operate(t.Context(), id, verb, deployer.Operator{Name: "alice"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	views, err := w.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := w.StatusOf(views, w.VIPsOf(views))
	want := deployer.Status{
		Nodes:        8,
		States:       map[node.State]int{node.Active: 3, node.Failed: 1, node.Provisioning: 1, node.Decommissioned: 1, node.Pending: 2},
		Reachability: map[node.Reachability]int{node.Online: 6, node.Offline: 1, node.Unknown: 1},
		Config:       map[node.Config]int{node.InSync: 5, node.Drifted: 1, node.ConfigUnknown: 2},
		Held:         1, Waiting: 1, Undeclared: 1,
		VIPs: map[node.VIPStatus]int{node.Unannounced: 1},
		Warnings: []string{
			"1 VIP that no node announces: 203.0.113.10/32", "1 Failed: failed", "1 Active and offline: gone", "1 waiting for an approval: stranger",
			"1 with another configuration than the manifest expects: drifted", "1 decommissioned, and have not acknowledged it: sold",
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}
