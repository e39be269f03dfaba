package fleet

import (
	"context"
	"net"
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
