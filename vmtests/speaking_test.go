package vmtests

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
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
	var evaluated map[string]struct {
		Failures []string
		Files    files
	}
	nix(t, fmt.Sprintf(`
		let lib = import ../nix/offline/lib; in
		lib.genAttrs [ %s ] (backend: import ../nix/tests/nix-nos/speaker.nix {
		  inherit lib backend;
		  module = { imports = [ ../nix/tests/nix-nos/good/%s.nix ]; nix-nos.bgp = { %s }; };
		})`, names, description, more), &evaluated)
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
	files   string   // folder
	more    []string // arguments of FRR's bgpd
	env     []string // of gobgpd
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
	process, err := s.node.StartFRRFrom(s.files, s.more...)
	require.NoError(s.t, err)
	return process
}

func (s *speaking) startGoBGP(generation string) *lab.Process {
	gobgp, conf := filepath.Join(bin, generation), filepath.Join(s.files, "gobgpd.toml")
	s.run(filepath.Join(gobgp, "gobgpd"), "-f", conf, "--dry-run")
	process, err := s.node.Start("gobgpd", slices.Concat([]string{"env"}, s.env, []string{filepath.Join(gobgp, "gobgpd"), "-f", conf, "--api-hosts", "127.0.0.1:50051"})...)
	require.NoError(s.t, err)
	require.NoError(s.t, s.announce(generation))
	return process
}

// announce does what the unit gobgpd-announcements does as it starts or reloads.
func (s *speaking) announce(generation string) error {
	_, err := s.node.Run("env", "PATH="+filepath.Join(bin, generation)+":"+os.Getenv("PATH"), "RUNTIME_DIRECTORY="+s.node.Dir,
		"WANTED="+filepath.Join(s.files, "announcements"), "GOBGP_HOST=127.0.0.1", "GOBGP_PORT=50051", "GOBGP_AS=65001",
		"bash", "-e", "../nix/nix-nos/modules/bgp/gobgp-announce.sh")
	return err
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

func route(prefix, nextHop string, more lab.Route) lab.Route {
	more.Prefix, more.NextHop = netip.MustParsePrefix(prefix), netip.MustParseAddr(nextHop)
	return more
}

// change is routes with some of them changed; those that it returns false for go.
func change(routes []lab.Route, f func(prefix string, r *lab.Route) bool) []lab.Route {
	var changed []lab.Route
	for _, r := range routes {
		if f(r.Prefix.String(), &r) {
			changed = append(changed, r)
		}
	}
	return changed
}
