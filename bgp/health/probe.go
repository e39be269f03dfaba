package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/centra/plasmacloud/bgp/internal/systembus"
)

// Probe asks once. A nil error is a good answer; the text of any other says what
// was wrong, for people. One that is ErrNotAsked is no answer. ctx bounds the whole of it.
func Probe(ctx context.Context, c Check) error { return asLocal(probe(ctx, c)) }

func probe(ctx context.Context, c Check) error {
	dialer := &net.Dialer{ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		return refuseOwnVIP(c.NotAddr, address)
	}}
	switch c.Kind {
	case TCP:
		conn, err := dialer.DialContext(ctx, "tcp", c.Address)
		if err != nil {
			return err
		}
		return conn.Close()
	case HTTP:
		return probeHTTP(ctx, c, dialer)
	case GRPC:
		return probeGRPC(ctx, c, dialer)
	case Exec:
		return probeExec(ctx, c.Command.Words())
	case Systemd:
		return probeSystemd(ctx, systembus.Socket, c.Unit)
	default:
		return fmt.Errorf("no such type of check: %q", c.Kind)
	}
}

// maxCA is how large a file of CAs may be, in bytes.
const maxCA = 1 << 20

// tlsConfig is how c trusts. Without a CA the question is whether the service works;
// who it is, its users verify. The file is read each time, since it may be renewed.
func (c Check) tlsConfig() (*tls.Config, error) {
	if c.CAFile == "" {
		return &tls.Config{ServerName: c.Host, InsecureSkipVerify: true}, nil
	}
	f, err := os.Open(c.CAFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, maxCA))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: has no certificate in PEM", c.CAFile)
	}
	return &tls.Config{ServerName: c.Host, RootCAs: pool}, nil
}

var errOwnVIP = errors.New("leads to the VIP itself, which is held only while it is announced")

func refuseOwnVIP(vip netip.Addr, address string) error {
	if !vip.IsValid() {
		return nil
	}
	to, err := netip.ParseAddrPort(address)
	if err == nil && to.Addr().WithZone("").Unmap() == vip {
		return errOwnVIP
	}
	return nil
}
