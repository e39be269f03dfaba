package labcluster

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// What the deployer does not list is as wrong as what it lists and nobody wants.
func TestCompareVIPs(t *testing.T) {
	t.Parallel()
	says := func(id, state string) api.VIPNode { return api.VIPNode{ID: id, State: state} }
	wanted := map[string][]string{"203.0.113.10/32": {"a", "b"}, "203.0.113.9/32": nil}
	nobody := api.VIP{VIP: "203.0.113.9/32", Declared: true}
	vip := func(declared bool, nodes ...api.VIPNode) []api.VIP {
		return []api.VIP{nobody, {VIP: "203.0.113.10/32", Declared: declared, Nodes: nodes}}
	}
	a, b := says("a", node.VIPAnnounced), says("b", node.VIPAnnounced)
	assert.Equal(t, []Check{
		{Where: "deployer", What: "all nodes of 203.0.113.9/32 announce it", OK: true},
		{Where: "deployer", What: "all nodes of 203.0.113.10/32 announce it", OK: true},
	}, compareVIPs(wanted, vip(true, a, b, says("c", "withdrawn"))))
	for reason, got := range map[string][]api.VIP{
		"it does not list the VIP":           {nobody},
		"its manifest does not have the VIP": vip(false, a, b),
		"b is not among its nodes":           vip(true, a),
		`b says ""`:                          vip(true, a, says("b", "")),
		"c announces it, and is not to":      vip(true, a, b, says("c", node.VIPAnnounced)),
		"it has 2001:db8::1/128":             append(vip(true, a, b), api.VIP{VIP: "2001:db8::1/128"}),
	} {
		failed := Failed(compareVIPs(wanted, got))
		if assert.Len(t, failed, 1, reason) {
			assert.Equal(t, reason, failed[0].Reason)
		}
	}
	assert.Len(t, Failed(compareVIPs(wanted, nil)), 2, "an empty list")
}
