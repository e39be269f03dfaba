package vmtests

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// ruled is what each router has of good/policy.nix.
func ruled() map[string][]lab.Route {
	all := heard()
	all["bird"] = nil
	all["frr"] = append(change(all["frr"], func(prefix string, r *lab.Route) bool {
		r.Communities = append(r.Communities, "65001:905")
		if prefix == "203.0.114.0/24" {
			r.MED, r.ASPath = 77, append(r.ASPath, 65001)
			r.Communities, r.Large = []string{"65001:1", "65001:2", "65001:903"}, append(r.Large, "65001:1:3")
			slices.Sort(r.Large)
		}
		return prefix == "203.0.114.0/24" || r.Prefix.Addr().Is6()
	}), lab.Route{Prefix: allowed, ASPath: []uint32{65001, 65002}, Communities: []string{"65001:902", "65001:905"}})
	all["inside"] = append(change(all["inside"], func(prefix string, r *lab.Route) bool {
		if prefix == "203.0.113.0/24" || prefix == "203.0.114.0/24" {
			r.LocalPref, r.MED = 300, 3
			return true
		}
		return prefix == "203.0.115.7/32" || prefix == "2001:db8:3::/64"
	}),
		lab.Route{Prefix: learned, ASPath: []uint32{65000}, MED: 7, LocalPref: 250, Communities: []string{"65001:900", "65001:904"}, Large: []string{"65001:9:9"}},
		lab.Route{Prefix: allowed, ASPath: []uint32{65002}, LocalPref: 50, Communities: []string{"65001:902", "65001:904"}})
	all["only4"] = append(all["only4"], lab.Route{Prefix: learned, ASPath: []uint32{65001, 65000}, Communities: []string{"65001:900"}, Large: []string{"65001:9:9"}})
	return all
}

// aggregated is what each router has of good/aggregate.nix.
func aggregated() map[string][]lab.Route {
	all := heard()
	for name, routes := range all {
		routes = change(routes, func(prefix string, _ *lab.Route) bool {
			return prefix != "203.0.113.0/24" && prefix != "203.0.114.0/24" && prefix != "203.0.115.7/32"
		})
		whole := route("203.0.112.0/22", "10.0.0.11", lab.Route{ASPath: []uint32{65001}, Communities: []string{"65001:112"}})
		if name == "inside" {
			whole.ASPath, whole.LocalPref = nil, 100
		}
		all[name] = append(routes, whole)
	}
	all["bird"] = append(all["bird"], route("2001:db8::/44", "2001:db8:0:1::11", lab.Route{ASPath: []uint32{65001}}))
	return all
}

// heard is what each router has of nix/tests/nix-nos/good/all.nix.
func heard() map[string][]lab.Route {
	path := func(length int) []uint32 { return slices.Repeat([]uint32{65001}, length) }
	plain := route("203.0.113.0/24", "10.0.0.11", lab.Route{ASPath: path(1)})
	rich := route("203.0.114.0/24", "10.0.0.99", lab.Route{ASPath: path(3), MED: 5,
		Communities: []string{"65001:1", "65001:2"}, Large: []string{"65001:1:2", "65001:4294967295:0"}})
	some := route("203.0.115.7/32", "10.0.0.11", lab.Route{ASPath: path(1)})
	noExport := route("203.0.116.0/22", "10.0.0.11", lab.Route{ASPath: path(2), Communities: []string{"65535:65281"}})
	v6 := route("2001:db8:1::/48", "2001:db8:0:1::11", lab.Route{ASPath: path(1), MED: 4294967295, Communities: []string{"65001:100"}})
	v6Prepended := route("2001:db8:2::10/128", "2001:db8:0:1::99", lab.Route{ASPath: path(2)})
	v6Inside := route("2001:db8:3::/64", "2001:db8:0:1::11", lab.Route{})

	inside := func(r lab.Route, pref uint32) lab.Route {
		r.ASPath, r.LocalPref = nil, pref
		return r
	}
	all := map[string][]lab.Route{
		"bird":   {plain, rich, noExport, v6, v6Prepended},
		"frr":    {plain, rich, some, v6, v6Prepended},
		"inside": {inside(plain, 100), inside(rich, 200), inside(some, 100), inside(v6, 100), inside(v6Prepended, 50), inside(v6Inside, 100)},
		"only4":  {plain, rich},
	}
	return all
}

