package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	process "github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// TestMain lets the test binary be the deployer, so that processes are killed for real.
func TestMain(m *testing.M) {
	if os.Getenv("PLASMACLOUD_TEST_AS_DEPLOYER") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// proc is a deployer in a process of its own.
type proc struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  chan string  // of stderr
	tls    api.TLSFiles // of the client
	url    string
	client *api.Client
}

func serveProc(t *testing.T, env []string, args ...string) *proc {
	t.Helper()
	p := startProc(t, env, args...)
	p.listening()
	return p
}

// startProc does not wait until the deployer listens.
func startProc(t *testing.T, env []string, args ...string) *proc {
	t.Helper()
	p := &proc{t: t, cmd: exec.CommandContext(t.Context(), os.Args[0], append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...), lines: make(chan string, 1000)}
	p.cmd.Env = append(append(os.Environ(), "PLASMACLOUD_TEST_AS_DEPLOYER=1"), env...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_, _ = p.cmd.Process.Wait()
	})
	return p
}

func (p *proc) listening() {
	p.t.Helper()
	where := regexp.MustCompile(`addr=(\S+) scheme=(\S+)`).FindStringSubmatch(p.logged("msg=listening"))
	transport, err := p.tls.Transport()
	if err != nil {
		p.t.Fatal(err)
	}
	p.url = where[2] + "://" + where[1]
	if p.client, err = api.NewClient(p.url, 10*time.Second, transport); err != nil {
		p.t.Fatal(err)
	}
}

// logged waits for a line of the log with text in it.
func (p *proc) logged(text string) string {
	p.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("the deployer ended before it logged %q", text)
			}
			if strings.Contains(line, text) {
				return line
			}
		case <-timeout:
			p.t.Fatalf("the deployer did not log %q", text)
		}
	}
}

// end sends a signal and waits for the end of the process.
func (p *proc) end(signal syscall.Signal) error {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
	for range p.lines { // until stderr closes
	}
	return p.cmd.Wait()
}

func (p *proc) get(id string) api.Node {
	p.t.Helper()
	n, err := p.client.Get(p.t.Context(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

func ready(id string, phase node.Phase) api.PhoneHomeRequest {
	return api.PhoneHomeRequest{NodeID: id, Phase: phase, Role: "worker", ConfigHash: hash1}
}

// TestKill: what was answered survives SIGKILL at any moment.
func TestKill(t *testing.T) {
	const nodes = 100
	dir := t.TempDir()
	var ids []string
	for i := range nodes {
		ids = append(ids, fmt.Sprintf("node%03d", i))
	}
	args := []string{"--store", filepath.Join(dir, "state.db"), "--manifest", write(t, filepath.Join(dir, "m.json"), manifest(ids...))}
	p := serveProc(t, nil, args...)

	// Each node reports phase after phase until the deployer dies under it.
	phases := []node.Phase{node.PhaseBooted, node.PhaseInstalling, node.PhaseInstalled, node.PhaseReady}
	answered := make([]node.Phase, nodes)
	enough := make(chan struct{}, nodes*len(phases))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() {
			for _, phase := range phases {
				if _, err := p.client.PhoneHome(t.Context(), ready(id, phase)); err != nil {
					return
				}
				answered[i] = phase
				enough <- struct{}{}
			}
		})
	}
	for range nodes * 2 {
		<-enough
	}
	if err := p.end(syscall.SIGKILL); err == nil {
		t.Error("killed and ended well")
	}
	wg.Wait()

	p = serveProc(t, nil, args...)
	order := func(phase node.Phase) int {
		for i, known := range phases {
			if phase == known {
				return i
			}
		}
		return -1
	}
	list, err := p.client.List(t.Context())
	if err != nil || len(list) != nodes {
		t.Fatalf("%d nodes, %v", len(list), err)
	}
	for i, n := range list {
		if order(n.Phase) < order(answered[i]) {
			t.Errorf("%s: %s was answered, %q is there", n.ID, answered[i], n.Phase)
		}
		if answered[i] == node.PhaseReady && n.State != node.Active {
			t.Errorf("%s is %s after ready was answered", n.ID, n.State)
		}
		if n.State == node.Provisioning && n.Deadline == nil {
			t.Errorf("%s lost its deadline", n.ID)
		}
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

// TestSignals: SIGHUP takes a new manifest and keeps the old over a bad one,
// SIGTERM stores liveness and ends well, systemd hears of each step.
func TestSignals(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "notify")
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notified.Close()
	expect := func(want string) {
		t.Helper()
		_ = notified.SetReadDeadline(time.Now().Add(20 * time.Second))
		buf := make([]byte, 256)
		n, err := notified.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), want) {
			t.Errorf("systemd heard %q, %v; want %q", buf[:n], err, want)
		}
	}
	path := write(t, filepath.Join(dir, "m.json"), manifest("node01"))
	args := []string{"--store", filepath.Join(dir, "state.db"), "--manifest", path}
	p := serveProc(t, []string{"NOTIFY_SOCKET=" + socket}, args...)
	expect("READY=1")

	hup := func(content, line string) {
		t.Helper()
		write(t, path, content)
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		p.logged(line)
		expect("RELOADING=1\nMONOTONIC_USEC=")
		expect("READY=1")
	}
	hup(manifest("node01", "node02"), `msg="manifest declared" cluster=three-nodes nodes=2 added=1`)
	hup(`{"data":null,"failedAssertions":["wrong"],"warnings":[]}`, "manifest not loaded, the old one stays")
	if _, err := p.client.PhoneHome(t.Context(), ready("node02", node.PhaseReady)); err != nil {
		t.Errorf("a node of the second manifest: %v", err)
	}
	hup(manifest("node02"), "undeclared=1")
	if n := p.get("node01"); n.Declared {
		t.Error("node01 is still declared")
	}

	if _, err := p.client.PhoneHome(t.Context(), ready("node02", node.PhaseReady)); err != nil {
		t.Fatal(err)
	}
	heard := p.get("node02").LastSeen
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	expect("STOPPING=1")
	p = serveProc(t, nil, args...)
	if got := p.get("node02").LastSeen; got == nil || !got.Equal(*heard) {
		t.Errorf("last seen %v after the restart, want %v", got, heard)
	}
}

