package vmtests

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// cluster is node01 of the example with the very files that Nix generates for
// it, between a BIRD and an FRR router.
type cluster struct {
	t          *testing.T
	generation string // of gobgpd
	node       *lab.Host
	routers    map[string]lab.Router
	settings   string // gobgpd's configuration
	config     string // the announcer's
	announcer  *lab.Process
	gobgpd     *lab.Process
	backend    *lab.Process
}

const patience = 30 * time.Second

func startCluster(t *testing.T, generation string) *cluster {
	t.Helper()
	eval := nixeval.New(nixeval.Config{Lib: nixeval.LibOffline})
	result, err := eval.Eval(t.Context(), "..#three-nodes")
	require.NoError(t, err)
	settings, err := eval.EvalAttr(t.Context(), "..#nixosConfigurations.node01.config.services.gobgpd.settings")
	require.NoError(t, err)
	manifest := result.Manifest.Nodes["node01"]
	announcer, err := manifest.AnnouncerJSON()
	require.NoError(t, err)

	l, err := lab.New("clust" + generation)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	host := func(name string) *lab.Host {
		h, err := l.Host(name)
		require.NoError(t, err)
		return h
	}
	c := &cluster{t: t, generation: generation, node: host("node01"), routers: map[string]lab.Router{}}
	router1, router2 := host("router1"), host("router2")
	prefixes := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	require.NoError(t, l.Switch(map[*lab.Host][]netip.Prefix{
		c.node:  prefixes(manifest.IP+"/24", *manifest.IPv6+"/64"),
		router1: prefixes(manifest.BGP.Peers["router1"].Address+"/24", "2001:db8:0:1::1/64"),
		router2: prefixes(manifest.BGP.Peers["router2"].Address+"/24", "2001:db8:0:1::2/64"),
	}))
	neighbor := []lab.Neighbor{{Address: netip.MustParseAddr(manifest.IP), ASN: manifest.BGP.ASN}}
	c.routers["bird"], err = router1.StartBIRD(lab.RouterConfig{ASN: 65000, RouterID: netip.MustParseAddr("10.0.0.1"), Passive: true, Neighbors: neighbor})
	require.NoError(t, err)
	c.routers["frr"], err = router2.StartFRR(lab.RouterConfig{ASN: 65000, RouterID: netip.MustParseAddr("10.0.0.2"), Passive: true, Neighbors: neighbor})
	require.NoError(t, err)

	c.settings, c.config = filepath.Join(c.node.Dir, "gobgpd.json"), filepath.Join(c.node.Dir, "announcer.json")
	require.NoError(t, os.WriteFile(c.settings, settings, 0o600))
	require.NoError(t, os.WriteFile(c.config, announcer, 0o600))
	c.startBackend()
	c.startSpeaker()
	c.startAnnouncer()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the announcer:\n%s", c.announcer.Output())
			t.Logf("gobgpd:\n%s", c.gobgpd.Output())
		}
	})
	return c
}

func (c *cluster) start(name string, args ...string) *lab.Process {
	c.t.Helper()
	p, err := c.node.Start(name, args...)
	require.NoError(c.t, err)
	return p
}

func (c *cluster) startBackend() {
	c.backend = c.start("backend", "env", backendAddress+"=:8080", os.Args[0])
}

func (c *cluster) startSpeaker() {
	c.gobgpd = c.start("gobgpd", filepath.Join(bin, c.generation, "gobgpd"), "-t", "json", "-f", c.settings, "--api-hosts", "127.0.0.1:50051")
}

func (c *cluster) startAnnouncer() {
	c.announcer = c.start("announcer", filepath.Join(bin, "plasmacloud-announcer"), "run", "--config", c.config,
		"--control", filepath.Join(c.node.Dir, "control.sock"), "--drains", filepath.Join(c.node.Dir, "drains.json"),
		"--last", filepath.Join(c.node.Dir, "last.json"), "--sysctls", filepath.Join(c.node.Dir, "sysctls.json"))
}

// expect waits until both routers have exactly these routes.
func (c *cluster) expect(want ...lab.Route) {
	c.t.Helper()
	slices.SortFunc(want, func(a, b lab.Route) int {
		if a.Prefix.String() < b.Prefix.String() {
			return -1
		}
		return 1
	})
	for name, router := range c.routers {
		var got []lab.Route
		err := lab.Eventually(patience, func() (err error) {
			if got, err = router.Routes(); err == nil && !assert.ObjectsAreEqual(len(want), len(got)) {
				err = fmt.Errorf("%s has %v", name, got)
			}
			return err
		})
		require.NoError(c.t, err)
		if len(want) > 0 {
			require.Equal(c.t, want, got, name)
		}
	}
}

