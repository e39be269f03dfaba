package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/centra/plasmacloud/deployer/secretfile"
)

// TLSFiles names the PEM files that a client needs for https.
type TLSFiles struct {
	CA   string // whose certificates to believe; "" is those that the system believes
	Cert string // the client's own certificate; "" is none
	Key  string // of Cert; not to be read by everybody
}

// shared is the transport without files.
var shared = direct(nil)

// direct is a transport that goes through a proxy of the environment for https
// alone: over plain HTTP the proxy would read tokens and secrets. It speaks HTTP/1.1: over
// HTTP/2, Go does not tell why a server broke off a handshake.
func direct(config *tls.Config) *http.Transport {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	transport.ForceAttemptHTTP2, transport.Protocols = false, new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	transport.Proxy = func(r *http.Request) (*url.URL, error) {
		if r.URL.Scheme == "http" {
			return nil, nil
		}
		return http.ProxyFromEnvironment(r)
	}
	return transport
}

// Transport is the http.RoundTripper for these files, nil for none.
func (f TLSFiles) Transport() (http.RoundTripper, error) {
	if f == (TLSFiles{}) {
		return nil, nil
	}
	config, err := f.Config()
	if err != nil {
		return nil, err
	}
	return direct(config), nil
}

// Config is what a client of TLS needs. Its own certificate is read anew for each
// connection, so that a renewal is followed.
func (f TLSFiles) Config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		roots, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(roots) {
			return nil, fmt.Errorf("CA %s: no certificate in it; want PEM", f.CA)
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("a client's certificate and its key go together")
	}
	if f.Cert != "" {
		if _, err := f.pair(); err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.pair() }
	}
	return config, nil
}

// TrustError is a handshake in which one side did not believe the other.
type TrustError struct {
	Err  error
	mend string
}

func (e *TrustError) Error() string { return e.Err.Error() + "; " + e.mend }
func (e *TrustError) Unwrap() error { return e.Err }

// believed is err, as a *TrustError where it is one.
func believed(err error) error {
	var stranger x509.UnknownAuthorityError
	var op *net.OpError
	switch {
	case errors.As(err, &stranger):
		return &TrustError{err, "name the CA of the deployer's certificate with --ca-file"}
	case errors.As(err, &op) && op.Op == "remote error": // crypto/tls has no type for what the other side says
		return &TrustError{err, "a deployer with tls.client_ca wants a certificate of that CA: --cert-file and --key-file"}
	}
	return err
}

func (f TLSFiles) pair() (*tls.Certificate, error) {
	cert, err := os.ReadFile(f.Cert)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	key, err := secretfile.Read(f.Key, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("key of the certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	return &pair, nil
}