// TestRefusesToStart: one line that names the thing and the mend, and no file
// left behind.
func TestRefusesToStart(t *testing.T) {
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "m.json"), manifest("node01"))
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	held := filepath.Join(dir, "held.db")
	serveProc(t, nil, "--store", held, "--manifest", good)

	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no manifest":       {[]string{"--manifest", filepath.Join(dir, "none.json")}, process.ExitConfig, "none.json: no such file or directory; write one with plasmactl"},
		"bad manifest":      {[]string{"--manifest", write(t, filepath.Join(dir, "bad.json"), "{")}, process.ExitConfig, "bad.json: "},
		"failed assertions": {[]string{"--manifest", write(t, filepath.Join(dir, "f.json"), `{"data":null,"failedAssertions":["a\nb"],"warnings":[]}`)}, process.ExitConfig, "f.json: the cluster fails its assertions, mend them and evaluate it again: a b"},
		"no config":         {[]string{"--config", filepath.Join(dir, "none.json")}, process.ExitConfig, "none.json"},
		"bad config":        {[]string{"--config", write(t, filepath.Join(dir, "c.json"), `{"listen":1}`)}, process.ExitConfig, "c.json: listen: want a string"},
		"no certificate":    {[]string{"--config", write(t, filepath.Join(dir, "tls.json"), `{"manifest": "`+good+`", "tls": {"cert": "/nowhere.pem", "key": "/nowhere.key"}}`)}, process.ExitConfig, "tls: certificate: open /nowhere.pem: no such file"},
		"bad address":       {[]string{"--manifest", good, "--listen", "nowhere"}, process.ExitConfig, "listen: want host:port"},
		"port taken":        {[]string{"--manifest", good, "--listen", busy.Addr().String()}, process.ExitFailure, "another process has " + busy.Addr().String() + "; stop it, or"},
		"foreign address":   {[]string{"--manifest", good, "--listen", "192.0.2.1:8080"}, process.ExitFailure, "192.0.2.1:8080 is no address of this machine; set listen to one"},
		"no such host":      {[]string{"--manifest", good, "--listen", "nowhere.invalid:8080"}, process.ExitFailure, "the host of nowhere.invalid:8080 is not found; set listen to"},
		"store is a folder": {[]string{"--manifest", good, "--listen", "127.0.0.1:0", "--store", dir}, process.ExitFailure, dir + " is a directory; set store.path to a file in it"},
		"store taken":       {[]string{"--manifest", good, "--listen", "127.0.0.1:0", "--store", held}, process.ExitFailure, "another deployer has " + held + " open; stop it, or"},
		"no directory":      {[]string{"--manifest", good, "--listen", "127.0.0.1:0", "--store", filepath.Join(dir, "no", "s.db")}, process.ExitFailure, "the directory " + filepath.Join(dir, "no") + " does not exist; create it"},
		"unknown flag":      {[]string{"--lisen", "x"}, process.ExitUsage, "--help"},
		"extra argument":    {[]string{"x"}, process.ExitUsage, "--help"},
		"bad log level":     {[]string{"--log-level", "loud"}, process.ExitUsage, "--log-level"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "state.db")
			err := run(t.Context(), append([]string{"serve", "--store", path}, test.args...), io.Discard, io.Discard)
			code := process.ExitFailure
			var coded *process.ExitError
			if errors.As(err, &coded) {
				code = coded.Code
			}
			if err == nil || code != test.code || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("exit %d: %v; want %d and %q in one line", code, err, test.code, test.want)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Error("it left a store behind")
			}
		})
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	m := write(t, filepath.Join(dir, "m.json"), manifest("node01", "node02"))
	c := write(t, filepath.Join(dir, "c.json"), `{"manifest": "`+m+`", "store": {"path": "`+dir+`/state.db"}}`)
	var out strings.Builder
	if err := run(t.Context(), []string{"check", c}, &out, io.Discard); err != nil || out.String() != c+": ok, cluster three-nodes with 2 nodes\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	write(t, c, `{"manifest": "", "allow_unknown_nodes": true}`)
	out.Reset()
	if err := run(t.Context(), []string{"check", c}, &out, io.Discard); err != nil || !strings.Contains(out.String(), "no manifest") {
		t.Errorf("%q, %v", out.String(), err)
	}
	write(t, c, `{"manifest": "", "heartbeat_interval": "x"}`)
	if err := run(t.Context(), []string{"check", c}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), c) {
		t.Errorf("a bad file: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("check made files: %v", entries)
	}
}

