package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	process "github.com/centra/plasmacloud/cmd/internal/daemon"
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
	if _, err := plain.Health(t.Context()); err == nil || !strings.Contains(err.Error(), "one that serves https answers http so") {
		t.Errorf("without TLS: %v", err)
	}
}

// TestWatchdog: systemd hears of the deployer as often as it wants.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "notify")
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notified.Close()
	serveProc(t, []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=300000"},
		"--store", filepath.Join(dir, "state.db"), "--manifest", write(t, filepath.Join(dir, "m.json"), manifest("node01")))
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"} {
		_ = notified.SetReadDeadline(time.Now().Add(20 * time.Second))
		buf := make([]byte, 256)
		if n, err := notified.Read(buf); err != nil || string(buf[:n]) != want {
			t.Fatalf("systemd heard %q, %v; want %q", buf[:n], err, want)
		}
	}
}

// TestNixConfigs: what the Nix module writes is what this program takes.
func TestNixConfigs(t *testing.T) {
	recorded, err := os.ReadFile("../../nix/tests/nodes.json")
	if err != nil {
		t.Fatal(err)
	}
	var nodes struct {
		Deployers map[string]struct{ JSON json.RawMessage }
	}
	if err := json.Unmarshal(recorded, &nodes); err != nil || len(nodes.Deployers) < 3 {
		t.Fatalf("%d deployers, %v", len(nodes.Deployers), err)
	}
	for name, d := range nodes.Deployers {
		c, err := parseConfig(d.JSON)
		if err == nil {
			err = c.check()
		}
		if err != nil || c.Store.Type != strings.TrimSuffix(name, "Alone") {
			t.Errorf("%s: %v\n%s", name, err, d.JSON)
		}
	}
}

// TestTokenFiles: SIGHUP takes a changed file, and keeps the tokens over a bad one;
// check and serve refuse a file that is wrong, and never show what is in it.
func TestTokenFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := "first-first-first-first", "second-second-second-second"
	join := write(t, filepath.Join(dir, "join"), "a "+first)
	operators := write(t, filepath.Join(dir, "operators"), "me "+first+" role=viewer")
	config := func(join, operators string) string {
		return write(t, filepath.Join(dir, "deployer.json"), fmt.Sprintf(
			`{"manifest": %q, "store": {"path": "%s/state.db"}, "tokens": {"join_file": %q, "operators_file": %q}}`,
			write(t, filepath.Join(dir, "m.json"), manifest("node01", "node02")), dir, join, operators))
	}
	p := startProc(t, nil, "--config", config(join, operators))
	p.logged(`msg="join tokens loaded" tokens=1`)
	p.logged("tokens without TLS can be read by anybody on the way")
	p.listening()

	report := func(id, token, want string) {
		t.Helper()
		request := ready(id, node.PhaseReady)
		request.JoinToken, request.Secret = token, "secret-secret-secret-"+id
		_, err := p.client.PhoneHome(t.Context(), request)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s with %s: %v, want %q", id, token, err, want)
		}
	}
	list := func(token, want string) {
		t.Helper()
		_, err := p.client.WithToken(token).List(t.Context())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("list with %s: %v, want %q", token, err, want)
		}
	}
	hup := func(lines ...string) {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			p.logged(line)
		}
	}
	report("node01", second, "join_token_wrong")
	report("node01", first, "")
	list(first, "")
	list("", "operator_token_required")

	write(t, join, "b "+second)
	write(t, operators, "me "+second+" role=boss")
	hup(`msg="join tokens loaded" tokens=1`, `msg="operators' tokens not loaded, the old ones stay" error="`+operators+": line 1: role: want")
	report("node02", first, "join_token_wrong")
	report("node02", second, "")
	report("node01", "", "") // it has joined
	list(first, "")

	for name, test := range map[string]struct{ join, operators, want string }{
		"no file":      {filepath.Join(dir, "none"), "", "tokens.join_file: open " + dir},
		"a wrong line": {"", operators, "tokens.operators_file: " + operators + ": line 1: role"},
		"both at once": {operators, join, "tokens.join_file: " + operators},
	} {
		err := run(t.Context(), []string{"check", config(test.join, test.operators)}, io.Discard, io.Discard)
		var coded *process.ExitError
		if !errors.As(err, &coded) || coded.Code != process.ExitConfig || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), second) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
