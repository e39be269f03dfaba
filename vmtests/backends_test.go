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
	"syscall"
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

// A speaker listens where it was told to and nowhere else, and takes a peer with
// the right password alone. No password is in what the store has, or in a log.
func TestBackendsListenAndAskForPasswords(t *testing.T) {
	t.Parallel()
	rendered := render(t, "guarded", "", "bird", "frr", "gobgp")
	for name, b := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := lab.New("guarded")
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, l.Close()) })
			hosts := map[string]*lab.Host{}
			segment := map[*lab.Host][]netip.Prefix{}
			for name, id := range map[string]int{"node": 11, "right": 1, "wrong": 2} {
				hosts[name], err = l.Host(name)
				require.NoError(t, err)
				segment[hosts[name]] = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", id))}
			}
			require.NoError(t, l.Switch(segment))
			s := &speaking{t: t, node: hosts["node"], files: filepath.Join(l.Dir, "files")}
			s.give(rendered[b.backend])

			// BIRD can write no double quote; with the others it is one.
			secret, other := `p"w\$x'&|#!{@`, `other\"$secret`
			conf := map[string]string{"bird": "bird.conf", "frr": "frr.conf", "gobgp": "gobgpd.toml"}[b.backend]
			format := strings.NewReplacer("gobgp", "toml").Replace(b.backend)
			template := filepath.Join(s.files, conf)
			s.files = filepath.Join(l.Dir, "run")
			if b.backend == "gobgp" {
				s.give(files{"announcements": rendered[b.backend]["announcements"]})
			}
			fill := func(right, wrong string) error {
				require.NoError(t, os.WriteFile(filepath.Join(l.Dir, "secret-right"), []byte(right+"\n"), 0o600))
				require.NoError(t, os.WriteFile(filepath.Join(l.Dir, "secret-wrong"), []byte(wrong), 0o600))
				out, err := exec.Command("bash", "../nix/nix-nos/modules/bgp/render-passwords.sh", format, template, filepath.Join(s.files, conf), "/",
					"@password-1@", filepath.Join(l.Dir, "secret-right"), "@password-2@", filepath.Join(l.Dir, "secret-wrong")).CombinedOutput()
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			}
			if b.backend == "bird" {
				assert.ErrorContains(t, fill(secret, "right"), "right: BIRD can read no double quote in a password")
				secret, other = strings.ReplaceAll(secret, `"`, ""), strings.ReplaceAll(other, `"`, "")
			}
			for _, bad := range []string{"", "two words", "a\nb", "n\x00l", strings.Repeat("x", 81), "schlüssel"} {
				assert.ErrorContains(t, fill(secret, bad), "wrong: a password is 1 to 80 printable ASCII characters without blanks")
			}
			require.NoFileExists(t, filepath.Join(s.files, conf))
			require.NoError(t, fill(secret, "else"))
			info, err := os.Stat(filepath.Join(s.files, conf))
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode())

			// As services.frr.bgpd.extraOptions, and as the unit of gobgpd.
			s.more, s.env = []string{"-p", "1179", "-l", "10.0.0.11"}, []string{"GODEBUG=multipathtcp=0"}
			process := b.start(s)
			start := func(name, password string) lab.Router {
				router, err := hosts[name].StartFRR(lab.RouterConfig{ASN: 65000, RouterID: segment[hosts[name]][0].Addr(),
					Neighbors: []lab.Neighbor{{Address: netip.MustParseAddr("10.0.0.11"), ASN: 65001, Port: 1179, Password: password}}})
				require.NoError(t, err)
				return router
			}
			right, wrong := start("right", secret), start("wrong", other)
			has := func(router lab.Router, want ...lab.Route) {
				t.Helper()
				var routes []lab.Route
				err := lab.Eventually(patience, func() (err error) {
					if routes, err = router.Routes(); err == nil && len(routes) != len(want) {
						err = fmt.Errorf("%d routes", len(routes))
					}
					return err
				})
				if err != nil {
					t.Logf("%s: %s", name, process.Output())
				}
				require.NoError(t, err)
				assert.Equal(t, want, routes)
			}
			path := []uint32{65001}
			chosen := route("203.0.113.0/24", "10.0.0.11", lab.Route{ASPath: path, MED: 5, Communities: []string{"65001:1"}})
			has(right, chosen)
			require.NoError(t, lab.Eventually(patience, func() error {
				out, err := hosts["node"].Run("nstat", "-asz", "TcpExtTCPMD5Failure")
				if err != nil {
					return err
				}
				_, count, _ := strings.Cut(out, "TcpExtTCPMD5Failure")
				if fields := strings.Fields(count); len(fields) == 0 || fields[0] == "0" {
					return fmt.Errorf("no wrong password has come yet: %s", out)
				}
				return nil
			}))
			has(wrong)

			listening, err := hosts["node"].Run("ss", "-Hltn", "( sport = 179 or sport = 1179 )")
			require.NoError(t, err)
			for line := range strings.Lines(listening) {
				assert.Equal(t, "10.0.0.11:1179", strings.Fields(line)[3])
			}
			assert.NotEmpty(t, listening)

			if b.backend != "frr" { // its reload is a program of its own
				require.NoError(t, fill(secret, other))
				if b.backend == "bird" {
					s.run("birdc", "-s", filepath.Join(hosts["node"].Dir, "bird.ctl"), "configure")
				} else {
					require.NoError(t, process.Signal(syscall.SIGHUP))
				}
				has(wrong, route("203.0.113.0/24", "10.0.0.11", lab.Route{ASPath: path}), route("203.0.114.0/24", "10.0.0.11", lab.Route{ASPath: path}))
				has(right, chosen)
			}
			assert.NoError(t, filepath.WalkDir(l.Dir, func(path string, entry os.DirEntry, err error) error {
				if err != nil || !entry.Type().IsRegular() || strings.HasPrefix(entry.Name(), "secret-") ||
					strings.HasPrefix(path, hosts["right"].Dir) || strings.HasPrefix(path, hosts["wrong"].Dir) || path == filepath.Join(s.files, conf) {
					return err
				}
				text, err := os.ReadFile(path)
				assert.NotContains(t, string(text), secret, path)
				return err
			}))
		})
	}
}

