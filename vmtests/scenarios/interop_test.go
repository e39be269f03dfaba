package scenarios

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// cluster is a Nix module: one node with these peers, and VIPs that have
// everything that a VIP may have.
func cluster(peers string) string {
	return `{
		plasmacloud.cluster = {
			name = "interop";
			nodes.node01 = { role = "control-plane"; ip = "10.0.0.11"; ipv6 = "2001:db8:0:1::11"; services = [ "fiberlb" ]; };
			bootstrap.initialPeers = [ "node01" ];
			bgp = { asn = 65001; peers = { ` + peers + ` }; };
		};
		plasmacloud.network.fiberlbBgp = {
			enable = true;
			drainDelay = "1s";
			vips = [
				"203.0.113.1"
				"2001:db8:2::1"
				{ address = "203.0.113.2"; med = 77; localPref = 300; communities = [ "65001:100" "65001:200" "65001:4294967295:7" "4200000000:1:2" ]; prepend = 2; }
				{ address = "2001:db8:2::2"; med = 4294967295; localPref = 0; communities = [ "65535:65281" "65001:3:4" ]; prepend = 1; hold = "route"; }
				{ address = "203.0.113.4"; communities = [ "0:0" "65535:0" "65535:1" "65535:2" "65535:3" "65535:4" "65535:5" "65535:7" "65535:8" "65535:9" ]; }
				{ address = "203.0.113.5"; communities = [ "65535:65281" "65535:65282" "65535:65283" "65535:65284" ]; }
				{ address = "203.0.113.6"; communities = [ "65535:666" ]; }
				{ address = "203.0.113.7"; communities = [ "65535:666" "65535:65282" ]; }
				{ address = "203.0.113.3"; checks = [ { type = "http"; url = "http://127.0.0.1:8080/"; interval = "100ms"; timeout = "100ms"; } ]; }
				{ address = "2001:db8:2::3"; hold = "none"; }
			];
		};
	}`
}

// sessions are the kinds of session that a speaker may have with a router, as
// options of the peer; the last one is with a router of its own AS.
var sessions = []string{
	`address = "10.0.0.%d"; asn = 65000;`,
	`address = "10.0.9.%d"; asn = 65000; multihop = 2;`,
	`address = "10.0.0.%d"; asn = 65002; passwordFile = "/run/secrets/peer";`,
	`address = "2001:db8:0:1::%d"; asn = 65001;`,
}

// Every speaker meets every router, every speaker has every kind of session, and
// so has every router; not every one of the 36 at once. What the router has is what
// the cluster says.
func TestInterop(t *testing.T) {
	t.Parallel()
	routers := []string{"bird", "frr", "gobgp"}
	modules, speakers := map[string]string{}, map[string]string{}
	for i, speaker := range labcluster.Speakers {
		var external strings.Builder
		for k, session := range sessions {
			peer := fmt.Sprintf("%s%d = { "+session+" };\n", routers[(i+k)%len(routers)], k+1, k+1)
			if k < len(sessions)-1 {
				external.WriteString(peer)
				continue
			}
			// Alone, since beside such a peer nothing is prepended.
			modules[speaker+"i"], speakers[speaker+"i"] = cluster(peer), speaker
		}
		modules[speaker+"e"], speakers[speaker+"e"] = cluster(external.String()), speaker
	}
	evaluated, err := labcluster.Evaluate(t.Context(), repo, modules)
	require.NoError(t, err)
	for name, e := range evaluated {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, "io"+name, speakers[name], e)
			expectAll(t, c)
		})
	}
}

// expectAll waits until each router has exactly what the cluster says.
func expectAll(t *testing.T, c *labcluster.Cluster) {
	t.Helper()
	require.NoError(t, lab.Eventually(patience, func() error {
		var errs []error
		for name := range c.Routers {
			errs = append(errs, c.Check(name, c.Wanted(name, nil)))
		}
		return errors.Join(errs...)
	}))
}
