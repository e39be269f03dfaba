package speaker_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/speaker"
)

// Who is not trusted is told why, each side by each; and a file that is mended is
// enough, with no new client.
func TestTLS(t *testing.T) { gobgpdtest.Each(t, testTLS) }

func testTLS(t *testing.T, g gobgpdtest.Generation) {
	ours, others := gobgpdtest.NewAuthority(t), gobgpdtest.NewAuthority(t)
	hour := time.Now().Add(time.Hour)
	start := func(name string, until time.Time) *gobgpdtest.Daemon {
		cert, key := ours.Issue(name, until)
		return gobgpdtest.Start(t, gobgpdtest.Config{Generation: g, Args: []string{"--tls", "--tls-cert-file", cert, "--tls-key-file", key, "--tls-client-ca-file", ours.CA}})
	}
	right, expired, plain := start("server", hour), start("expired", time.Now().Add(-time.Hour)), gobgpdtest.Start(t, gobgpdtest.Config{Generation: g})
	cert, key := ours.Issue("client", hour)
	strangeCert, strangeKey := others.Issue("client", hour)
	ready := func(d *gobgpdtest.Daemon, tls speaker.TLS) func() error {
		t.Helper()
		c, err := speaker.Dial(speaker.Config{Address: d.API, ASN: gobgpdtest.SpeakerASN, Timeout: time.Second, TLS: tls})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return func() error { return c.Ready(t.Context()) }
	}
	mended := t.TempDir() + "/"
	for file, from := range map[string]string{"ca": others.CA, "cert": strangeCert, "key": strangeKey} {
		replace(t, from, mended+file)
	}
	ca, client := ready(right, speaker.TLS{Use: true, CA: mended + "ca", Cert: cert, Key: key}), ready(right, speaker.TLS{Use: true, CA: ours.CA, Cert: mended + "cert", Key: mended + "key"})
	fail := func(name string, ready func() error, want error, text string) {
		t.Helper()
		for range 3 { // and says so again
			gobgpdtest.Eventually(t, name, func() error {
				err := ready()
				if !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
					return fmt.Errorf("error is %w, want %w: %s", err, want, text)
				}
				return nil
			})
		}
	}
	fail("unknown CA", ca, speaker.ErrTLS, right.API+": tls: failed to verify certificate: x509: certificate signed by unknown authority")
	fail("unknown client", client, speaker.ErrTLS, "the speaker says of our certificate: remote error: tls: ")
	fail("no client certificate", ready(right, speaker.TLS{Use: true, CA: ours.CA}), speaker.ErrTLS, "remote error: tls: certificate required")
	fail("another name", ready(right, speaker.TLS{Use: true, CA: ours.CA, ServerName: "other.example"}), speaker.ErrTLS, "not other.example")
	fail("the system's CAs", ready(right, speaker.TLS{Use: true}), speaker.ErrTLS, "x509: ")
	fail("expired", ready(expired, speaker.TLS{Use: true, CA: ours.CA, Cert: cert, Key: key}), speaker.ErrTLS, "certificate has expired")
	fail("no file", ready(right, speaker.TLS{Use: true, CA: "/not/there.pem"}), speaker.ErrTLS, "CA: open /not/there.pem: no such file")
	fail("no certificate", ready(right, speaker.TLS{Use: true, CA: key}), speaker.ErrTLS, "has no certificate in PEM")
	fail("no key", ready(right, speaker.TLS{Use: true, CA: ours.CA, Cert: cert, Key: ours.CA}), speaker.ErrTLS, "certificate of ours: tls: ")
	fail("a daemon without TLS", ready(plain, speaker.TLS{Use: true, CA: ours.CA}), speaker.ErrTLS, "first record does not look like a TLS handshake")
	fail("a client without TLS", ready(right, speaker.TLS{}), speaker.ErrNoAnswer, "does it want TLS (speaker.tls), or is it no gobgpd?")

	replace(t, ours.CA, mended+"ca")
	replace(t, cert, mended+"cert")
	replace(t, key, mended+"key")
	for name, ready := range map[string]func() error{"CA": ca, "client": client, "name": ready(right, speaker.TLS{Use: true, CA: ours.CA, Cert: cert, Key: key, ServerName: "gobgpd.example"})} {
		gobgpdtest.Eventually(t, "with the right "+name, ready)
	}
	right.Kill()
	fail("gone", ca, speaker.ErrGone, "")
}

func replace(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