// Two routers of other ASes announce the same, and the kernel has a way by each; one
// of the speaker's own AS has a route that the kernel gets too. One of the former
// is cut off where the speaker's link stays up, and BFD tells long before the hold
// time is over.
func TestBackendsUseTheKernelAndBFD(t *testing.T) {
	t.Parallel()
	// With graceful restart FRR waits for some seconds before it installs its first routes.
	rendered := render(t, "kernel", "gracefulRestart.enable = false;", "bird", "frr")
	maps.Copy(rendered, render(t, "bfd", "gracefulRestart.enable = false;", "gobgp"))
	for _, name := range []string{"bird", "frr", "gobgp v4"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := lab.New("kernel")
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, l.Close()) })
			hosts := map[string]*lab.Host{}
			segment := map[*lab.Host][]netip.Prefix{}
			for name, id := range map[string]int{"node": 11, "left": 1, "right": 2, "inside": 3} {
				hosts[name], err = l.Host(name)
				require.NoError(t, err)
				segment[hosts[name]] = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", id))}
			}
			require.NoError(t, l.Switch(segment))
			for name, asn := range map[string]uint32{"left": 65000, "right": 65002} {
				_, err := hosts[name].StartBIRD(lab.RouterConfig{ASN: asn, RouterID: segment[hosts[name]][0].Addr(), Passive: true, Announces: []netip.Prefix{learned},
					Neighbors: []lab.Neighbor{{Address: netip.MustParseAddr("10.0.0.11"), ASN: 65001, BFD: true}}})
				require.NoError(t, err)
			}
			_, err = hosts["inside"].StartBIRD(lab.RouterConfig{ASN: 65001, RouterID: netip.MustParseAddr("10.0.0.3"), Passive: true, Announces: []netip.Prefix{allowed},
				Neighbors: []lab.Neighbor{{Address: netip.MustParseAddr("10.0.0.11"), ASN: 65001}}})
			require.NoError(t, err)
			s := &speaking{t: t, node: hosts["node"], files: filepath.Join(l.Dir, "files")}
			b := backends[name]
			s.give(rendered[b.backend])
			process := b.start(s)
			hops := func(to netip.Prefix, want ...string) {
				t.Helper()
				err := lab.Eventually(patience, func() error {
					// A next hop a line, or a word; gobgpd has its own table alone.
					show := []string{"ip", "route", "show", to.String()}
					if b.backend == "gobgp" {
						show = []string{filepath.Join(bin, "v4", "gobgp"), "global", "rib", to.String()}
					}
					out, err := s.node.Run(show...)
					var got []string
					for word := range strings.FieldsSeq(out) {
						if strings.HasPrefix(word, "10.0.0.") {
							got = append(got, word)
						}
					}
					if slices.Sort(got); err == nil && !slices.Equal(got, want) {
						err = fmt.Errorf("next hops are %v: %s", got, out)
					}
					return err
				})
				if err != nil {
					t.Logf("%s:\n%s", name, process.Output())
				}
				require.NoError(t, err)
			}
			hops(learned, "10.0.0.1", "10.0.0.2")
			if b.backend != "gobgp" {
				hops(allowed, "10.0.0.3")
			}

			for _, router := range []string{"left", "right"} {
				require.NoError(t, lab.Eventually(patience, func() error {
					out, err := hosts[router].Run("birdc", "-s", filepath.Join(hosts[router].Dir, "bird.ctl"), "show bfd sessions")
					if err == nil && !strings.Contains(out, " Up ") {
						err = errors.New(out)
					}
					return err
				}))
			}
			// The hold time is ten minutes.
			_, err = l.SwitchHost.IP("link", "set", "to-left", "down")
			require.NoError(t, err)
			hops(learned, "10.0.0.2")
		})
	}
}

