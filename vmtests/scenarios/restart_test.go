package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
	"github.com/centra/plasmacloud/vmtests/scenario"
)

// restarting is a cluster of one node whose gobgpd is to be killed; more are options of its peers.
func restarting(more string) string {
	return `{
		plasmacloud.cluster = {
			name = "restarting";
			nodes.node01 = { role = "control-plane"; ip = "10.0.0.11"; ipv6 = "2001:db8:0:1::11"; services = [ "fiberlb" ]; };
			bootstrap.initialPeers = [ "node01" ];
			bgp.asn = 65001;
			bgp.peers.bird1 = { address = "10.0.0.1"; asn = 65000; ` + more + ` };
			bgp.peers.frr3 = { address = "10.0.0.3"; asn = 65000; ` + more + ` };
			bgp.peers.gobgp2 = { address = "10.0.0.2"; asn = 65000; ` + more + ` };
		};
		plasmacloud.network.fiberlbBgp = { enable = true; vips = [ "203.0.113.1" "2001:db8:2::1" ]; };
	}`
}

// gaps samples a router's table without a pause, and counts how often a route was not in it.
type gaps struct {
	stop chan struct{}
	done sync.WaitGroup

	samples, missing int
	err              error
}

func sample(router lab.Router, prefix netip.Prefix) *gaps {
	g := &gaps{stop: make(chan struct{})}
	g.done.Go(func() {
		for g.err == nil {
			select {
			case <-g.stop:
				return
			default:
			}
			var hops []netip.Addr
			if hops, g.err = router.Lookup(prefix); len(hops) == 0 {
				g.missing++
			}
			g.samples++
		}
	})
	return g
}

func (g *gaps) end(t *testing.T) {
	t.Helper()
	close(g.stop)
	g.done.Wait()
	require.NoError(t, g.err)
	require.Greater(t, g.samples, 2) // of FRR, which is slow to tell; of BIRD there are thousands
}

// Routers that agreed on graceful restart keep the routes of a gobgpd that is killed, for
// as long as it is away and when it comes back, without a gap; those that did not lose
// them, and get them back.
func TestSpeakerKilled(t *testing.T) {
	t.Parallel()
	evaluated, err := labcluster.Evaluate(t.Context(), repo, map[string]string{
		"graceful": restarting(""), "plain": restarting("gracefulRestart.enable = false;")})
	require.NoError(t, err)
	for name, e := range evaluated {
		for _, speaker := range labcluster.Speakers {
			t.Run(name+" "+speaker, func(t *testing.T) {
				t.Parallel()
				testSpeakerKilled(t, start(t, strings.ReplaceAll(name, " ", "")+speaker, speaker, e), name == "graceful", speaker)
			})
		}
	}
}

func testSpeakerKilled(t *testing.T, c *labcluster.Cluster, graceful bool, speaker string) {
	expectAll(t, c)
	node, vip := c.Nodes["node01"], netip.MustParsePrefix("203.0.113.1/32")
	sessions := func(want int) {
		t.Helper()
		require.NoError(t, lab.Eventually(patience, func() error {
			for name, r := range c.Routers {
				if up, err := r.Established(); err != nil || up != want {
					return fmt.Errorf("%s has %d sessions, %w", name, up, err)
				}
			}
			return nil
		}))
	}
	sessions(1)
	sampled := map[string]*gaps{}
	for name, r := range c.Routers {
		sampled[name] = sample(r, vip)
	}
	require.NoError(t, node.Speaker.Kill())
	sessions(0)
	if !graceful {
		require.NoError(t, lab.Eventually(patience, func() error {
			for name, r := range c.Routers {
				if n, err := r.Count(); err != nil || n > 0 {
					return fmt.Errorf("%s still has %d routes, %w", name, n, err)
				}
			}
			return nil
		}))
	}
	require.NoError(t, node.StartSpeaker())
	sessions(1)
	expectAll(t, c)
	for name, g := range sampled {
		g.end(t)
		if graceful {
			// GoBGP 3 was seen to leave BIRD without for some 40 ms when the session was up
			// again, on a busy machine; without graceful restart it is seconds.
			most := 0
			if speaker != "v4" {
				most = g.samples / 50
			}
			assert.LessOrEqual(t, g.missing, most, "%s had no route in so many of %d samples", name, g.samples)
		} else {
			assert.NotZero(t, g.missing, "%s had a route all the while", name)
		}
	}
}

// The watch of the other tests sees what it is for.
func TestWatchSeesABlackhole(t *testing.T) {
	t.Parallel()
	evaluated, err := labcluster.Evaluate(t.Context(), repo, map[string]string{"it": restarting("")})
	require.NoError(t, err)
	c := start(t, "blackhole", "v4", evaluated["it"])
	expectAll(t, c)
	require.NoError(t, c.Nodes["node01"].Announcer.Kill())
	watch := c.Watch("bird1")
	_, err = c.Nodes["node01"].IP("addr", "del", "203.0.113.1/32", "dev", "lo")
	require.NoError(t, err)
	require.NoError(t, lab.Eventually(patience, func() error {
		if watch.Found() == 0 {
			return errors.New("nothing is found")
		}
		return nil
	}))
	assert.ErrorContains(t, watch.Stop(), "router bird1 sends 203.0.113.1 to node01, which does not hold it")
}

// A scenario that fails ends what it has begun, its watch too. It is alone here: the
// watches of others would be found.
func TestFailureEndsTheWatch(t *testing.T) {
	evaluated, err := labcluster.Evaluate(t.Context(), repo, map[string]string{"it": restarting("")})
	require.NoError(t, err)
	s, err := scenario.Parse("it", []byte("cluster start\nnever blackholed\nwait soon\n"))
	require.NoError(t, err)
	on := stage(t, "v4")
	on.Start = func(context.Context, scenario.Change) (*labcluster.Cluster, error) {
		return labcluster.Start(labcluster.Config{Name: "failure", Programs: programs.With("v4"), Cluster: evaluated["it"], Routers: []string{"bird"}})
	}
	watches := func() bool {
		stacks := make([]byte, 1<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "labcluster.(*Cluster).Watch")
	}
	on.Failed = func(*labcluster.Cluster) {}
	on.Step = func(line int, _ string) { assert.Equal(t, line == 3, watches()) }
	result := s.Play(t.Context(), on)
	assert.Equal(t, `line 3: wait soon: "soon" is no duration from 0s to 1h`, result.Error)
	assert.False(t, watches())
}
