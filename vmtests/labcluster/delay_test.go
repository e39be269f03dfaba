package labcluster

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// Where the kernel has netem packets are late, and else it is said what is missing.
// To end what was not begun is fine.
func TestDelay(t *testing.T) {
	t.Parallel()
	l, err := lab.New("delay")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	held, err := l.Host("held")
	require.NoError(t, err)
	other, err := l.Host("other")
	require.NoError(t, err)
	require.NoError(t, l.Switch(map[*lab.Host][]netip.Prefix{
		held: {netip.MustParsePrefix("192.0.2.1/24")}, other: {netip.MustParsePrefix("192.0.2.2/24")}}))
	n := &Node{Host: held, ID: "held"}
	require.NoError(t, n.Delay(0))

	const by = 100 * time.Millisecond
	if err := n.Delay(by); err != nil {
		assert.ErrorContains(t, err, "this kernel cannot delay packets: it has no netem (module sch_netem)")
		return
	}
	took := func() time.Duration {
		listener, err := held.Listen("tcp", "192.0.2.1:0")
		require.NoError(t, err)
		defer listener.Close()
		begin := time.Now()
		conn, err := other.Dial(t.Context(), "tcp", listener.Addr().String())
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		return time.Since(begin)
	}
	assert.GreaterOrEqual(t, took(), by)
	require.NoError(t, n.Delay(0))
	assert.Less(t, took(), by)
}