// Whichever the daemon, its checker takes what nix-nos wrote, and the routers
// hear the same routes.
func TestBackendsAreEqual(t *testing.T) {
	t.Parallel()
	all := []string{"bird", "frr", "gobgp"}
	own := render(t, "all", "", all...)
	// Without graceful restart, so that no route of the one is left to the next.
	transit := render(t, "all", "transit = true; gracefulRestart.enable = false;", all...)
	limit := render(t, "limit", "", "bird", "gobgp")
	for name, b := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSpeaking(t)
			s.give(own[b.backend])
			process := b.start(s)
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("%s:\n%s", name, process.Output())
				}
			})
			s.expect(heard())

			// Graceful restart is agreed on with all but the router frr, which alone
			// forgets the routes of a speaker that dies.
			require.NoError(t, process.Kill())
			dead := heard()
			dead["frr"] = nil
			s.expect(dead)

			s.give(transit[b.backend])
			process = b.start(s)
			passed := heard()
			passed["only4"] = append(passed["only4"], lab.Route{Prefix: learned, ASPath: []uint32{65001, 65000}})
			passed["inside"] = append(passed["inside"],
				lab.Route{Prefix: learned, ASPath: []uint32{65000}, LocalPref: 100},
				lab.Route{Prefix: allowed, ASPath: []uint32{65002}, LocalPref: 100})
			for _, name := range []string{"bird", "frr"} {
				passed[name] = append(passed[name], lab.Route{Prefix: allowed, ASPath: []uint32{65001, 65002}})
			}
			s.expect(passed)
			if limit[b.backend] == nil {
				return
			}
			require.NoError(t, process.Kill())

			// Each may send one route. The router bird sends two, and only4 one.
			s.give(limit[b.backend])
			process = b.start(s)
			refused := heard()
			refused["bird"] = nil
			s.expect(refused)
		})
	}
}

// What comes in and goes out by rules is the same whichever the daemon, and so is what
// one of them can do alone.
func TestBackendsFollowRules(t *testing.T) {
	t.Parallel()
	policy := render(t, "policy", "", "bird", "frr", "gobgp")
	aggregate := render(t, "aggregate", "", "frr")
	for name, b := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSpeaking(t)
			s.give(policy[b.backend])
			process := b.start(s)
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("%s:\n%s", name, process.Output())
				}
			})
			s.expect(ruled())
			if aggregate[b.backend] == nil {
				return
			}
			require.NoError(t, process.Kill())

			s.give(aggregate[b.backend])
			process = b.start(s)
			s.expect(aggregated())
		})
	}
}

// A route that gobgpd refuses is an error, and keeps no other one from coming or going.
func TestRefusedAnnouncementsKeepNoOthersBack(t *testing.T) {
	t.Parallel()
	l, err := lab.New("refused")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	node, err := l.Host("node")
	require.NoError(t, err)
	s := &speaking{t: t, node: node, files: filepath.Join(l.Dir, "files")}
	line := func(prefix string) string { return prefix + " origin igp nexthop 10.0.0.11 -a ipv4\n" }
	s.give(files{"gobgpd.toml": "[global.config]\nas = 65001\nrouter-id = \"10.0.0.11\"\n", "announcements": line("203.0.113.0/24")})
	s.startGoBGP("v4")
	table := func(want ...string) {
		t.Helper()
		out, err := node.Run(filepath.Join(bin, "v4", "gobgp"), "global", "rib", "-j")
		require.NoError(t, err)
		var got map[string]any
		require.NoError(t, json.Unmarshal([]byte(out), &got))
		assert.Equal(t, want, slices.Sorted(maps.Keys(got)))
	}
	table("203.0.113.0/24")

	s.give(files{"announcements": line("203.0.114.0/33") + line("203.0.115.0/24")})
	require.Error(t, s.announce("v4"))
	table("203.0.115.0/24")
	s.give(files{"announcements": strings.Replace(line("203.0.115.0/24"), "igp", "igp med x", 1) + line("203.0.116.0/24")})
	require.Error(t, s.announce("v4"))
	table("203.0.115.0/24", "203.0.116.0/24")
	s.give(files{"announcements": line("203.0.116.0/24")})
	require.NoError(t, s.announce("v4"))
	table("203.0.116.0/24")
}
