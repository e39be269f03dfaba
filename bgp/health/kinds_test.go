package health

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/centra/plasmacloud/bgp/internal/systemdtest"
)

// answers asks, and compares; want is a part of the reason, "" a good answer.
func answers(t *testing.T, c Check, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := Probe(ctx, c)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%+v: %v, want %q", c, err, want)
	}
}

func caOf(t *testing.T, s *httptest.Server) string {
	file := filepath.Join(t.TempDir(), "ca.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestHTTPAnswers(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/teapot", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	mux.HandleFunc("/text", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "state: ready\n") })
	mux.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat(" ", maxBody)+"ready") })
	mux.HandleFunc("/asked", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "host=%s x=%s agent=%s", r.Host, r.Header.Get("X-Probe"), r.UserAgent())
	})
	mux.HandleFunc("/hop/{n}", func(w http.ResponseWriter, r *http.Request) {
		next := map[string]string{"3": "/hop/2", "2": "/hop/1", "1": "/text"}[r.PathValue("n")]
		http.Redirect(w, r, next, http.StatusFound)
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://localhost.invalid/", http.StatusFound)
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 2*maxBody)) })
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer plain.Close()
	defer secure.Close()
	web := func(path string, change func(*Check)) Check {
		c := Check{Kind: HTTP, URL: plain.URL + path}
		if change != nil {
			change(&c)
		}
		return c
	}
	for _, test := range []struct {
		check Check
		want  string
	}{
		{web("/teapot", nil), "answers 418, want 2xx"},
		{web("/teapot", func(c *Check) { c.Status = "200-299,418" }), ""},
		{web("/text", func(c *Check) { c.Status = "204,300-399" }), "answers 200, want 204, 300-399"},
		{web("/text", func(c *Check) { c.Body = "ready" }), ""},
		{web("/text", func(c *Check) { c.Body = "Ready" }), `answers 200, and its body does not have "Ready"`},
		{web("/text", func(c *Check) { c.BodyRegex = `^state: (ready|busy)\n$` }), ""},
		{web("/text", func(c *Check) { c.BodyRegex = `^ready` }), "its body does not match \"^ready\""},
		{web("/text", func(c *Check) { c.Body, c.BodyRegex = "ready", "^ready" }), "does not match"},
		{web("/late", func(c *Check) { c.Body = "ready" }), "does not have"},
		{web("/asked", func(c *Check) {
			c.Body = "host=www.example.org x=1 agent=mine"
			c.Host = "www.example.org"
			c.Headers = ListOf("X-Probe", "1", "User-Agent", "mine")
		}), ""},
		{web("/asked", func(c *Check) { c.Body = "x= agent=plasmacloud-announcer" }), ""},
		{web("/hop/3", nil), "answers 302, want 2xx"},
		{web("/hop/3", func(c *Check) { c.Redirects = 2 }), "answers 302, want 2xx"},
		{web("/hop/3", func(c *Check) { c.Redirects = 3; c.Body = "ready" }), ""},
		{web("/away", func(c *Check) { c.Redirects = 3 }), `leads to another host, "localhost.invalid"`},
		{web("/away", nil), "answers 302, want 2xx"},
		{web("/headers", nil), "server response headers exceeded"},
		{Check{Kind: HTTP, URL: secure.URL + "/text"}, ""},
		{Check{Kind: HTTP, URL: secure.URL + "/text", CAFile: caOf(t, secure)}, ""},
		{Check{Kind: HTTP, URL: secure.URL + "/text", CAFile: caOf(t, secure), Host: "example.com"}, ""},
		{Check{Kind: HTTP, URL: secure.URL + "/text", CAFile: caOf(t, secure), Host: "other.example"}, "not other.example"},
		{Check{Kind: HTTP, URL: secure.URL + "/text", CAFile: "/nowhere/ca.pem"}, "no such file"},
		{Check{Kind: HTTP, URL: secure.URL + "/text", CAFile: "/dev/null"}, "has no certificate in PEM"},
	} {
		answers(t, test.check, test.want)
	}
}

