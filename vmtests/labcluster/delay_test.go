package labcluster

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// Packets are late where the kernel has netem, and where it has none, and arrive whole
// all the same. To end what was not begun is fine.
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
	listener, err := held.Listen("tcp", "192.0.2.1:0")
	require.NoError(t, err)
	defer listener.Close()
	received := make(chan []byte)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			content, _ := io.ReadAll(conn)
			conn.Close()
			received <- content
		}
	}()
	connect := func() (net.Conn, time.Duration) {
		begin := time.Now()
		conn, err := other.Dial(t.Context(), "tcp", listener.Addr().String())
		require.NoError(t, err)
		return conn, time.Since(begin)
	}
	n := &Node{Host: held, ID: "held", cluster: &Cluster{}}
	const by = 50 * time.Millisecond
	for name, delay := range map[string]func(time.Duration) error{
		"netem, or what there is": n.Delay,
		"relay":                   func(by time.Duration) error { return held.HoldBack("eth0", by) },
	} {
		require.NoError(t, delay(0), name)
		for _, of := range []time.Duration{by, 3 * by} {
			require.NoError(t, delay(of), name)
			conn, took := connect()
			assert.GreaterOrEqual(t, took, of, name)
			content := bytes.Repeat([]byte(name), 10_000)
			_, err := conn.Write(content)
			require.NoError(t, err)
			require.NoError(t, conn.Close())
			assert.True(t, bytes.Equal(content, <-received), name)
		}
		// A cable that was out for a while brings the delay back with it.
		require.NoError(t, held.Plug("eth0", false))
		require.NoError(t, held.Plug("eth0", true))
		conn, took := connect()
		assert.GreaterOrEqual(t, took, 3*by, name)
		require.NoError(t, conn.Close())
		<-received

		require.NoError(t, delay(0), name)
		fastest := 3 * by
		for range 5 { // a busy machine is late by itself now and then
			conn, took := connect()
			require.NoError(t, conn.Close())
			<-received
			fastest = min(fastest, took)
		}
		assert.Less(t, fastest, by, name)
	}
}
