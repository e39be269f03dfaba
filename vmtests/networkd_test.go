package vmtests

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// machine is what nix-nos makes of a NixOS module, given as a Nix expression:
// the files that systemd-networkd reads.
func machine(t *testing.T, module string) files {
	t.Helper()
	var rendered struct {
		Failures []string
		Files    files
	}
	nix(t, fmt.Sprintf(`
		let machine = import ../nix/tests/nix-nos/network/machine.nix { lib = import ../nix/offline/lib; module = %s; };
		in { inherit (machine) failures files; }`, module), &rendered)
	require.Empty(t, rendered.Failures)
	return rendered.Files
}

// networkd starts systemd-networkd in the host, with these files and a /run of
// its own. As /sys cannot be written, it does not wait for udev, which knows
// nothing of network namespaces.
func networkd(t *testing.T, h *lab.Host, rendered files, name string) *lab.Process {
	t.Helper()
	dir := filepath.Join(h.Dir, "systemd-network")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for name, text := range rendered {
		if name == "networkd.conf" { // NixOS sets what only later versions know
			text = strings.ReplaceAll(text, "IPv6PrivacyExtensions=true\n", "")
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	process, err := h.Start(name, "unshare", "--mount", "sh", "-ec", `
		mount -t tmpfs tmpfs /run
		mkdir -p /run/systemd
		mount --bind "$1" /etc/systemd/network
		mount --bind "$1/networkd.conf" /etc/systemd/networkd.conf
		mount -o remount,bind,ro /sys
		SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console exec /lib/systemd/systemd-networkd
	`, "networkd", dir)
	require.NoError(t, err)
	return process
}

// The files of nix/tests/nix-nos/network/good/all.nix do in systemd-networkd
// what the description says.
func TestNetworkdDoesWhatIsDescribed(t *testing.T) {
	t.Parallel()
	l, err := lab.New("networkd")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	node, err := l.Host("node")
	require.NoError(t, err)
	wire, err := l.Host("wire")
	require.NoError(t, err)
	ip := func(args ...string) string {
		out, err := node.IP(args...)
		require.NoError(t, err)
		return out
	}
	card := func(name string) {
		ip("link", "add", name, "type", "veth", "peer", "name", "to-"+name, "netns", wire.Namespace)
		_, err := wire.IP("link", "set", "to-"+name, "up")
		require.NoError(t, err)
	}
	for _, name := range []string{"eth0", "eth1", "eth2", "eth3"} {
		card(name)
	}
	// On a kernel without VLANs a card takes the name of one, so that all but the
	// tag is proved. networkd then reads of the VLAN under another name.
	_, err = node.IP("link", "add", "link", "eth1", "name", "probe", "type", "vlan", "id", "9")
	vlans := err == nil
	if vlans {
		ip("link", "del", "probe")
	} else {
		card("storage")
	}

	rendered := machine(t, "../nix/tests/nix-nos/network/good/all.nix")
	for name, text := range rendered {
		if !vlans && name != "10-storage.network" {
			rendered[name] = strings.ReplaceAll(text, "storage", "tagged")
		}
	}
	process := networkd(t, node, rendered, "networkd")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(process.Output())
		}
	})

	type link struct {
		MTU       int
		Master    string
		Addresses []string
	}
	want := map[string]link{
		"lo":      {65536, "", []string{"10.255.0.1/32", "127.0.0.1/8", "2001:db8:255::1/128", "::1/128"}},
		"eth0":    {1400, "", []string{"192.0.2.10/24", "2001:db8::10/64", "link-local"}},
		"eth1":    {1450, "", nil},
		"eth2":    {1300, "br0", nil},
		"eth3":    {1500, "br0", nil},
		"br0":     {1300, "", []string{"198.51.100.1/25", "link-local"}},
		"storage": {1440, "", []string{"203.0.113.2/31", "link-local"}},
	}
	routes := []string{
		"10.1.0.0/16 via 203.0.113.3 dev storage table 100 metric 7",
		"10.2.0.0/16 nexthop via 192.0.2.2 dev eth0 weight 1 nexthop via 198.51.100.2 dev br0 weight 3",
		"10.3.0.0/16 via 10.99.0.1 dev eth0 onlink",
		"10.4.0.0/16 dev br0 scope link",
		"blackhole 10.5.0.0/16",
		"default via 192.0.2.1 dev eth0 src 10.255.0.1",
		"default via fe80::1 dev eth0 metric 50 pref medium",
		"prohibit 10.6.0.0/16",
		"unreachable 2001:db8:5::/48 dev lo metric 10 pref medium",
	}
	blanks := regexp.MustCompile(`\s+`)
	expect := func() {
		t.Helper()
		var got map[string]link
		var gotRoutes []string
		err := lab.Eventually(patience, func() error {
			var shown []struct {
				Name      string `json:"ifname"`
				MTU       int    `json:"mtu"`
				Master    string `json:"master"`
				Addresses []struct {
					Local  string `json:"local"`
					Length int    `json:"prefixlen"`
					Scope  string `json:"scope"`
				} `json:"addr_info"`
			}
			if err := json.Unmarshal([]byte(ip("-json", "address", "show")), &shown); err != nil {
				return err
			}
			got, gotRoutes = map[string]link{}, nil
			for _, s := range shown {
				if _, ok := want[s.Name]; !ok {
					continue
				}
				found := link{s.MTU, s.Master, nil}
				for _, a := range s.Addresses {
					text := fmt.Sprintf("%s/%d", a.Local, a.Length)
					if a.Scope == "link" {
						text = "link-local"
					}
					found.Addresses = append(found.Addresses, text)
				}
				slices.Sort(found.Addresses)
				got[s.Name] = found
			}
			for _, family := range []string{"-4", "-6"} {
				out := ip(family, "route", "show", "table", "all", "proto", "static")
				for line := range strings.Lines(strings.ReplaceAll(out, "\n\t", " ")) {
					line = blanks.ReplaceAllString(strings.TrimSpace(line), " ")
					gotRoutes = append(gotRoutes, strings.ReplaceAll(line, " proto static", ""))
				}
			}
			slices.Sort(gotRoutes)
			if !assert.ObjectsAreEqual(want, got) || !assert.ObjectsAreEqual(routes, gotRoutes) {
				return errors.New("the kernel has something else")
			}
			return nil
		})
		assert.Equal(t, want, got)
		assert.Equal(t, routes, gotRoutes)
		require.NoError(t, err)
	}
	expect()
	if vlans {
		assert.Contains(t, ip("-details", "link", "show", "storage"), "vlan protocol 802.1Q id 100 ")
		assert.Contains(t, ip("-details", "link", "show", "eth1.7"), "vlan protocol 802.1Q id 7 ")
	}
	// A line that it does not understand is a warning with the file and the line's number.
	assert.NotRegexp(t, `(?m)^/etc/systemd/network(d\.conf|/\S+):\d+:`, process.Output())

	// What others put there outlives a restart: addresses of the loopback, routes of any interface.
	ip("address", "add", "203.0.113.10/32", "dev", "lo")
	ip("route", "add", "198.18.0.0/15", "via", "192.0.2.9", "proto", "bird")
	ip("route", "add", "local", "203.0.113.128/25", "dev", "lo", "table", "local")
	require.NoError(t, process.Stop(patience))
	process = networkd(t, node, rendered, "networkd-again")
	require.NoError(t, lab.Eventually(patience, func() error {
		for _, name := range []string{"lo", "eth0", "br0", "storage"} {
			if !strings.Contains(process.Output(), name+": State changed: configuring -> configured") {
				return fmt.Errorf("%s is not configured yet", name)
			}
		}
		return nil
	}))
	lo := want["lo"]
	lo.Addresses = slices.Sorted(slices.Values(append(lo.Addresses, "203.0.113.10/32")))
	want["lo"] = lo
	expect()
	assert.Contains(t, ip("route", "show", "198.18.0.0/15"), "via 192.0.2.9")
	assert.Contains(t, ip("route", "show", "table", "local"), "local 203.0.113.128/25 dev lo")
}
