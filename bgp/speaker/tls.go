package speaker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// TLS is how to trust a daemon and be trusted by it (gobgpd --tls). The files are PEM,
// and read anew for each connection, so that a certificate may be renewed under way.
type TLS struct {
	Use        bool   // without it nothing else counts
	CA         string // who signs the daemon's certificate; "": whom the system trusts
	Cert, Key  string // of the client; "": none
	ServerName string // of the daemon's certificate; "": the host of the address
}

// fileCredentials are gRPC credentials out of files, with the last failure of a
// handshake: gRPC itself tells of it only in words.
type fileCredentials struct {
	tls TLS

	mu   sync.Mutex
	last error
}

var _ credentials.TransportCredentials = (*fileCredentials)(nil)

// transport returns gRPC's credentials, and a function that tells why the last
// handshake failed; nil: it did not.
func (t TLS) transport() (credentials.TransportCredentials, func() error) {
	if !t.Use {
		return insecure.NewCredentials(), func() error { return nil }
	}
	c := &fileCredentials{tls: t}
	return c, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.last
	}
}

// load reads the files.
func (t TLS) load() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("CA: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA: %s has no certificate in PEM", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate of ours: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func (c *fileCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cfg, err := c.tls.load()
	if err != nil {
		c.note(err)
		return nil, nil, err
	}
	secure, info, err := credentials.NewTLS(cfg).ClientHandshake(ctx, authority, conn)
	if err != nil {
		if isDistrust(err) && ctx.Err() == nil {
			c.note(err)
		}
		return nil, nil, err
	}
	return &toldConn{Conn: secure, told: c.note}, info, nil
}

func (c *fileCredentials) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = err
}

// isDistrust tells a handshake that fails for what one side says from a connection
// that breaks off.
func isDistrust(err error) bool {
	var network net.Error
	return isAlert(err) || !errors.As(err, &network) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)
}

// isAlert reports whether the daemon has said what is wrong.
func isAlert(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error"
}

// toldConn notes what the daemon says of our certificate: in TLS 1.3 that comes after
// the handshake, instead of the first data.
type toldConn struct {
	net.Conn
	told    func(error)
	trusted bool // used by Read alone, of which there is one at a time
}

func (t *toldConn) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if n > 0 && !t.trusted {
		t.trusted = true
		t.told(nil)
	}
	if isAlert(err) {
		t.told(fmt.Errorf("the speaker says of our certificate: %w", err))
	}
	return n, err
}

func (c *fileCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are a client's credentials")
}

func (c *fileCredentials) Info() credentials.ProtocolInfo {
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.tls.ServerName}).Info()
}

func (c *fileCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName is asked for by the interface and, by gRPC, no more.
func (c *fileCredentials) OverrideServerName(string) error {
	return errors.New("not supported; see TLS.ServerName")
}