func (c *cluster) holds(route lab.Route) bool {
	c.t.Helper()
	held, err := c.node.Held()
	require.NoError(c.t, err)
	return held[route.Prefix.Addr()]
}

func (c *cluster) eventuallyHolds(want bool, routes ...lab.Route) {
	c.t.Helper()
	require.NoError(c.t, lab.Eventually(patience, func() error {
		for _, r := range routes {
			if c.holds(r) != want {
				return fmt.Errorf("%s held: %t", r.Prefix, !want)
			}
		}
		return nil
	}))
}

func (c *cluster) updates() map[string]int {
	c.t.Helper()
	counts := map[string]int{}
	for name, router := range c.routers {
		n, err := router.Updates()
		require.NoError(c.t, err)
		counts[name] = n
	}
	return counts
}

func (c *cluster) gobgp(args ...string) string {
	c.t.Helper()
	out, err := c.node.Run(append([]string{filepath.Join(bin, c.generation, "gobgp")}, args...)...)
	require.NoError(c.t, err)
	return out
}

// checksAnswered waits until the checks have been asked often enough, from now
// on, to have risen: the announcer has then made up its mind about every VIP.
func (c *cluster) checksAnswered() {
	c.t.Helper()
	const enough = 4 // rise is 2
	count := func() int { return strings.Count(c.backend.Output(), asked) }
	begin := count()
	require.NoError(c.t, lab.Eventually(patience, func() error {
		if n := count() - begin; n < enough {
			return fmt.Errorf("the backend was asked %d times", n)
		}
		return nil
	}))
}

// One node's life between two real routers, with each generation of gobgpd on the
// same file from Nix.
func TestExampleBetweenRealRouters(t *testing.T) {
	t.Parallel()
	for _, g := range generations {
		t.Run("gobgpd "+g, func(t *testing.T) {
			t.Parallel()
			testExampleBetweenRealRouters(t, g)
		})
	}
}

