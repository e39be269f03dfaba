package scenarios

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/labcluster"
	"github.com/centra/plasmacloud/vmtests/scenario"
)

// The scenarios that ship with plasmactl are written for any cluster. This one has
// timers that let a test end.
const quick = `{
	plasmacloud.cluster = {
		name = "quick";
		nodes.node01 = { role = "control-plane"; ip = "10.0.0.11"; ipv6 = "2001:db8:0:1::11"; services = [ "fiberlb" ]; };
		nodes.node02 = { role = "worker"; ip = "10.0.0.12"; ipv6 = "2001:db8:0:1::12"; services = [ "fiberlb" ]; };
		nodes.node03 = { role = "worker"; ip = "10.0.0.13"; };
		bootstrap.initialPeers = [ "node01" ];
		bgp.asn = 65001;
		bgp.peers.bird1 = { address = "10.0.0.1"; asn = 65000; timers.hold = 3; timers.connectRetry = 1; };
		bgp.peers.frr2 = { address = "10.0.0.2"; asn = 65000; timers.hold = 3; timers.connectRetry = 1; };
	};
	plasmacloud.network.fiberlbBgp = {
		enable = true;
		drainDelay = "2s";
		vips = [
			"203.0.113.20"
			{ address = "203.0.113.10"; checks = [ { type = "tcp"; address = "127.0.0.1:8080"; interval = "200ms"; timeout = "200ms"; } ]; }
			{ address = "2001:db8:2::10"; checks = [ { type = "exec"; command = [ "/usr/local/bin/ask" ]; interval = "200ms"; timeout = "200ms"; } ]; }
		];
	};
}`

// No request is lost to a drain, a reload, or a restart of a daemon; what a power cut
// loses is bounded by the hold time. Each scenario says so itself.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	all, err := scenario.At("namespaces")
	require.NoError(t, err)
	clusters, names := map[string]string{"it": quick}, map[string]string{"": "it"} // by the module that a scenario adds
	for _, s := range all {
		for _, module := range s.Files {
			names[module] = s.Name
			clusters[s.Name] = fmt.Sprintf("{ modules = [ (%s) ]; nixosModules = [ (%s) ]; }", quick, module)
		}
	}
	require.Greater(t, len(clusters), 1)
	evaluated, err := labcluster.Evaluate(t.Context(), repo, clusters)
	require.NoError(t, err)
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			on := stage(t, "v4")
			on.Evaluate = func(_ context.Context, change scenario.Change) (*labcluster.Evaluated, error) {
				require.Contains(t, names, change.Module)
				return evaluated[names[change.Module]], nil
			}
			on.Start = func(ctx context.Context, change scenario.Change) (*labcluster.Cluster, error) {
				e, err := on.Evaluate(ctx, change)
				if err != nil {
					return nil, err
				}
				return labcluster.Start(labcluster.Config{Name: "catalog", Programs: programs.With("v4"), Cluster: e, Deployer: true, Clients: true})
			}
			result := s.Play(t.Context(), on)
			require.Empty(t, result.Skipped)
			require.Empty(t, result.Error)
			assert.NotEmpty(t, s.Title)
			for _, v := range result.Clients {
				assert.Greater(t, v.Tally.Requests, 10, "of %s by %s", v.VIP, v.Router)
			}
		})
	}
}