// TestCorruptRecord: one record that cannot be read is left out and shown, the
// others are served, and reset rewrites it.
func TestCorruptRecord(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	args := []string{"--store", path, "--manifest", write(t, filepath.Join(dir, "m.json"), manifest("node01", "node02"))}
	if err := serveProc(t, nil, args...).end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	spoil(t, path, "node02", "{torn")

	for range 2 { // it is said at each start
		p := startProc(t, nil, args...)
		p.logged(`level=ERROR msg="node left out, its record cannot be read" node=node02`)
		p.listening()
		health, err := p.client.Health(t.Context())
		if err != nil || health.Status != "degraded" || !strings.Contains(health.Reason, "node02") || !strings.Contains(health.Reason, "reset") {
			t.Errorf("health: %+v, %v", health, err)
		}
		if _, err := p.client.PhoneHome(t.Context(), ready("node01", node.PhaseReady)); err != nil {
			t.Errorf("the other node: %v", err)
		}
		_, err = p.client.PhoneHome(t.Context(), ready("node02", node.PhaseReady))
		var answered *api.Error
		if !errors.As(err, &answered) || answered.Code != api.CodeUnavailable || !strings.Contains(answered.Detail, "reset node02") {
			t.Errorf("the node itself: %v", err)
		}
		if list, err := p.client.List(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("list: %v, %v", list, err)
		}
		if health, err := p.client.Health(t.Context()); err != nil || health.Status != "degraded" {
			t.Errorf("health afterwards: %+v, %v", health, err)
		}
		if err := p.end(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	err := run(t.Context(), []string{"decommission", "node02", "--store", path}, &out, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "nodes/node02 is corrupt") || !strings.Contains(err.Error(), "reset node02 rewrites it") {
		t.Errorf("decommission: %v", err)
	}
	if err := run(t.Context(), []string{"reset", "node02", "--store", path}, &out, io.Discard); err != nil || out.String() != "node02: Pending\n" {
		t.Errorf("reset: %q, %v", out.String(), err)
	}
	p := serveProc(t, nil, args...)
	if health, err := p.client.Health(t.Context()); err != nil || health.Status != "ok" {
		t.Errorf("health after the reset: %+v, %v", health, err)
	}
	if n := p.get("node02"); !n.Declared || n.State != node.Pending || !strings.Contains(fmt.Sprint(n.History), "could not be read") {
		t.Errorf("%+v", n)
	}
}

// TestOperate: an operator takes a node out and lets it in again.
func TestOperate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	args := []string{"--store", path, "--manifest", write(t, filepath.Join(dir, "m.json"), manifest("node01"))}
	operate := func(want string, args ...string) {
		t.Helper()
		var out strings.Builder
		err := run(context.Background(), append(args, "--store", path), &out, io.Discard)
		if got := fmt.Sprint(out.String(), err); !strings.Contains(got, want) {
			t.Errorf("%v: %s, want %q", args, got, want)
		}
	}
	operate("no such file", "reset", "node01")
	if _, err := os.Stat(path); err == nil {
		t.Error("reset made a store")
	}

	p := serveProc(t, nil, args...)
	operate("another deployer has "+path, "reset", "node01")
	phoneHome := func(phase node.Phase, code string) {
		t.Helper()
		_, err := p.client.PhoneHome(t.Context(), ready("node01", phase))
		var refused *api.Error
		if errors.As(err, &refused) != (code != "") || refused != nil && refused.Code != code {
			t.Errorf("%s: %v, want %q", phase, err, code)
		}
	}
	phoneHome(node.PhaseReady, "")
	phoneHome(node.PhaseInstalling, node.CodeAlreadyProvisioned)
	for _, step := range []struct{ command, state, code string }{
		{"decommission", "Decommissioned", node.CodeDecommissioned},
		{"reset", "Pending", ""},
	} {
		if err := p.end(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		operate("node01: "+step.state, step.command, "node01", "--reason", "because of "+step.command)
		operate(`no node "node09"`, step.command, "node09")
		p = serveProc(t, nil, args...)
		phoneHome(node.PhaseInstalling, step.code)
	}
	if n := p.get("node01"); n.State != node.Provisioning || !strings.Contains(fmt.Sprint(n.History), "because of decommission") {
		t.Errorf("%+v", n)
	}
}

// TestEventsOverARestart: a watcher is let go at once when the deployer ends, and goes
// on behind its cursor with the next one; of events that are gone it is told.
func TestEventsOverARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"--store", filepath.Join(dir, "state.db"), "--manifest", write(t, filepath.Join(dir, "m.json"), manifest("node01"))}
	p := serveProc(t, nil, args...)
	followed := newFollowed(t, p.client)
	report := func(phase node.Phase, want string) {
		t.Helper()
		if _, err := p.client.PhoneHome(t.Context(), ready("node01", phase)); err != nil {
			t.Fatal(err)
		}
		await(t, "the watcher has "+want, func() bool { return followed.of("node01") == want })
	}
	report(node.PhaseBooted, "Pending Provisioning")
	begin := time.Now()
	if err := p.end(syscall.SIGTERM); err != nil || time.Since(begin) > shutdownTime/2 {
		t.Errorf("with a watcher it ends after %s, %v", time.Since(begin), err)
	}
	p = serveProc(t, nil, append(args, "--listen", strings.TrimPrefix(p.url, "http://"))...)
	report(node.PhaseReady, "Pending Provisioning Active")

	list, err := p.client.Events(t.Context(), "")
	if err != nil || len(list.Events) != 3 || list.Events[0].Event != "manifest" {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	other := serveProc(t, nil, append(args, "--store", filepath.Join(dir, "other.db"))...)
	_, err = other.client.Events(t.Context(), list.Next)
	var gone *api.Error
	if !errors.As(err, &gone) || gone.Code != api.CodeCursorGone {
		t.Errorf("a cursor of another store: %v", err)
	}
}

// spoil writes the record of a node behind the back of a deployer that was stopped.
func spoil(t *testing.T, path, id, value string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("nodes")).Put([]byte(id), []byte(value)) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}
