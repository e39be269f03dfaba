package vmtests

import (
	"errors"
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
