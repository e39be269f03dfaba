package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/cmd/internal/command/commandtest"
	"github.com/centra/plasmacloud/cmd/internal/daemon"
)

func execute(t *testing.T, args ...string) (stdout string, code int, err error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newCommand(&bytes.Buffer{})
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	err = cmd.Execute()
	var coded *daemon.ExitError
	if errors.As(err, &coded) {
		code = coded.Code
	} else if err != nil {
		code = daemon.ExitFailure
	}
	return out.String(), code, err
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "announcer.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func config(vips, hold string) string {
	return fmt.Sprintf(`{"schema_version": 1, "node_id": "node01", "asn": 65001, "drain_delay": "10ms",
		"speaker": {"address": "127.0.0.1:1", "timeout": "200ms"}, "hold": %s, "vips": [%s]}`, hold, vips)
}

func TestCheck(t *testing.T) {
	right := write(t, config(`{"address": "203.0.113.10"}`, `{}`))
	if out, code, err := execute(t, "check", right); code != 0 || out != right+": right; node node01, AS 65001, 1 VIPs\n" {
		t.Errorf("%q, %d, %v", out, code, err)
	}
	wrong := write(t, config(`{"address": "203.0.113.10", "checks": [{"type": "tcp", "address": "127.0.0.1:80", "interval": "2"}]}`, `{}`))
	out, code, err := execute(t, "check", wrong)
	want := wrong + `: vips[0].checks[0].interval: "2" is not a duration; want a number with a unit, such as "500ms", "5s" or "1m"`
	if code != daemon.ExitConfig || out != "" || err.Error() != want {
		t.Errorf("%q, %d, %v", out, code, err)
	}
}

func TestExitStatuses(t *testing.T) {
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{nil, daemon.ExitUsage, "name a command: check, release, run"},
		{[]string{"announce"}, daemon.ExitUsage, `has no command "announce"`},
		{[]string{"check"}, daemon.ExitUsage, "usage: plasmacloud-announcer check FILE"},
		{[]string{"run", "--confg", "x"}, daemon.ExitUsage, "unknown flag: --confg"},
		{[]string{"run", "x"}, daemon.ExitUsage, `unknown command "x"`},
		{[]string{"run", "--log-level", "loud"}, daemon.ExitUsage, `--log-level "loud"`},
		{[]string{"release", "x"}, daemon.ExitUsage, `unknown command "x"`},
		{[]string{"release", "--config", "/not/there.json"}, daemon.ExitConfig, "/not/there.json: no such file or directory"},
		{[]string{"run", "--config", "/not/there.json"}, daemon.ExitConfig, "/not/there.json: no such file or directory; write it first, or name another file"},
		{[]string{"check", write(t, "{")}, daemon.ExitConfig, "is it cut off?"},
		{[]string{"run", "--config", write(t, config("", `{"interface": "edge0"}`)), "--drains", filepath.Join(t.TempDir(), "drains.json")}, daemon.ExitFailure, "interface edge0: Link not found; create it, or name another one in hold"},
		{[]string{"--version"}, 0, ""},
		{[]string{"--help"}, 0, ""},
	} {
		_, code, err := execute(t, test.args...)
		if code != test.code || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%v: status %d, %v", test.args, code, err)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: more than one line: %v", test.args, err)
		}
	}
}

// Help says what an operator needs before the first start.
func TestHelpTeaches(t *testing.T) {
	commandtest.Help(t, newCommand(io.Discard))
	out, _, _ := execute(t, "--help")
	for _, want := range []string{"SIGHUP", "SIGTERM", "READY=1", "STATUS=", "graceful restart", "Exit statuses:", "78", "Files:", defaultConfig, "CAP_NET_ADMIN"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in the help", want)
		}
	}
	for _, sub := range []string{"run", "check", "release"} {
		if out, _, _ := execute(t, sub, "--help"); !strings.Contains(out, "Examples:") {
			t.Errorf("%s --help has no example", sub)
		}
	}
}

// namespace is a network namespace of the test's own, so that what it holds, and the
// claim to be the one who holds it, are nobody else's.
func namespace(t *testing.T) string {
	t.Helper()
	name := "test-" + rand.Text()[:10]
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := netns.NewNamed(name)
		if err == nil {
			err = ns.Close()
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Fatalf("make a network namespace, which needs root: %v", err)
	}
	t.Cleanup(func() { _ = netns.DeleteNamed(name) })
	return "/run/netns/" + name
}

