package fleet

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// A slow network: a modem at the other end of the world.
const (
	slowLatency   = 300 * time.Millisecond // one way
	slowBandwidth = 16 << 10               // bytes a second
)

func slowDial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &slowConn{conn}, nil
}

// from dials for m. A deployer on this machine sees each node at an address of its own:
// one address has not as many ports as a large fleet has nodes.
func (f *Fleet) from(m *member) dial {
	dialer := net.Dialer{Timeout: f.cfg.Timeout}
	if to, err := netip.ParseAddrPort(f.address); err == nil && to.Addr().Is4() && to.Addr().IsLoopback() {
		n := m.number + 1 // after 127.128.0.0
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, byte(128+n>>16), byte(n>>8), byte(n))}
	}
	return dialer.DialContext
}

type slowConn struct{ net.Conn }

// Write lets the bytes through in pieces, as they would arrive.
func (c *slowConn) Write(data []byte) (written int, err error) {
	time.Sleep(slowLatency)
	for len(data) > 0 {
		piece := data[:min(len(data), 256)]
		n, err := c.Conn.Write(piece)
		written += n
		if err != nil {
			return written, err
		}
		time.Sleep(time.Duration(n) * time.Second / slowBandwidth)
		data = data[n:]
	}
	return written, nil
}

func (c *slowConn) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	if n > 0 {
		time.Sleep(slowLatency + time.Duration(n)*time.Second/slowBandwidth)
	}
	return n, err
}
