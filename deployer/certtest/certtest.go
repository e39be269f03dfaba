// Package certtest makes certificates for tests.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA signs certificates. File is its own, in PEM.
type CA struct {
	File string

	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New is a CA with a folder of its own.
func New(t testing.TB) *CA {
	t.Helper()
	ca := &CA{t: t, dir: t.TempDir()}
	ca.cert, ca.key = ca.make(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, "ca", time.Now().Add(time.Hour))
	ca.File = filepath.Join(ca.dir, "ca.pem")
	return ca
}

// Issue writes a certificate for name, which is good for 127.0.0.1 as a server and
// as a client, over what it wrote for name before.
func (ca *CA) Issue(name string) (certFile, keyFile string) {
	return ca.IssueUntil(name, time.Now().Add(time.Hour))
}

// IssueUntil is Issue with an end.
func (ca *CA) IssueUntil(name string, end time.Time) (certFile, keyFile string) {
	ca.t.Helper()
	ca.make(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, name, end)
	return filepath.Join(ca.dir, name+".pem"), filepath.Join(ca.dir, name+".key")
}

func (ca *CA) make(template *x509.Certificate, name string, end time.Time) (*x509.Certificate, *ecdsa.PrivateKey) {
	ca.t.Helper()
	check := func(err error) {
		if err != nil {
			ca.t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	check(err)
	template.NotBefore, template.NotAfter = time.Now().Add(-2*time.Hour), end
	parent, signer := ca.cert, ca.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	check(err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	check(err)
	ca.write(name+".pem", "CERTIFICATE", der)
	ca.write(name+".key", "PRIVATE KEY", secret)
	cert, err := x509.ParseCertificate(der)
	check(err)
	return cert, key
}

// write replaces the file as a whole, as a renewal should.
func (ca *CA) write(name, kind string, der []byte) {
	ca.t.Helper()
	path := filepath.Join(ca.dir, name)
	err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		ca.t.Fatal(err)
	}
}