// A peer is found at the other end of a link, by whatever link-local address it
// has, and hears IPv4 routes with IPv6 next hops.
func TestBackendsFindPeersOnALink(t *testing.T) {
	t.Parallel()
	rendered := render(t, "link-local", "", "bird")
	maps.Copy(rendered, render(t, "unnumbered", "", "frr"))
	for backend, f := range rendered {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			l, err := lab.New("link")
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, l.Close()) })
			hosts := map[string]*lab.Host{}
			for _, name := range []string{"node", "found", "named"} {
				hosts[name], err = l.Host(name)
				require.NoError(t, err)
			}
			require.NoError(t, l.Link(hosts["node"], nil, hosts["found"], nil))
			require.NoError(t, l.Link(hosts["node"], []netip.Prefix{netip.MustParsePrefix("fe80::11/64")}, hosts["named"], []netip.Prefix{netip.MustParsePrefix("fe80::2/64")}))
			found, err := hosts["found"].StartFRR(lab.RouterConfig{ASN: 65000, RouterID: netip.MustParseAddr("10.0.0.1"),
				Neighbors: []lab.Neighbor{{Interface: "eth-node", ASN: 65001}}})
			require.NoError(t, err)
			named, err := hosts["named"].StartBIRD(lab.RouterConfig{ASN: 65002, RouterID: netip.MustParseAddr("10.0.0.2"), Passive: true,
				Neighbors: []lab.Neighbor{{Address: netip.MustParseAddr("fe80::11"), Interface: "eth-node", ASN: 65001}}})
			require.NoError(t, err)
			s := &speaking{t: t, node: hosts["node"], files: filepath.Join(l.Dir, "files")}
			s.give(f)
			process := backends[backend].start(s)
			heard := map[string][]string{"found": {"2001:db8:1::/48", "203.0.113.0/24"}}
			if backend == "bird" { // FRR connects to no link-local address that it is told
				heard["named"] = []string{"2001:db8:1::/48"}
			}
			for name, want := range heard {
				router := map[string]lab.Router{"found": found, "named": named}[name]
				var got []string
				err := lab.Eventually(patience, func() error {
					routes, err := router.Routes()
					got = nil
					for _, r := range routes {
						got = append(got, r.Prefix.String())
						if err == nil && !slices.Equal(r.ASPath, []uint32{65001}) {
							err = fmt.Errorf("%s has the path %v", r.Prefix, r.ASPath)
						}
					}
					if err == nil && !slices.Equal(got, want) {
						err = fmt.Errorf("%s has %v", name, got)
					}
					return err
				})
				if err != nil {
					t.Logf("%s:\n%s", backend, process.Output())
				}
				assert.NoError(t, err)
			}
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