// The environment's proxy is not asked: it answers for services that are down.
func TestNoProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	t.Setenv("HTTPS_PROXY", proxy.URL)
	answers(t, Check{Kind: HTTP, URL: "http://service.invalid/"}, "service.invalid")
	answers(t, Check{Kind: GRPC, Address: "service.invalid:80"}, "service.invalid")
}

func TestGRPCAnswers(t *testing.T) {
	t.Parallel()
	// Its certificate is for example.com and 127.0.0.1.
	certified := httptest.NewTLSServer(http.NotFoundHandler())
	defer certified.Close()
	ca := caOf(t, certified)
	serve := func(register bool, options ...grpc.ServerOption) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(options...)
		if register {
			service := grpchealth.NewServer()
			service.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_SERVING)
			service.SetServingStatus("shop.Till", healthpb.HealthCheckResponse_NOT_SERVING)
			healthpb.RegisterHealthServer(server, service)
		}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		return l.Addr().String()
	}
	plain, none := serve(true), serve(false)
	secure := serve(true, grpc.Creds(credentials.NewServerTLSFromCert(&certified.TLS.Certificates[0])))
	_, port, _ := net.SplitHostPort(plain)
	closed := httptest.NewServer(nil)
	closed.Close()
	for _, test := range []struct {
		check Check
		want  string
	}{
		{Check{Address: plain}, ""},
		{Check{Address: plain, Service: "shop.Cart"}, ""},
		{Check{Address: plain, Service: "shop.Till"}, "answers NOT_SERVING, want SERVING"},
		{Check{Address: plain, Service: "shop.Tea"}, `knows no service "shop.Tea"`},
		{Check{Address: none}, "does not serve grpc.health.v1"},
		{Check{Address: closed.Listener.Addr().String()}, "connection refused"},
		{Check{Address: certified.Listener.Addr().String()}, "Unavailable"},
		{Check{Address: secure, TLS: true}, ""},
		{Check{Address: secure, TLS: true, CAFile: ca}, ""},
		{Check{Address: secure, TLS: true, CAFile: ca, Host: "example.com"}, ""},
		{Check{Address: secure, TLS: true, CAFile: ca, Host: "other.example"}, "not other.example"},
		{Check{Address: secure, TLS: true, CAFile: "/nowhere/ca.pem"}, "no such file"},
		{Check{Address: secure}, "Unavailable"},
		{Check{Address: "localhost:" + port, NotAddr: netip.MustParseAddr("127.0.0.1")}, "leads to the VIP itself"},
	} {
		test.check.Kind = GRPC
		answers(t, test.check, test.want)
	}
}

// script is an executable file of the shell.
func script(t *testing.T, text string) List {
	file := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	// Not directly: a fork of another test may still have the file open for writing (ETXTBSY).
	return ListOf("/bin/sh", file)
}

func TestExecAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		command List
		want    string
	}{
		{ListOf("/bin/true"), ""},
		{ListOf("/bin/false"), "exit status 1"},
		{ListOf("/nowhere/program"), "no such file or directory"},
		{ListOf("/etc/passwd"), "permission denied"},
		{ListOf("/bin/test", "", "=", ""), ""},
		{ListOf("/bin/test", "a  b", "=", "a b"), "exit status 1"},
		{script(t, "echo backlog of 17; echo more; exit 3"), "exit status 3: backlog of 17"},
		{script(t, "echo >&2; echo to stderr >&2; exit 3"), "exit status 3: to stderr"},
		{script(t, `printf 'a\033[31mb\r\nc'; exit 3`), "exit status 3: a [31mb"},
		{script(t, "head -c 1000000 /dev/zero | tr '\\0' x; exit 3"), "exit status 3: " + strings.Repeat("x", 200) + "…"},
		{script(t, "kill -9 $$"), "signal: killed"},
		{script(t, `test "$#,$PWD,$(env | cut -d= -f1 | sort | tr '\n' ' ')" = "0,/,PATH PWD "`), ""},
		{script(t, "cat"), ""}, // nothing comes in
		{"", "no command"},
	} {
		answers(t, Check{Kind: Exec, Command: test.command}, test.want)
	}
}