// systemd hears of every change: ready once the host was read, reloading with its
// time stamp, ready again, stopping, and in one line how things stand. The speaker
// is not there, which is not fatal.
func TestNotify(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	status := ""
	expect := func(want string) {
		t.Helper()
		for {
			buf := make([]byte, 1024)
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("waiting for %s: %v", want, err)
			}
			lines := strings.Split(string(buf[:n]), "\n")
			for _, line := range lines {
				if text, ok := strings.CutPrefix(line, "STATUS="); ok {
					status = text
				}
			}
			if strings.HasPrefix(lines[0], "STATUS=") && len(lines) == 1 {
				continue
			}
			if lines[0] != want || want == "RELOADING=1" && !strings.HasPrefix(lines[1], "MONOTONIC_USEC=") {
				t.Fatalf("systemd hears %q, want %s", buf[:n], want)
			}
			return
		}
	}
	says := func(want string) {
		t.Helper()
		if !strings.Contains(status, want) {
			t.Errorf("status is %q, want %s", status, want)
		}
	}
	settings := strings.Replace(config("", `{"netns": "`+namespace(t)+`"}`), "127.0.0.1:1", "unix://"+socket+".none", 1)
	file := write(t, settings)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log bytes.Buffer
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, files{config: file}, slog.New(slog.NewTextHandler(&log, nil))) }()
	expect("READY=1")
	says("announced unknown of 0 healthy VIPs; speaker: speaker is not running")
	hup := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		expect("RELOADING=1")
		expect("READY=1")
	}
	hup()
	if strings.Contains(status, "refused") {
		t.Errorf("status is %q", status)
	}
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	hup()
	says("reload refused: ")
	says("announced unknown of 0")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	hup()
	if strings.Contains(status, "refused") {
		t.Errorf("status is %q", status)
	}
	cancel()
	expect("STOPPING=1")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	var said []string
	for line := range strings.Lines(log.String()) {
		for _, want := range []string{"reloaded", "reload refused", "speaker not ready"} {
			if strings.Contains(line, want) {
				said = append(said, want)
			}
		}
	}
	slices.Sort(said)
	if got := strings.Join(said, ", "); got != "reload refused, reloaded, reloaded, speaker not ready" {
		t.Errorf("log says %s:\n%s", got, log.String())
	}
}

// systemd's watchdog hears of passes, far more often than the configuration makes any.
func TestWatchdog(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "300000")
	settings := strings.Replace(config("", `{"netns": "`+namespace(t)+`"}`), "127.0.0.1:1", "unix://"+socket+".none", 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, files{config: write(t, settings)}, slog.New(slog.DiscardHandler)) }()
	for pings := 0; pings < 5; {
		buf := make([]byte, 1024)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("after %d pings: %v", pings, err)
		}
		if string(buf[:n]) == "WATCHDOG=1" {
			pings++
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if err := run(t.Context(), files{config: write(t, settings)}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "WATCHDOG_USEC") {
		t.Errorf("error is %v", err)
	}
}

// A reload that waits for a file keeps no pass waiting.
func TestReloadKeepsNoPassWaiting(t *testing.T) {
	file := filepath.Join(t.TempDir(), "announcer.json")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	n := &notifier{logger: logger}
	reloaded := make(chan struct{})
	go func() {
		n.reload(bgp.New(bgp.Options{Config: &bgp.Config{}, Logger: logger}), nil, files{config: file})
		close(reloaded)
	}()
	writer, err := os.OpenFile(file, os.O_WRONLY, 0) // returns once the reload reads
	if err != nil {
		t.Fatal(err)
	}
	passed := make(chan struct{})
	go func() {
		n.pass(bgp.Status{})
		close(passed)
	}()
	select {
	case <-passed:
	case <-time.After(10 * time.Second):
		t.Error("a pass waits for a reload that reads its file")
	}
	writer.Close()
	<-reloaded
	if n.refused == "" {
		t.Error("an empty file is taken")
	}
}

// A release that is told to stop while it waits says that it did nothing.
func TestReleaseIsToldToStop(t *testing.T) {
	settings := write(t, config("", `{"netns": "`+namespace(t)+`"}`))
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	cmd := newCommand(&out)
	cmd.SetArgs([]string{"release", "--config", settings, "--last", "", "--after", "1h"})
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := cmd.ExecuteContext(ctx); err == nil || err.Error() != "nothing is released: told to stop before 1h0m0s were over" || strings.Contains(out.String(), "an announcer runs") {
		t.Errorf("%v, %s", err, out.String())
	}
}
