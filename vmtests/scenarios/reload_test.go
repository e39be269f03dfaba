package scenarios

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// backends is a cluster with a node of each backend, by its name, which announces these
// prefixes, and one with a VIP; more are options of the peer.
func backends(more, vip string, prefixes ...string) string {
	announcements := ""
	for _, prefix := range prefixes {
		announcements += fmt.Sprintf("{ prefix = %q; } ", prefix)
	}
	node := func(name, more string) string {
		return fmt.Sprintf(`nodeModules.%s.nix-nos.bgp = {
			enable = true; backend = %q; asn = 65001; routerId = "10.0.0.9"; announcements = [ %s ]; %s
			peers.bird1 = { address = "10.0.0.1"; asn = 65000; timers.connectRetry = 1; %%s };
		};
		`, name, name, announcements, more)
	}
	modules := fmt.Sprintf(node("gobgp", `gobgp.apiAddress = "[::1]:50052";`)+node("bird", "")+node("frr", ""), more, more, more)
	return `{
		modules = [ {
			plasmacloud.cluster = {
				name = "backends";
				nodes.vip = { role = "control-plane"; ip = "10.0.0.11"; services = [ "fiberlb" ]; };
				nodes.gobgp = { role = "worker"; ip = "10.0.0.12"; };
				nodes.bird = { role = "worker"; ip = "10.0.0.13"; };
				nodes.frr = { role = "worker"; ip = "10.0.0.14"; };
				bootstrap.initialPeers = [ "vip" ];
				bgp = { asn = 65001; peers.bird1 = { address = "10.0.0.1"; asn = 65000; }; };
			};
			plasmacloud.network.fiberlbBgp = { enable = true; drainDelay = "1s"; vips = [ "` + vip + `" ]; };
		} ];
		` + modules + `
	}`
}

// Another configuration comes to what it says, by a reload where the lab has one; the API
// of a gobgpd is at an address of either family.
func TestReloadOfBackends(t *testing.T) {
	t.Parallel()
	evaluated, err := labcluster.Evaluate(t.Context(), repo, map[string]string{
		"before": backends("", "203.0.113.20", "198.51.100.0/25", "192.0.2.0/24"),
		"after":  backends("timers.hold = 30;", "203.0.113.21", "198.51.100.128/25", "192.0.2.0/24"),
	})
	require.NoError(t, err)
	c, err := labcluster.Start(labcluster.Config{Name: "reload", Programs: programs.With("v4"), Cluster: evaluated["before"], Deployer: true})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Log())
		}
		assert.NoError(t, c.Close())
	})
	require.NoError(t, err)
	require.NoError(t, labcluster.Err(c.Settle(t.Context(), patience)))
	before := map[string]int{}
	for id, n := range c.Nodes {
		before[id] = n.Speaker.PID()
	}
	require.NoError(t, c.Reload(evaluated["after"], c.NodeIDs()...))
	require.NoError(t, labcluster.Err(c.Settle(t.Context(), patience)))
	for id, n := range c.Nodes {
		assert.Equal(t, id == "frr", n.Speaker.PID() != before[id], "%s is restarted", id)
	}
}
