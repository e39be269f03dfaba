package vmtests

import (
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
