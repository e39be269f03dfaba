package scenarios

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/labcluster"
	"github.com/centra/plasmacloud/vmtests/scenario"
)

// called is a cluster whose nodes and peers are called as the lab's own hosts and files,
// with routers behind other hops, two of one network; they connect to Debian's gobgpd, which
// lets them wait.
const called = `{
	plasmacloud.cluster = {
		name = "called";
		nodes.deployer = { role = "control-plane"; ip = "10.0.0.11"; ipv6 = "2001:db8:0:1::11"; services = [ "fiberlb" ]; };
		nodes.transit = { role = "worker"; ip = "10.0.0.12"; ipv6 = "2001:db8:0:1::12"; services = [ "fiberlb" ]; };
		bootstrap.initialPeers = [ "deployer" ];
		bgp.asn = 65001;
		bgp.peers.client = { address = "10.0.0.1"; asn = 65000; };
		bgp.peers.switch = { address = "10.0.9.1"; asn = 65000; multihop = 2; };
		bgp.peers.mgmt = { address = "10.0.9.2"; asn = 65000; multihop = 2; };
		bgp.peers.pid = { address = "2001:db8:9::77"; asn = 65000; multihop = 2; };
	};
	plasmacloud.network.fiberlbBgp = { enable = true; vips = [ "203.0.113.20" ]; };
}`

// Whatever nodes and peers are called, and however many routers are far, the lab comes up;
// who is behind none of these is told at once.
func TestNamesOfTheLabsOwn(t *testing.T) {
	t.Parallel()
	evaluated, err := labcluster.Evaluate(t.Context(), repo, map[string]string{"it": called})
	require.NoError(t, err)
	c, err := labcluster.Start(labcluster.Config{Name: "called", Alone: true, Programs: programs.With("debian"), Cluster: evaluated["it"], Deployer: true, Clients: true})
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	require.NoError(t, err)
	require.NoError(t, labcluster.Err(c.Settle(t.Context(), patience)))
	assert.Equal(t, "lab-deployer", c.Deployer.Host.Name)

	play := func(command string) *scenario.Result {
		s, err := scenario.Parse("it", []byte("cluster start\n"+command))
		require.NoError(t, err)
		return s.Play(t.Context(), scenario.Stage{Patience: patience, Stands: true,
			Start: func(context.Context, scenario.Change) (*labcluster.Cluster, error) { return c, nil }})
	}
	assert.Empty(t, play("client pulls $VIP via $ROUTER").Error)
	assert.Equal(t, "it needs two routers that forward, BIRD or FRR, on a link with the nodes", play("client pulls $VIP via $ROUTER2").Skipped)
	result := play("client pulls $VIP via switch")
	assert.Equal(t, "no client is behind router switch; there is one behind: client", strings.TrimPrefix(result.Error, "line 2: client pulls $VIP via switch: "))
	assert.Less(t, result.Took, patience/2)
}