// The steps build on each other.
func testExampleBetweenRealRouters(t *testing.T, generation string) {
	c := startCluster(t, generation)
	want := expectations(t)
	v4Checked, v4Always, v6Checked := want.route(t, "node01", "web"), want.route(t, "node01", "always"), want.route(t, "node01", "web6")

	c.expect(v4Checked, v4Always, v6Checked)
	c.eventuallyHolds(true, v4Checked, v4Always, v6Checked)

	// What others put beside ours, to be found again at the end.
	c.gobgp("global", "rib", "add", "198.51.100.1/32", "nexthop", "10.0.0.11", "origin", "igp")
	foreign := lab.Route{Prefix: netip.MustParsePrefix("198.51.100.1/32"), NextHop: netip.MustParseAddr("10.0.0.11"), ASPath: []uint32{65001}}
	require.NoError(t, c.node.Addresses("lo", foreign.Prefix))
	c.expect(v4Checked, v4Always, v6Checked, foreign)

	t.Run("a dead backend takes exactly its VIPs away", func(t *testing.T) {
		c.t = t
		require.NoError(t, c.backend.Kill())
		c.expect(v4Always, foreign)
		c.eventuallyHolds(false, v4Checked, v6Checked)
		assert.True(t, c.holds(v4Always))

		c.startBackend()
		c.expect(v4Checked, v4Always, v6Checked, foreign)
	})

	t.Run("a killed announcer comes back and moves nothing", func(t *testing.T) {
		c.t = t
		before := c.updates()
		require.NoError(t, c.announcer.Kill())
		c.expect(v4Checked, v4Always, v6Checked, foreign)
		c.startAnnouncer()
		c.checksAnswered()
		c.expect(v4Checked, v4Always, v6Checked, foreign)
		assert.Equal(t, before, c.updates(), "the routers were told nothing")
	})

	t.Run("a killed speaker gets its routes back", func(t *testing.T) {
		c.t = t
		require.NoError(t, c.gobgpd.Kill())
		assert.True(t, c.holds(v4Always), "addresses stay while the speaker is away")
		c.startSpeaker()
		// The foreign path was in the speaker's memory only, and is its owner's to bring back.
		c.expect(v4Checked, v4Always, v6Checked)
		c.gobgp("global", "rib", "add", "198.51.100.1/32", "nexthop", "10.0.0.11", "origin", "igp")
		c.expect(v4Checked, v4Always, v6Checked, foreign)
	})

	t.Run("an address that somebody removed is put back", func(t *testing.T) {
		c.t = t
		_, err := c.node.IP("addr", "del", v4Always.Prefix.String(), "dev", "lo")
		require.NoError(t, err)
		c.eventuallyHolds(true, v4Always)
	})

	t.Run("what a killed announcer left behind goes when its VIP is no more", func(t *testing.T) {
		c.t = t
		require.NoError(t, c.announcer.Kill())
		c.changeConfig(func(config map[string]any) {
			config["drain_delay"] = "1s"
			config["vips"] = slices.DeleteFunc(config["vips"].([]any), func(vip any) bool {
				return vip.(map[string]any)["address"] == v4Always.Prefix.Addr().String()
			})
		})
		c.startAnnouncer()
		c.expect(v4Checked, v6Checked, foreign)
		c.eventuallyHolds(false, v4Always)
	})

	t.Run("SIGHUP changes one VIP and no other", func(t *testing.T) {
		c.t = t
		c.changeConfig(func(config map[string]any) {
			config["graceful_shutdown"] = map[string]any{"delay": "4s"}
			for _, vip := range config["vips"].([]any) {
				if vip := vip.(map[string]any); vip["address"] == v4Checked.Prefix.Addr().String() {
					vip["med"] = 50
				}
			}
		})
		before := c.updates()
		require.NoError(t, c.announcer.Signal(syscall.SIGHUP))
		changed := v4Checked
		changed.MED = 50
		require.NoError(t, lab.Eventually(patience, func() error {
			for name, router := range c.routers {
				routes, err := router.Routes()
				if err != nil || !slices.ContainsFunc(routes, func(r lab.Route) bool { return r.MED == 50 }) {
					return fmt.Errorf("%s has %v, %w", name, routes, err)
				}
			}
			return nil
		}))
		c.expect(changed, v6Checked, foreign)
		for name, count := range c.updates() {
			assert.Equal(t, before[name]+1, count, "one UPDATE at %s", name)
		}

		require.NoError(t, os.WriteFile(c.config, []byte(`{"schema_version": 1, "colour": "red"}`), 0o600))
		require.NoError(t, c.announcer.Signal(syscall.SIGHUP))
		require.NoError(t, lab.Eventually(patience, func() error {
			if !strings.Contains(c.announcer.Output(), "colour") {
				return errors.New("the refusal is not logged")
			}
			return nil
		}))
		c.expect(changed, v6Checked, foreign)
	})

	t.Run("SIGTERM asks for other paths first, then withdraws, and lets go last", func(t *testing.T) {
		c.t = t
		require.NoError(t, c.announcer.Signal(syscall.SIGTERM))
		var had time.Time // when a router still had a route of ours
		require.NoError(t, lab.Eventually(patience, func() error {
			for name, router := range c.routers {
				had = time.Now()
				routes, err := router.Routes()
				asked := 0
				for _, r := range routes {
					if slices.Contains(r.Communities, "65535:0") {
						asked++
					}
				}
				if err != nil || asked != 2 {
					return fmt.Errorf("%s has %v, %w", name, routes, err)
				}
			}
			return nil
		}))
		for name, router := range c.routers {
			require.NoError(t, lab.Eventually(patience, func() error {
				now := time.Now()
				routes, err := router.Routes()
				if len(routes) > 1 {
					had = now
					err = fmt.Errorf("%s has %v", name, routes)
				}
				return err
			}))
		}
		c.expect(foreign)
		for _, vip := range []lab.Route{v4Checked, v6Checked} {
			// A busy machine may take longer than the delay to look.
			assert.True(t, c.holds(vip) || time.Since(had) >= time.Second, "%s is let go of before the drain delay of 1s is over", vip.Prefix)
		}
		<-c.announcer.Done()
		require.NoError(t, c.announcer.Err())
		assert.False(t, c.holds(v4Checked))
		assert.False(t, c.holds(v6Checked))
		assert.True(t, c.holds(foreign), "the foreign address is not ours to remove")
		c.expect(foreign)
	})
}

// changeConfig rewrites the announcer's configuration file.
func (c *cluster) changeConfig(change func(map[string]any)) {
	c.t.Helper()
	text, err := os.ReadFile(c.config)
	require.NoError(c.t, err)
	var config map[string]any
	require.NoError(c.t, json.Unmarshal(text, &config))
	change(config)
	text, err = json.Marshal(config)
	require.NoError(c.t, err)
	require.NoError(c.t, os.WriteFile(c.config, text, 0o600))
}
