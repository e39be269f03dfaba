package vmtests

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// member is a node of a topology with a BGP daemon of its own.
type member struct {
	backend   string         // bird, frr, or a generation of gobgp
	announces []netip.Prefix // beside what the topology says
}

// start gives the node's rendered files to its daemon, as NixOS would.
func (m member) start(t *testing.T, topology string, h *lab.Host) {
	t.Helper()
	announcements := ""
	for _, prefix := range m.announces {
		announcements += fmt.Sprintf("{ prefix = %q; } ", prefix)
	}
	backend := m.backend
	if backend == "v3" || backend == "v4" {
		backend = "gobgp"
	}
	var rendered struct {
		Failures []string
		Files    files
	}
	nix(t, fmt.Sprintf(`import ../nix/tests/nix-nos/speaker.nix {
		lib = import ../nix/offline/lib;
		backend = %q;
		module = {
		  imports = [ ../nix/nix-nos/modules ../nix/tests/nix-nos/network/topology/%s.nix ];
		  networking.hostName = %q;
		  nix-nos.bgp.announcements = [ %s ];
		};
	}`, backend, topology, h.Name, announcements), &rendered)
	require.Empty(t, rendered.Failures, h.Name)

	s := &speaking{t: t, node: h, files: filepath.Join(h.Dir, "files")}
	s.give(rendered.Files)
	switch m.backend {
	case "bird":
		s.startBIRD()
	case "frr":
		s.startFRR()
	default:
		_, err := h.Start("gobgpd", filepath.Join(bin, m.backend, "gobgpd"), "-f", filepath.Join(s.files, "gobgpd.toml"), "--api-hosts", "127.0.0.1:50051")
		require.NoError(t, err)
		for _, prefix := range m.announces {
			require.NoError(t, lab.Eventually(patience, func() error {
				_, err := h.Run(filepath.Join(bin, m.backend, "gobgp"), "global", "rib", "add", prefix.String())
				return err
			}))
		}
	}
}

// startAll starts the daemons. Of two with a session the one with the later name
// waits for the other, so it comes first, and the other need not try again.
func startAll(t *testing.T, topology string, hosts map[string]*lab.Host, members map[string]member) {
	t.Helper()
	names := slices.Sorted(maps.Keys(members))
	slices.Reverse(names)
	for _, name := range names {
		members[name].start(t, topology, hosts[name])
	}
}

// knows tells by how many paths the node's daemon has learned a prefix.
func (m member) knows(h *lab.Host, prefix netip.Prefix) (int, error) {
	family := "ipv4"
	if prefix.Addr().Is6() {
		family = "ipv6"
	}
	switch m.backend {
	case "bird":
		out, err := h.Run("birdc", "-s", filepath.Join(h.Dir, "bird.ctl"), "show route "+prefix.String())
		return strings.Count(out, " [peer-"), err
	case "frr":
		out, err := h.Run("vtysh", "--vty_socket", h.Dir, "-d", "bgpd", "-c", "show bgp "+family+" unicast "+prefix.String()+" json")
		var found struct {
			Paths []struct{ Valid bool } `json:"paths"`
		}
		if err == nil {
			err = json.Unmarshal([]byte(out), &found)
		}
		valid := 0
		for _, path := range found.Paths {
			if path.Valid {
				valid++
			}
		}
		return valid, err
	default:
		out, err := h.Run(filepath.Join(bin, m.backend, "gobgp"), "global", "rib", "-a", family)
		return strings.Count(out, prefix.String()+" "), err
	}
}

// converge waits until every member knows each prefix of the others by so many paths.
func converge(t *testing.T, hosts map[string]*lab.Host, members map[string]member, paths int) {
	t.Helper()
	require.NoError(t, lab.Eventually(patience, func() error {
		for from, m := range members {
			for at, other := range members {
				if at == from {
					continue
				}
				for _, prefix := range m.announces {
					known, err := other.knows(hosts[at], prefix)
					if err != nil {
						return err
					}
					if known != paths {
						return fmt.Errorf("%s knows %s of %s by %d paths, not %d", at, prefix, from, known, paths)
					}
				}
			}
		}
		return nil
	}))
}

// A fabric by its topology alone: systemd-networkd gives the links their
// addresses, and each leaf learns the prefixes of the other by both spines.
func TestSpineAndLeaf(t *testing.T) {
	t.Parallel()
	l, err := lab.New("fabric")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	spines := map[string]member{"spine1": {backend: "v4"}, "spine2": {backend: "bird"}}
	leaves := map[string]member{
		"leaf1": {"bird", []netip.Prefix{netip.MustParsePrefix("203.0.113.0/25"), netip.MustParsePrefix("2001:db8:1::/48")}},
		"leaf2": {"frr", []netip.Prefix{netip.MustParsePrefix("203.0.113.128/25"), netip.MustParsePrefix("2001:db8:2::/48")}},
	}
	hosts := map[string]*lab.Host{}
	for _, tier := range []map[string]member{spines, leaves} {
		for name := range tier {
			hosts[name], err = l.Host(name)
			require.NoError(t, err)
		}
	}
	for spine := range spines {
		for leaf := range leaves {
			require.NoError(t, l.Link(hosts[spine], nil, hosts[leaf], nil))
		}
	}
	for name, h := range hosts {
		networkd(t, h, machine(t, fmt.Sprintf(`{
			imports = [ ../nix/tests/nix-nos/network/topology/spine-leaf.nix ];
			networking.hostName = %q;
		}`, name)), "networkd")
	}
	// What a leaf announces has an address of its own as its next hop: BIRD wants it there.
	require.NoError(t, lab.Eventually(patience, func() error {
		for name, h := range hosts {
			held, err := h.Held()
			if err != nil {
				return err
			}
			if global := len(held) - 4; global != 4 { // of two loopbacks and two link-local addresses beside
				return fmt.Errorf("%s has %d addresses on its links", name, global)
			}
		}
		return nil
	}))
	startAll(t, "spine-leaf", hosts, spines)
	startAll(t, "spine-leaf", hosts, leaves)
	converge(t, hosts, leaves, 2)
}

// Three daemons of one AS, each with a session to each other one.
func TestFullMesh(t *testing.T) {
	t.Parallel()
	l, err := lab.New("mesh")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	members := map[string]member{
		"one":   {"v3", []netip.Prefix{netip.MustParsePrefix("203.0.113.0/26")}},
		"two":   {"bird", []netip.Prefix{netip.MustParsePrefix("203.0.113.64/26")}},
		"three": {"frr", []netip.Prefix{netip.MustParsePrefix("203.0.113.128/26")}},
	}
	hosts := map[string]*lab.Host{}
	segment := map[*lab.Host][]netip.Prefix{}
	for name, own := range map[string][]string{
		"one": {"10.0.0.1/24", "2001:db8::1/64"}, "two": {"10.0.0.2/24", "2001:db8::2/64"}, "three": {"10.0.0.3/24"},
	} {
		hosts[name], err = l.Host(name)
		require.NoError(t, err)
		for _, text := range own {
			segment[hosts[name]] = append(segment[hosts[name]], netip.MustParsePrefix(text))
		}
	}
	require.NoError(t, l.Switch(segment))
	startAll(t, "mesh", hosts, members)
	converge(t, hosts, members, 1)
}
