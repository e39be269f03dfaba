package vmtests

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// The daemons behind one description; gobgpd of either generation reads the same.
var backends = map[string]struct {
	backend string
	start   func(*speaking) *lab.Process
}{
	"bird":     {"bird", (*speaking).startBIRD},
	"frr":      {"frr", (*speaking).startFRR},
	"gobgp v3": {"gobgp", func(s *speaking) *lab.Process { return s.startGoBGP("v3") }},
	"gobgp v4": {"gobgp", func(s *speaking) *lab.Process { return s.startGoBGP("v4") }},
}

// files is what a daemon gets to read, by name.
type files map[string]string

// render is what nix-nos makes of a description in nix/tests/nix-nos/good, with
// more said in Nix, for each backend.
func render(t *testing.T, description, more string, backends ...string) map[string]files {
	t.Helper()
	names := ""
	for _, name := range backends {
		names += fmt.Sprintf(" %q", name)
	}
	out, err := exec.Command("nix", "--extra-experimental-features", "nix-command", "eval", "--impure", "--json", "--expr", fmt.Sprintf(`
		let lib = import ../nix/offline/lib; in
		lib.genAttrs [ %s ] (backend: import ../nix/tests/nix-nos/speaker.nix {
		  inherit lib backend;
		  module = { imports = [ ../nix/tests/nix-nos/good/%s.nix ]; nix-nos.bgp = { %s }; };
		})`, names, description, more)).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		t.Fatalf("evaluate the description: %s", failed.Stderr)
	}
	require.NoError(t, err)
	var evaluated map[string]struct {
		Failures []string
		Files    files
	}
	require.NoError(t, json.Unmarshal(out, &evaluated))
	all := map[string]files{}
	for backend, e := range evaluated {
		require.Empty(t, e.Failures, backend)
		all[backend] = e.Files
	}
	return all
}

// speaking is a speaker among routers: two of another AS, one of its own, and
// one of a third that takes IPv4 only.
type speaking struct {
	t       *testing.T
	node    *lab.Host
	routers map[string]lab.Router
	files   string // folder
}

func startSpeaking(t *testing.T) *speaking {
	t.Helper()
	l, err := lab.New("backend")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	s := &speaking{t: t, routers: map[string]lab.Router{}}
	segment := map[*lab.Host][]netip.Prefix{}
	host := func(name string, id int) *lab.Host {
		h, err := l.Host(name)
		require.NoError(t, err)
		segment[h] = []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", id)),
			netip.MustParsePrefix(fmt.Sprintf("2001:db8:0:1::%d/64", id)),
		}
		return h
	}
	s.node = host("node", 11)
	s.files = filepath.Join(l.Dir, "files")
	hosts := map[string]*lab.Host{"bird": host("bird", 1), "frr": host("frr", 2), "inside": host("inside", 3), "only4": host("only4", 4)}
	require.NoError(t, l.Switch(segment))

	speaker := lab.Neighbor{Address: netip.MustParseAddr("10.0.0.11"), ASN: 65001}
	start := func(name string, start func(*lab.Host, lab.RouterConfig) (lab.Router, error), cfg lab.RouterConfig, n lab.Neighbor) {
		cfg.Neighbors = []lab.Neighbor{n}
		cfg.RouterID = segment[hosts[name]][0].Addr()
		var err error
		s.routers[name], err = start(hosts[name], cfg)
		require.NoError(t, err)
	}
	start("bird", (*lab.Host).StartBIRD, lab.RouterConfig{ASN: 65000, Passive: true, Announces: []netip.Prefix{learned, dropped}}, speaker)
	start("frr", (*lab.Host).StartFRR, lab.RouterConfig{ASN: 65000}, speaker)
	secured := speaker
	secured.TTLSecurity = true
	start("only4", (*lab.Host).StartBIRD, lab.RouterConfig{ASN: 65002, Passive: true, Announces: []netip.Prefix{allowed}}, secured)
	inside := speaker
	inside.Address = netip.MustParseAddr("2001:db8:0:1::11")
	start("inside", (*lab.Host).StartBIRD, lab.RouterConfig{ASN: 65001, Passive: true}, inside)
	return s
}

// give puts the files of a description where the daemon finds them.
func (s *speaking) give(f files) {
	s.t.Helper()
	require.NoError(s.t, os.MkdirAll(s.files, 0o755))
	for name, text := range f {
		require.NoError(s.t, os.WriteFile(filepath.Join(s.files, name), []byte(text), 0o644))
	}
}

func (s *speaking) run(args ...string) {
	s.t.Helper()
	_, err := s.node.Run(args...)
	require.NoError(s.t, err)
}