// The program does not get the network rights that the unit gives the announcer.
func TestExecDropsCapabilities(t *testing.T) {
	t.Parallel()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends with the goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		err := unix.Capget(&header, &caps[0])
		caps[0].Inheritable |= 1 << unix.CAP_NET_ADMIN
		err = errors.Join(err, unix.Capset(&header, &caps[0]), unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_ADMIN, 0, 0))
		if err == nil {
			out, readErr := exec.Command("/bin/grep", "CapAmb", "/proc/self/status").Output()
			if readErr != nil || strings.TrimSpace(string(out)) == "CapAmb:	0000000000000000" {
				err = errors.Join(readErr, fmt.Errorf("test is wrong: %s", out))
			}
		}
		if err == nil {
			err = Probe(context.Background(), Check{Kind: Exec, Command: ListOf("/bin/grep", "-q", "^CapAmb:\t0*$", "/proc/self/status")})
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Neither a program that hangs nor its children outlive the probe, nor do children
// of one that ended well; and they do not keep it waiting.
func TestExecLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"sleep 1000 & echo $! > %s; wait", "sleep 1000 & echo $! > %s", "trap '' TERM INT HUP; sleep 1000 & echo $! > %s; while :; do wait; done"} {
		file := filepath.Join(t.TempDir(), "pid")
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // until the child runs
			for ctx.Err() == nil {
				if data, err := os.ReadFile(file); err == nil && strings.HasSuffix(string(data), "\n") {
					break
				}
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		began := time.Now()
		_ = Probe(ctx, Check{Kind: Exec, Command: script(t, fmt.Sprintf(text, file))})
		cancel()
		if took := time.Since(began); took > 100*time.Second {
			t.Errorf("%s took %s", text, took)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		proc := "/proc/" + strings.TrimSpace(string(data)) + "/stat"
		for {
			stat, err := os.ReadFile(proc)
			if err != nil || strings.Contains(string(stat), ") Z ") {
				break // gone, or waiting for whoever adopted it
			}
			if time.Since(began) > 100*time.Second {
				t.Fatalf("the child of %s still runs", text)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// unit is one of systemd's, by its properties.
type unit map[string]string

func (u unit) Get(_, name string) (dbus.Variant, *dbus.Error) {
	return dbus.MakeVariant(u[name]), nil
}

// A real bus, with a stand-in for systemd on it, whose interface is the real one's:
// there is no systemd where tests run.
func TestSystemdAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := probeSystemd(ctx, filepath.Join(dir, "bus"), "nginx.service"); err == nil || !strings.HasPrefix(err.Error(), "system bus: dial unix") {
		t.Errorf("without a bus: %v", err)
	}
	socket, _ := systemdtest.StartBus(t)
	if err := probeSystemd(ctx, socket, "nginx.service"); err == nil || !strings.HasPrefix(err.Error(), "systemd: ") {
		t.Errorf("without systemd: %v", err)
	}
	conn, err := dbus.Connect("unix:path=" + socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, properties := range map[string]unit{
		"nginx.service":     {"ActiveState": "active", "LoadState": "loaded"},
		"shop@1.service":    {"ActiveState": "reloading", "LoadState": "loaded"},
		"dead.service":      {"ActiveState": "failed", "LoadState": "loaded"},
		"absent.service":    {"ActiveState": "inactive", "LoadState": "not-found"},
		"coming\\x2d.mount": {"ActiveState": "activating", "LoadState": "loaded"},
		"huge.service":      {"ActiveState": strings.Repeat("x", 128<<10), "LoadState": "loaded"},
	} {
		path := dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + systemd.PathBusEscape(name))
		if err := conn.Export(properties, path, "org.freedesktop.DBus.Properties"); err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := conn.RequestName(systemdtest.Name, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	for name, want := range map[string]string{
		"nginx.service": "", "shop@1.service": "",
		"dead.service": "is failed", "absent.service": "is inactive (not-found)", "coming\\x2d.mount": "is activating", "huge.service": "systemd: ",
	} {
		if err := probeSystemd(ctx, socket, name); want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	// A bus that hangs does not make the probe hang, wherever it is then.
	silent, err := net.Listen("unix", filepath.Join(dir, "silent"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	short, end := context.WithTimeout(ctx, 50*time.Millisecond)
	defer end()
	if err := probeSystemd(short, silent.Addr().String(), "nginx.service"); err == nil {
		t.Error("a bus that is silent is good")
	}
}
