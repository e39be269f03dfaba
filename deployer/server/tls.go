package server

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/deployer/secretfile"
)

// TLSFiles names the PEM files by which a server shows who it is.
type TLSFiles struct {
	Cert     string `json:"cert"`                // the certificate, and those between it and the root
	Key      string `json:"key"`                 // not to be read by everybody
	ClientCA string `json:"client_ca,omitempty"` // "": any client; else only those with a certificate of it

	ClientAuth ClientAuth `json:"client_auth,omitempty"` // with ClientCA
}

// ClientAuth says who has to show a certificate of the client CA.
type ClientAuth string

const (
	ClientAuthRequired ClientAuth = "required" // everybody; also where it is ""
	ClientAuthOptional ClientAuth = "optional" // who wants to be known by it
)

// Check names the key that is missing.
func (f TLSFiles) Check() error {
	switch {
	case f.Cert == "":
		return errors.New("cert: required; the certificate's file, in PEM")
	case f.Key == "":
		return errors.New("key: required; the file of the certificate's key, in PEM")
	case f.ClientAuth != "" && f.ClientAuth != ClientAuthRequired && f.ClientAuth != ClientAuthOptional:
		return fmt.Errorf("client_auth: want required or optional, found %q", f.ClientAuth)
	case f.ClientAuth != "" && f.ClientCA == "":
		return errors.New("client_auth: of no use without client_ca; name the CA's file, or leave it out")
	}
	return nil
}

// Certificate is a certificate that follows its files: what a renewal writes is
// used for the next connection, and what cannot be used leaves the old one.
type Certificate struct {
	files TLSFiles
	log   *slog.Logger

	current atomic.Pointer[tls.Config]

	mu     sync.Mutex
	looked time.Time // when the files were looked at last
	stamps [3]stamp  // of the files as they were then
}

// stamp is what changes when a file does.
type stamp struct {
	inode    uint64
	size     int64
	modified time.Time
}

// lookInterval is how long a changed file may go unnoticed.
const lookInterval = time.Second

// maxPEM is far more than a chain of certificates needs.
const maxPEM = 1 << 20

// LoadCertificate reads the files. Errors name the file.
func LoadCertificate(files TLSFiles, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{files: files, log: cmp.Or(log, slog.Default())}
	c.looked, c.stamps = time.Now(), c.stat()
	return c, c.load()
}

// Reload reads the files now. On an error the old certificate stays.
func (c *Certificate) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looked, c.stamps = time.Now(), c.stat()
	return c.load()
}

// Config is what a TLS listener needs.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c.follow()
			return c.current.Load(), nil
		},
	}
}

// follow reads the files when they are others than before.
func (c *Certificate) follow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.looked) < lookInterval {
		return
	}
	c.looked = now
	stamps := c.stat()
	if stamps == c.stamps {
		return
	}
	c.stamps = stamps
	if err := c.load(); err != nil {
		c.log.Error("certificate not loaded, the old one stays", "error", err)
	}
}

func (c *Certificate) stat() (stamps [3]stamp) {
	for i, path := range []string{c.files.Cert, c.files.Key, c.files.ClientCA} {
		if info, err := os.Stat(path); err == nil {
			stamps[i] = stamp{size: info.Size(), modified: info.ModTime()}
			if sys, ok := info.Sys().(*syscall.Stat_t); ok {
				stamps[i].inode = sys.Ino
			}
		}
	}
	return stamps
}

func (c *Certificate) load() error {
	chain, err := os.ReadFile(c.files.Cert)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	key, err := secretfile.Read(c.files.Key, maxPEM)
	if err != nil {
		return fmt.Errorf("key of the certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.files.Cert, c.files.Key, err)
	}
	next := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{pair},
	}
	if c.files.ClientCA != "" {
		roots, err := os.ReadFile(c.files.ClientCA)
		if err != nil {
			return fmt.Errorf("client CA: %w", err)
		}
		next.ClientCAs, next.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if c.files.ClientAuth == ClientAuthOptional {
			next.ClientAuth = tls.VerifyClientCertIfGiven
		}
		if !next.ClientCAs.AppendCertsFromPEM(roots) {
			return fmt.Errorf("client CA %s: no certificate in it; want PEM", c.files.ClientCA)
		}
	}
	c.current.Store(next)
	leaf := pair.Leaf
	c.log.Info("certificate loaded", "file", c.files.Cert, "names", leaf.DNSNames, "addresses", leaf.IPAddresses, "not_after", leaf.NotAfter)
	if now := time.Now(); now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		c.log.Warn("the certificate is not valid now, clients will refuse it", "file", c.files.Cert,
			"not_before", leaf.NotBefore, "not_after", leaf.NotAfter)
	}
	return nil
}