func (s *speaking) checkBIRD() { s.run("bird", "-p", "-c", filepath.Join(s.files, "bird.conf")) }

func (s *speaking) startBIRD() *lab.Process {
	s.checkBIRD()
	process, err := s.node.StartBIRDFrom(filepath.Join(s.files, "bird.conf"))
	require.NoError(s.t, err)
	return process
}

func (s *speaking) checkFRR() {
	// vtysh wants a file of its own beside FRR's.
	require.NoError(s.t, os.WriteFile(filepath.Join(s.files, "vtysh.conf"), nil, 0o644))
	s.run("vtysh", "--config_dir", s.files, "--vty_socket", s.node.Dir, "-C")
}

func (s *speaking) startFRR() *lab.Process {
	s.checkFRR()
	process, err := s.node.StartFRRFrom(s.files)
	require.NoError(s.t, err)
	return process
}

func (s *speaking) startGoBGP(generation string) *lab.Process {
	gobgp, conf := filepath.Join(bin, generation), filepath.Join(s.files, "gobgpd.toml")
	s.run(filepath.Join(gobgp, "gobgpd"), "-f", conf, "--dry-run")
	process, err := s.node.Start("gobgpd", filepath.Join(gobgp, "gobgpd"), "-f", conf, "--api-hosts", "127.0.0.1:50051")
	require.NoError(s.t, err)
	s.run("env", "PATH="+gobgp+":"+os.Getenv("PATH"), "RUNTIME_DIRECTORY="+s.node.Dir, "WANTED="+filepath.Join(s.files, "announcements"),
		"GOBGP_HOST=127.0.0.1", "GOBGP_PORT=50051", "GOBGP_AS=65001", "bash", "-e", "../nix/nix-nos/modules/bgp/gobgp-announce.sh")
	return process
}

func (s *speaking) expect(want map[string][]lab.Route) {
	s.t.Helper()
	for _, routes := range want {
		slices.SortFunc(routes, func(a, b lab.Route) int { return strings.Compare(a.Prefix.String(), b.Prefix.String()) })
	}
	got := map[string][]lab.Route{}
	err := lab.Eventually(patience, func() error {
		for name, router := range s.routers {
			routes, err := router.Routes()
			if err != nil {
				return err
			}
			for i := range routes {
				slices.Sort(routes[i].Communities) // a set, which daemons send in orders of their own
				slices.Sort(routes[i].Large)
				if routes[i].Prefix == learned || routes[i].Prefix == allowed {
					routes[i].NextHop = netip.Addr{} // a daemon may name the router itself, as all are on one segment
				}
			}
			if got[name] = routes; !assert.ObjectsAreEqual(show(want[name]), show(routes)) {
				return fmt.Errorf("%s has other routes", name)
			}
		}
		return nil
	})
	for _, name := range slices.Sorted(maps.Keys(want)) {
		assert.Equal(s.t, show(want[name]), show(got[name]), name)
	}
	require.NoError(s.t, err)
}

// show is a line for each route.
func show(routes []lab.Route) string {
	var b strings.Builder
	for _, r := range routes {
		fmt.Fprintf(&b, "%+v\n", r)
	}
	return b.String()
}

// What routers announce.
var (
	learned = netip.MustParsePrefix("198.51.100.0/24") // by bird
	dropped = netip.MustParsePrefix("198.51.101.0/24") // by bird, and not in the description's import
	allowed = netip.MustParsePrefix("198.51.102.0/24") // by only4, as many as it may
)

// heard is what each router has of nix/tests/nix-nos/good/all.nix.
func heard() map[string][]lab.Route {
	route := func(prefix, nextHop string, more lab.Route) lab.Route {
		more.Prefix, more.NextHop = netip.MustParsePrefix(prefix), netip.MustParseAddr(nextHop)
		return more
	}
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
			passed["inside"] = append(passed["inside"], lab.Route{Prefix: learned, ASPath: []uint32{65000}})
			for name, path := range map[string][]uint32{"bird": {65001, 65002}, "frr": {65001, 65002}, "inside": {65002}} {
				passed[name] = append(passed[name], lab.Route{Prefix: allowed, ASPath: path})
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

// What one daemon has not is proved where it is, as far as the daemon's checker goes.
func TestBFDIsWhatTheCheckersTake(t *testing.T) {
	l, err := lab.New("bfd")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	node, err := l.Host("node")
	require.NoError(t, err)
	for backend, f := range render(t, "bfd", "", "bird", "frr") {
		s := &speaking{t: t, node: node, files: filepath.Join(l.Dir, backend)}
		s.give(f)
		map[string]func(){"bird": s.checkBIRD, "frr": s.checkFRR}[backend]()
	}
}
