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
	more      string         // said in Nix
}

// configured is what a member's NixOS configuration comes to.
type configured struct {
	Failures []string
	Daemon   files
	Networkd files
	Sysctl   map[string]bool
}

// configure evaluates all members of a topology in nix/tests/nix-nos/network/topology.
func configure(t *testing.T, topology string, members map[string]member) map[string]configured {
	t.Helper()
	var nodes strings.Builder
	for name, m := range members {
		announcements := ""
		for _, prefix := range m.announces {
			announcements += fmt.Sprintf("{ prefix = %q; } ", prefix)
		}
		backend := m.backend
		if slices.Contains(generations, backend) {
			backend = "gobgp"
		}
		fmt.Fprintf(&nodes, `%s = { backend = %q; more = { nix-nos.bgp.announcements = [ %s ]; %s }; };`, name, backend, announcements, m.more)
	}
	evaluated := map[string]configured{}
	nix(t, fmt.Sprintf(`
		let lib = import ../nix/offline/lib; in
		lib.mapAttrs (hostName: node:
		  let
		    module.imports = [
		      ../nix/nix-nos/modules
		      ../nix/tests/nix-nos/network/topology/%s.nix
		      { networking = { inherit hostName; }; }
		      node.more
		    ];
		    speaker = import ../nix/tests/nix-nos/speaker.nix { inherit lib module; inherit (node) backend; };
		    machine = import ../nix/tests/nix-nos/network/machine.nix { inherit lib module; };
		  in {
		    inherit (speaker) failures;
		    daemon = speaker.files;
		    networkd = machine.files;
		    sysctl = machine.config.boot.kernel.sysctl;
		  }) { %s }`, topology, nodes.String()), &evaluated)
	for name, c := range evaluated {
		require.Empty(t, c.Failures, name)
	}
	return evaluated
}

// start gives the node's rendered files to its daemon, as NixOS would.
func (m member) start(t *testing.T, h *lab.Host, rendered files) {
	t.Helper()
	s := &speaking{t: t, node: h, files: filepath.Join(h.Dir, "files")}
	s.give(rendered)
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
func startAll(t *testing.T, hosts map[string]*lab.Host, members map[string]member, nodes map[string]configured) {
	t.Helper()
	names := slices.Sorted(maps.Keys(members))
	slices.Reverse(names)
	for _, name := range names {
		members[name].start(t, hosts[name], nodes[name].Daemon)
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
// addresses, each leaf learns the prefixes of the other by both spines, and
// packets go from one to the other and back.
func TestSpineAndLeaf(t *testing.T) {
	t.Parallel()
	l, err := lab.New("fabric")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	leaf := func(backend, address4, address6 string) member {
		prefix := func(address string, length int) netip.Prefix {
			return netip.PrefixFrom(netip.MustParseAddr(address), length).Masked()
		}
		return member{backend, []netip.Prefix{prefix(address4, 25), prefix(address6, 48)}, fmt.Sprintf(`
			nix-nos.bgp.installRoutes.enable = true;
			nix-nos.interfaces.lo.addresses = [ "%s/32" "%s/128" ];`, address4, address6)}
	}
	spine := func(backend string) member {
		return member{backend, nil, "nix-nos.bgp.installRoutes.enable = true; nix-nos.routing.forwarding = true;"}
	}
	spines := map[string]member{"spine1": spine("frr"), "spine2": spine("bird")}
	leaves := map[string]member{
		"leaf1": leaf("bird", "203.0.113.1", "2001:db8:1::1"),
		"leaf2": leaf("frr", "203.0.113.129", "2001:db8:2::1"),
	}
	members := maps.Clone(spines)
	maps.Copy(members, leaves)
	nodes := configure(t, "spine-leaf", members)
	hosts := map[string]*lab.Host{}
	for name := range members {
		hosts[name], err = l.Host(name)
		require.NoError(t, err)
	}
	for spine := range spines {
		for leaf := range leaves {
			require.NoError(t, l.Link(hosts[spine], nil, hosts[leaf], nil))
		}
	}
	for name, h := range hosts {
		for key, on := range nodes[name].Sysctl {
			require.True(t, on, key)
			_, err := h.Run("sh", "-c", "echo 1 > /proc/sys/"+strings.ReplaceAll(key, ".", "/"))
			require.NoError(t, err)
		}
		networkd(t, h, nodes[name].Networkd, "networkd")
	}
	// A session cannot begin from an address that is not there, or that the kernel
	// still looks for elsewhere.
	require.NoError(t, lab.Eventually(patience, func() error {
		for name, h := range hosts {
			held, err := h.Held()
			if err != nil {
				return err
			}
			global := 0
			for address := range held {
				if address.IsGlobalUnicast() {
					global++
				}
			}
			if want := 4 + len(members[name].announces); global != want {
				return fmt.Errorf("%s has %d addresses, not %d", name, global, want)
			}
			if tentative, err := h.IP("address", "show", "tentative"); err != nil || tentative != "" {
				return fmt.Errorf("%s: tentative: %s: %w", name, tentative, err)
			}
		}
		return nil
	}))
	startAll(t, hosts, members, nodes)
	converge(t, hosts, leaves, 2)
	for _, pair := range [][2]string{{"203.0.113.1", "203.0.113.129"}, {"2001:db8:1::1", "2001:db8:2::1"}} {
		require.NoError(t, lab.Eventually(patience, func() error {
			// bgpd of the other leaf listens on each of its addresses.
			_, err := hosts["leaf1"].Run("python3", "-c", "import socket, sys; socket.create_connection((sys.argv[2], 179), 2, (sys.argv[1], 0))", pair[0], pair[1])
			return err
		}))
	}
}

// Three daemons of one AS, each with a session to each other one.
func TestFullMesh(t *testing.T) {
	t.Parallel()
	l, err := lab.New("mesh")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	members := map[string]member{
		"one":   {"frr", []netip.Prefix{netip.MustParsePrefix("203.0.113.0/26")}, ""},
		"two":   {"v3", []netip.Prefix{netip.MustParsePrefix("203.0.113.64/26")}, ""},
		"three": {"bird", []netip.Prefix{netip.MustParsePrefix("203.0.113.128/26")}, ""},
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
	startAll(t, hosts, members, configure(t, "mesh", members))
	converge(t, hosts, members, 1)
}
