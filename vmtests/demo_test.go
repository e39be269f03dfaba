package vmtests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// demoHost is a host of its own for a demo, so that its ports are free.
func demoHost(t *testing.T) *lab.Host {
	t.Helper()
	l, err := lab.New("around")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	host, err := l.Host("demo")
	require.NoError(t, err)
	return host
}

func startDemo(t *testing.T, host *lab.Host, args ...string) *lab.Process {
	t.Helper()
	p, err := host.Start("demo", append([]string{filepath.Join(bin, "plasmactl"), "demo", "--lib", "offline"}, args...)...)
	require.NoError(t, err)
	return p
}

// flakeOf makes a user's flake with this cluster.nix.
func flakeOf(t *testing.T, cluster string) []string {
	t.Helper()
	repo, err := filepath.Abs("..")
	require.NoError(t, err)
	flake := t.TempDir()
	require.NoError(t, os.CopyFS(flake, os.DirFS("../nix/examples/three-nodes")))
	require.NoError(t, os.WriteFile(filepath.Join(flake, "cluster.nix"), []byte(cluster), 0o600))
	return []string{"--flake", flake, "--override-input", "plasmacloud=path:" + repo}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	host := demoHost(t)
	p := startDemo(t, host, "--flake", "..#three-nodes")
	require.NoError(t, p.Err(), p.Output())
	out := p.Output()
	for _, part := range []string{
		"cluster three-nodes with 3 nodes and 3 VIPs",
		"gRPC API on 127.0.0.1:50051",
		"the router has lost this VIP and no other",
		"the host still holds every address",
		"the addresses are gone too",
		"All of it worked",
	} {
		assert.Contains(t, out, part)
	}
	assert.Equal(t, 3+2+3, strings.Count(out, "  65001  "), "routes in three tables of the router:\n%s", out)
}

func TestDemoOfOtherClusters(t *testing.T) {
	t.Parallel()
	const nodes = `plasmacloud.cluster = {
		name = "mine";
		nodes.solo = { role = "control-plane"; ip = "192.0.2.5"; services = [ "fiberlb" ]; };
		bootstrap.initialPeers = [ "solo" ];`
	for name, c := range map[string]struct {
		cluster string
		says    []string
	}{
		"no BGP": {"{ " + nodes + " }; }", []string{"cluster mine with 1 nodes and 0 VIPs", "shows the nodes only", "solo"}},
		"VIPs without checks": {"{ " + nodes + ` bgp = { asn = 4200000000; peers.r = { address = "192.0.2.1"; asn = 65000; }; }; };
			plasmacloud.network.fiberlbBgp = { enable = true; vips = [ "198.51.100.7" ]; }; }`,
			[]string{"198.51.100.7/32", "4200000000", "no VIP of this cluster has a health check", "the addresses are gone too"}},
		"iBGP, the router's own id, patient checks": {`{ plasmacloud.cluster = {
				name = "mine";
				nodes.a = { role = "control-plane"; ip = "192.0.2.9"; services = [ "fiberlb" ]; };
				nodes.b = { role = "worker"; ip = "192.0.2.1"; };
				bootstrap.initialPeers = [ "a" ];
				bgp = { asn = 65000; peers.r = { address = "192.0.2.254"; asn = 65000; }; };
			};
			plasmacloud.network.fiberlbBgp = { enable = true; vips = [
				{ address = "198.51.100.7"; nodes = [ "b" ]; startDelay = "1h"; damping = { }; checks = [
					{ type = "systemd"; unit = "fiberlb.service"; fall = 150; rise = 150; }
					{ type = "http"; url = "http://127.0.0.1:80/"; status = [ 204 ]; body = "x"; }
				]; }
			]; }; }`,
			[]string{"the speaker of b", "198.51.100.7/32", "lost this VIP and no other", "the addresses are gone too"}},
		"all that a cluster may say of its machines and VIPs": {`{ plasmacloud.cluster = {
				name = "mine";
				sites.berlin.bgp.peers.r = { address = "192.0.2.254"; asn = 65000; };
				nodes.a = {
					role = "control-plane"; ip = "192.0.2.5"; services = [ "fiberlb" ]; site = "berlin";
					identity = { macs = [ "52:54:00:12:34:56" ]; serial = "CZ3412X0PQ"; };
				};
				bgp.asn = 65001;
				deployer.url = "https://deployer.example.org:8443";
			};
			plasmacloud.network.fiberlbBgp = {
				enable = true;
				metrics = { enable = true; address = null; };
				vips = [
					{ address = "198.51.100.7"; hold = "route"; drainDelay = "45s"; prepend = 2; checks = [ { type = "tcp"; address = "127.0.0.1:80"; } ]; }
					{ address = "198.51.100.8"; hold = "none"; }
				];
			}; }`,
			[]string{"198.51.100.7/32", "198.51.100.8/32", "lost this VIP and no other", "the addresses are gone too"}},
		"many VIPs": {"{ " + nodes + ` bgp = { asn = 65001; peers.r = { address = "192.0.2.254"; asn = 65000; }; }; };
			plasmacloud.network.fiberlbBgp = { enable = true; vips = builtins.genList (i: {
				address = "198.51.100.${toString i}"; checks = [ { type = "http"; url = "http://127.0.0.1:80/"; } ];
			}) 250; }; }`,
			[]string{"250 VIPs", "lost this VIP and no other", "the addresses are gone too"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startDemo(t, demoHost(t), flakeOf(t, c.cluster)...)
			require.NoError(t, p.Err(), p.Output())
			for _, part := range append(c.says, "All of it worked") {
				assert.Contains(t, p.Output(), part)
			}
		})
	}
}

func TestDemoWithPortTaken(t *testing.T) {
	t.Parallel()
	host := demoHost(t)
	other, err := host.Start("other", "env", backendAddress+"=127.0.0.1:50051", os.Args[0])
	require.NoError(t, err)
	require.NoError(t, lab.Eventually(patience, func() error {
		_, err := host.Run("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/50051")
		return err
	}))
	p := startDemo(t, host, "--flake", "..#three-nodes")
	require.Error(t, p.Err())
	assert.Contains(t, p.Output(), "127.0.0.1:50051")
	assert.Contains(t, p.Output(), "address already in use")
	require.NoError(t, other.Kill())
}

func TestDemoOfAWrongCluster(t *testing.T) {
	t.Parallel()
	p := startDemo(t, demoHost(t), flakeOf(t, `{ plasmacloud.cluster = { name = "mine"; nodes.a = { role = "worker"; ip = "10.0.0.1"; }; }; }`)...)
	require.Error(t, p.Err())
	assert.Contains(t, p.Output(), "fails its assertions")
	assert.Contains(t, p.Output(), "control-plane")
	assert.NotContains(t, p.Output(), "2. ", "nothing was started")
}
