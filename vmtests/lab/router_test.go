package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The two kinds of router tell the same of the same announcements, so that a
// test may compare their tables with one expectation.
func TestRoutersTellTheSame(t *testing.T) {
	bin := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin,
		"github.com/osrg/gobgp/v3/cmd/gobgpd", "github.com/osrg/gobgp/v3/cmd/gobgp").CombinedOutput()
	require.NoError(t, err, string(out))

	for name, start := range map[string]func(*Host, RouterConfig) (Router, error){
		"bird": (*Host).StartBIRD,
		"frr":  (*Host).StartFRR,
	} {
		t.Run(name, func(t *testing.T) {
			l, err := New(name)
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, l.Close()) })
			node, err := l.Host("node")
			require.NoError(t, err)
			host, err := l.Host("router")
			require.NoError(t, err)
			require.NoError(t, l.Link(
				node, []netip.Prefix{netip.MustParsePrefix("10.0.0.11/24"), netip.MustParsePrefix("2001:db8::11/64")},
				host, []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("2001:db8::1/64")}))

			conf := filepath.Join(node.Dir, "gobgpd.toml")
			text := "[global.config]\nas = 65001\nrouter-id = \"10.0.0.11\"\n[[neighbors]]\n[neighbors.config]\nneighbor-address = \"10.0.0.1\"\npeer-as = 65000\n"
			for _, family := range []string{"ipv4-unicast", "ipv6-unicast"} {
				text += fmt.Sprintf("[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = %q\n", family)
			}
			require.NoError(t, os.WriteFile(conf, []byte(text), 0o600))
			_, err = node.Start("gobgpd", filepath.Join(bin, "gobgpd"), "-f", conf, "--api-hosts", "127.0.0.1:50051")
			require.NoError(t, err)

			router, err := start(host, RouterConfig{
				ASN: 65000, RouterID: netip.MustParseAddr("10.0.0.1"), Passive: true,
				Neighbors: []Neighbor{{Address: netip.MustParseAddr("10.0.0.11"), ASN: 65001}},
			})
			require.NoError(t, err)
			require.NoError(t, Eventually(30*time.Second, func() error {
				if up, err := router.Established(); err != nil || up != 1 {
					return fmt.Errorf("%d sessions, %w", up, err)
				}
				return nil
			}))
			empty, err := router.Routes()
			require.NoError(t, err)
			assert.Empty(t, empty)

			gobgp := filepath.Join(bin, "gobgp")
			_, err = node.Run(gobgp, "global", "rib", "add", "203.0.113.10/32", "nexthop", "10.0.0.11", "origin", "igp", "med", "7", "community", "65001:100,65001:200")
			require.NoError(t, err)
			_, err = node.Run(gobgp, "global", "rib", "-a", "ipv6", "add", "2001:db8:1::10/128", "nexthop", "2001:db8::11", "origin", "igp")
			require.NoError(t, err)

			want := []Route{
				{Prefix: netip.MustParsePrefix("2001:db8:1::10/128"), NextHop: netip.MustParseAddr("2001:db8::11"), ASPath: []uint32{65001}},
				{Prefix: netip.MustParsePrefix("203.0.113.10/32"), NextHop: netip.MustParseAddr("10.0.0.11"), ASPath: []uint32{65001}, Communities: []string{"65001:100", "65001:200"}, MED: 7},
			}
			var got []Route
			err = Eventually(10*time.Second, func() error {
				if got, err = router.Routes(); err == nil && len(got) != len(want) {
					err = fmt.Errorf("%d routes", len(got))
				}
				return err
			})
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}

func TestNothingIsLeft(t *testing.T) {
	l, err := New("left")
	require.NoError(t, err)
	host, err := l.Host("a")
	require.NoError(t, err)
	p, err := host.Start("sleep", "sleep", "1000")
	require.NoError(t, err)
	require.NoError(t, Eventually(10*time.Second, func() error {
		pids, err := ip("netns", "pids", host.Namespace)
		if err == nil && pids == "" {
			err = errors.New("sleep is not there yet")
		}
		return err
	}))

	// One that lives is left alone by a second of its name.
	second, err := New("left")
	require.NoError(t, err)
	assert.FileExists(t, host.Path())
	require.NoError(t, second.Close())
	assert.NoDirExists(t, second.Dir)

	// As the kernel does when the process is killed.
	require.NoError(t, l.lock.Close())
	third, err := New("left")
	require.NoError(t, err)
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("what the first lab started still runs")
	}
	assert.NoFileExists(t, host.Path())
	assert.NoDirExists(t, host.Dir)
	require.NoError(t, third.Close())
}
