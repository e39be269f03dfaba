package labcluster

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// What is split stays so whatever else is split, joined or lost beside it.
func TestSplit(t *testing.T) {
	t.Parallel()
	l, err := lab.New("split")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	c := &Cluster{topology: &topology{routers: map[string]*router{}}}
	segment, routers := map[*lab.Host][]netip.Prefix{}, map[string]*Router{}
	for name, address := range map[string]string{"1-r": "192.0.2.1", "r2": "192.0.2.2"} {
		host, err := l.Host(name)
		require.NoError(t, err)
		own := netip.MustParseAddr(address)
		c.topology.routers[name] = &router{name: name, place: place{own}}
		routers[name] = &Router{Host: host, topology: c.topology.routers[name]}
		segment[host] = []netip.Prefix{netip.PrefixFrom(own, 24)}
	}
	host, err := l.Host("n")
	require.NoError(t, err)
	segment[host] = []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24")}
	require.NoError(t, l.Switch(segment))
	n := &Node{Host: host, ID: "n", cluster: c}
	// Nobody listens there: who is reached refuses. Those that should be have time to.
	reached := func(should []string) (names []string) {
		for _, name := range c.RouterNames() {
			patience := 150 * time.Millisecond
			if slices.Contains(should, name) {
				patience = 20 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			_, err := host.Dial(ctx, "tcp", netip.AddrPortFrom(routers[name].topology.place[0], 9).String())
			cancel()
			if errors.Is(err, syscall.ECONNREFUSED) {
				names = append(names, name)
			}
		}
		return names
	}
	for _, step := range []struct {
		does  string
		do    func() error
		still []string
	}{
		{"nothing", func() error { return nil }, []string{"1-r", "r2"}},
		{"split 1-r", func() error { return n.Split(routers["1-r"], true) }, []string{"r2"}},
		{"split r2", func() error { return n.Split(routers["r2"], true) }, nil},
		{"split r2 again", func() error { return n.Split(routers["r2"], true) }, nil},
		{"join r2", func() error { return n.Split(routers["r2"], false) }, []string{"r2"}},
		{"lose all", func() error { return n.Lose(100) }, nil},
		{"lose none", func() error { return n.Lose(0) }, []string{"r2"}},
		{"lose none again", func() error { return n.Lose(0) }, []string{"r2"}},
		{"join 1-r", func() error { return n.Split(routers["1-r"], false) }, []string{"1-r", "r2"}},
	} {
		require.NoError(t, step.do(), step.does)
		assert.Equal(t, step.still, reached(step.still), step.does)
	}
}
