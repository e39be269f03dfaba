package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/certtest"
	"github.com/centra/plasmacloud/deployer/node"
)

// TestServeTLS: the deployer serves over TLS, takes a renewed certificate at SIGHUP
// and keeps the old over a bad one.
func TestServeTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := certtest.New(t)
	cert, key := ca.Issue("deployer")
	m := write(t, filepath.Join(dir, "m.json"), manifest("node01"))
	p := startProc(t, nil, "--config", write(t, filepath.Join(dir, "deployer.json"), fmt.Sprintf(
		`{"manifest": %q, "store": {"path": "%s/state.db"}, "tls": {"cert": %q, "key": %q}}`, m, dir, cert, key)))
	p.tls.CA = ca.File
	p.listening()
	if !strings.HasPrefix(p.url, "https://") {
		t.Fatal(p.url)
	}
	if _, err := p.client.PhoneHome(t.Context(), ready("node01", node.PhaseReady)); err != nil {
		t.Fatal(err)
	}

	ca.Issue("deployer")
	hup := func(want string) {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		p.logged(want)
	}
	hup("certificate loaded")
	write(t, cert, "gone wrong")
	hup(`msg="certificate not loaded, the old one stays" error="certificate ` + cert)
	if n := p.get("node01"); n.State != node.Active {
		t.Errorf("%+v", n)
	}

	plain, err := api.NewClient(strings.Replace(p.url, "https", "http", 1), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plain.Health(t.Context()); err == nil || !strings.Contains(err.Error(), "not_a_deployer") {
		t.Errorf("without TLS: %v", err)
	}
}
