package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/certtest"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/tokens"
)

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// serveTLS answers every request over TLS, and says how often.
func serveTLS(t *testing.T, files TLSFiles) (address string, certificate *Certificate, log *lockedBuffer) {
	t.Helper()
	log = &lockedBuffer{}
	certificate, err := LoadCertificate(files, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return serveOver(t, certificate, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"status":"ok","version":"v1"}`))
	})), certificate, log
}

func serveOver(t *testing.T, certificate *Certificate, h http.Handler) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewHTTP(h)
	s.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	go func() { _ = s.Serve(tls.NewListener(listener, certificate.Config())) }()
	t.Cleanup(func() { _ = s.Close() })
	return listener.Addr().String()
}

// ask makes one request on a connection of its own.
func ask(t *testing.T, address string, files api.TLSFiles) error {
	t.Helper()
	transport, err := files.Transport()
	if err != nil {
		t.Fatal(err)
	}
	if own, ok := transport.(*http.Transport); ok {
		defer own.CloseIdleConnections()
	}
	client, err := api.NewClient("https://"+address, 10*time.Second, transport)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Health(t.Context())
	return err
}

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// TestTLS: who believes the CA is served, in TLS 1.2 or later.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca := certtest.New(t)
	cert, key := ca.Issue("deployer")
	address, _, _ := serveTLS(t, TLSFiles{Cert: cert, Key: key})
	wantError(t, "with the CA", ask(t, address, api.TLSFiles{CA: ca.File}), "")
	wantError(t, "with the system's CAs", ask(t, address, api.TLSFiles{}), "certificate signed by unknown authority; name the CA of the deployer's certificate with --ca-file")
	wantError(t, "with another CA", ask(t, address, api.TLSFiles{CA: certtest.New(t).File}), "certificate signed by unknown authority")

	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}}
	if _, err := dialer.DialContext(t.Context(), "tcp", address); err == nil {
		t.Error("TLS 1.1 was taken")
	}
	dialer.Config = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if state := conn.(*tls.Conn).ConnectionState(); state.NegotiatedProtocol != "h2" || state.Version != tls.VersionTLS13 {
		t.Errorf("%+v", state)
	}
}

// TestClientCA: with it, only those with a certificate of it come in.
func TestClientCA(t *testing.T) {
	t.Parallel()
	ca, clients, strangers := certtest.New(t), certtest.New(t), certtest.New(t)
	cert, key := ca.Issue("deployer")
	address, _, _ := serveTLS(t, TLSFiles{Cert: cert, Key: key, ClientCA: clients.File})
	wantError(t, "no certificate", ask(t, address, api.TLSFiles{CA: ca.File}), "certificate required; a deployer with tls.client_ca wants a certificate of that CA: --cert-file and --key-file")
	own, ownKey := clients.Issue("node01")
	wantError(t, "its own", ask(t, address, api.TLSFiles{CA: ca.File, Cert: own, Key: ownKey}), "")
	own, ownKey = strangers.Issue("node01")
	// Go's client does not send a certificate that the server would not take.
	wantError(t, "a stranger's", ask(t, address, api.TLSFiles{CA: ca.File, Cert: own, Key: ownKey}), "certificate")
}

// TestOperatorCertificates: who shows a certificate with an operator's name needs no
// token, and has the role that the file gives that name.
func TestOperatorCertificates(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	g.cfg.Operators = g.file(tokens.Operators, "bob certificate role=operator\nold certificate role=admin expires=2026-03-01T00:00:00Z\na "+token("a")+" role=admin")
	g.cfg.Metrics = nil
	ca, clients := certtest.New(t), certtest.New(t)
	cert, key := ca.Issue("deployer")
	for _, auth := range []ClientAuth{ClientAuthOptional, ClientAuthRequired} {
		certificate, err := LoadCertificate(TLSFiles{Cert: cert, Key: key, ClientCA: clients.File, ClientAuth: auth}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		g.cfg.Metrics = nil
		address := serveOver(t, certificate, New(g.cfg))
		for _, test := range []struct {
			name, token string
			verb        node.Event
			want        string // in the error
		}{
			{"bob", "", node.EventHold, ""},
			{"bob", "", node.EventReset, api.CodeOperatorRole},
			{"bob", token("a"), node.EventReset, ""}, // the token counts
			{"bob", token("x"), node.EventHold, api.CodeOperatorTokenWrong},
			{"old", "", node.EventHold, api.CodeOperatorTokenExpired},
			{"node01", "", node.EventHold, api.CodeOperatorTokenRequired},
			{"", "", node.EventHold, map[ClientAuth]string{ClientAuthOptional: api.CodeOperatorTokenRequired, ClientAuthRequired: "certificate required"}[auth]},
			{"", token("a"), node.EventHold, map[ClientAuth]string{ClientAuthRequired: "certificate required"}[auth]},
		} {
			files := api.TLSFiles{CA: ca.File}
			if test.name != "" {
				files.Cert, files.Key = clients.Issue(test.name)
			}
			transport, err := files.Transport()
			if err != nil {
				t.Fatal(err)
			}
			client, err := api.NewClient("https://"+address, 10*time.Second, transport)
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.WithToken(test.token).Operate(t.Context(), "node01", test.verb, api.OperateRequest{})
			wantError(t, fmt.Sprintf("%s: %s %q %s", auth, test.name, test.token, test.verb), err, test.want)
			transport.(*http.Transport).CloseIdleConnections()
		}
	}
	var log api.AuditLog
	if text := g.get(api.PathAudit, &log); !strings.Contains(text, `"by":"bob"`) {
		t.Error(text)
	}
}

// TestOrdersOfOtherSites: a browser shows an operator's certificate to whatever page asks
// it to, so an order that another site's page sends is none of the operator's. A token
// goes with nothing that a page of another site can send.
func TestOrdersOfOtherSites(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	g.cfg.Operators = g.file(tokens.Operators, "bob certificate role=admin")
	g.cfg.Metrics = nil
	ca, clients := certtest.New(t), certtest.New(t)
	cert, key := ca.Issue("deployer")
	certificate, err := LoadCertificate(TLSFiles{Cert: cert, Key: key, ClientCA: clients.File, ClientAuth: ClientAuthOptional}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	address := serveOver(t, certificate, New(g.cfg))
	files := api.TLSFiles{CA: ca.File}
	files.Cert, files.Key = clients.Issue("bob")
	transport, err := files.Transport()
	if err != nil {
		t.Fatal(err)
	}
	defer transport.(*http.Transport).CloseIdleConnections()
	for _, test := range []struct {
		method, path string
		header       map[string]string
		want         int
	}{
		{http.MethodPost, "/nodes/node01/decommission", map[string]string{"Sec-Fetch-Site": "cross-site"}, http.StatusForbidden},
		{http.MethodPost, "/nodes/node01/decommission", map[string]string{"Sec-Fetch-Site": "same-site"}, http.StatusForbidden},
		{http.MethodPost, "/nodes/node01/decommission", map[string]string{"Origin": "https://elsewhere.example"}, http.StatusForbidden},
		{http.MethodDelete, "/tokens/row2", map[string]string{"Sec-Fetch-Site": "cross-site"}, http.StatusForbidden},
		{http.MethodGet, "/nodes/node01", map[string]string{"Sec-Fetch-Site": "cross-site"}, http.StatusOK}, // the page cannot read it
		{http.MethodPost, "/nodes/node01/hold", map[string]string{"Sec-Fetch-Site": "same-origin"}, http.StatusOK},
		{http.MethodPost, "/nodes/node01/hold", nil, http.StatusOK}, // no browser
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, "https://"+address+"/api/v1"+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range test.header {
			request.Header.Set(name, value)
		}
		answer, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != test.want || test.want == http.StatusForbidden && !strings.Contains(string(text), `"cross_origin"`) {
			t.Errorf("%s %s %v: %d %s", test.method, test.path, test.header, answer.StatusCode, text)
		}
	}
}

// TestRenewal: a renewed certificate is used without a signal, and one that cannot
// be used leaves the old one, with one line in the log.
func TestRenewal(t *testing.T) {
	t.Parallel()
	ca := certtest.New(t)
	cert, key := ca.Issue("deployer")
	address, certificate, log := serveTLS(t, TLSFiles{Cert: cert, Key: key})
	serial := func() string {
		conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	ca.Issue("deployer")
	within(t, func() bool { return serial() != first }, "the renewed certificate is not used")

	second := serial()
	if err := os.WriteFile(key, []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	within(t, func() bool { return serial() == second && strings.Contains(log.String(), "the old one stays") }, "nothing is logged")
	time.Sleep(lookInterval) // it looks again, at the same files
	if serial() != second || strings.Count(log.String(), "the old one stays") != 1 {
		t.Errorf("log:\n%s", log)
	}
	wantError(t, "reload", certificate.Reload(), key)

	ca.IssueUntil("deployer", time.Now().Add(-time.Hour))
	if err := certificate.Reload(); err != nil || !strings.Contains(log.String(), "not valid now") {
		t.Errorf("an expired certificate: %v\n%s", err, log)
	}
	wantError(t, "an expired certificate", ask(t, address, api.TLSFiles{CA: ca.File}), "expired")
}

func within(t *testing.T, done func() bool, otherwise string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatal(otherwise)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestLoadCertificate(t *testing.T) {
	t.Parallel()
	ca := certtest.New(t)
	cert, key := ca.Issue("deployer")
	_, otherKey := ca.Issue("other")
	_, openKey := ca.Issue("open")
	if err := os.Chmod(openKey, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		files TLSFiles
		want  string
	}{
		"no certificate":      {TLSFiles{Cert: "/nowhere.pem", Key: key}, "/nowhere.pem: no such file"},
		"no key":              {TLSFiles{Cert: cert, Key: "/nowhere.key"}, "/nowhere.key: no such file"},
		"another's key":       {TLSFiles{Cert: cert, Key: otherKey}, "private key does not match public key"},
		"a key for everybody": {TLSFiles{Cert: cert, Key: openKey}, "its mode is 0644"},
		"no PEM":              {TLSFiles{Cert: key, Key: key}, key},
		"no client CA":        {TLSFiles{Cert: cert, Key: key, ClientCA: key}, "no certificate in it"},
	} {
		_, err := LoadCertificate(test.files, slog.New(slog.DiscardHandler))
		wantError(t, name, err, test.want)
	}
}
