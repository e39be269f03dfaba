package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/metrics"
)

func TestState(t *testing.T) {
	file := filepath.Join(t.TempDir(), "drains.json")
	if orders, err := Load(file); err != nil || orders.Node != nil || len(orders.VIPs) != 0 {
		t.Fatalf("without a file: %+v, %v", orders, err)
	}
	order := bgp.DrainOrder{Reason: "why \"not\"", By: "uid 0", Since: time.Unix(1_000_000_000, 0).UTC()}
	want := bgp.DrainOrders{Node: &order, VIPs: map[netip.Addr]bgp.DrainOrder{netip.MustParseAddr("2001:db8::10"): order}}
	for range 2 {
		if err := save(file, want); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Load(file); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(file)); err != nil || len(entries) != 1 {
		t.Errorf("left are %v, %v", entries, err)
	}
	for _, text := range []string{"", "{", `{"vips": {"x": {}}}`, `{"nodes": null}`, `{"node": null} {}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if orders, err := Load(file); err == nil || !strings.Contains(err.Error(), "remove it, if nothing is to be drained") {
			t.Errorf("%s: %+v, %v", text, orders, err)
		}
	}
}

func TestWhoIsAllowed(t *testing.T) {
	for _, test := range []struct {
		p    peer
		self int
		want bool
	}{
		{peer{0, true}, 1000, true}, {peer{1000, true}, 1000, true}, {peer{1001, true}, 1000, false}, {peer{1001, true}, 0, false}, {peer{}, 0, false},
	} {
		if got := allowed(test.p, test.self); got != test.want {
			t.Errorf("%v for one of uid %d: %v", test.p, test.self, got)
		}
	}
}

// The kernel says who asks; an order that cannot be kept is not followed; a socket that
// a killed process left is taken over, and one that is in use is not.
func TestServer(t *testing.T) {
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, file := dir+"/s", dir+"/state/drains.json"
	vip := netip.MustParseAddr("203.0.113.10")
	a := bgp.New(bgp.Options{Config: &bgp.Config{VIPs: []bgp.VIP{{Address: vip}}}})
	logger := slog.New(slog.DiscardHandler)
	left, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	s, err := Listen(socket, file, a, func() metrics.Status { return metrics.Status{NodeID: "node01"} }, logger)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket is %v, %v", info.Mode(), err)
	}
	if err := Share(socket, "no-such-group"); err == nil || !strings.Contains(err.Error(), "no-such-group") {
		t.Errorf("to no group: %v", err)
	}
	if err := Share(socket, "root"); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("shared socket is %v, %v", info.Mode(), err)
	}
	if second, err := Listen(socket, file, a, nil, logger); err == nil || !strings.Contains(err.Error(), "somebody listens there already") {
		t.Errorf("a second one: %v, %v", second, err)
	}
	c := NewClient(socket)
	order := Order{VIP: vip.String(), Reason: "test"}
	if _, err := c.Drain(t.Context(), order); err == nil || !strings.Contains(err.Error(), "nothing is changed") || len(a.DrainOrders().VIPs) != 0 {
		t.Errorf("without a directory: %v, %v", err, a.DrainOrders())
	}
	if err := os.Mkdir(dir+"/state", 0o700); err != nil {
		t.Fatal(err)
	}
	state, err := c.Drain(t.Context(), order)
	kept, loadErr := Load(file)
	if err != nil || loadErr != nil || state.Status.NodeID != "node01" || !reflect.DeepEqual(state.Drains, kept) || !reflect.DeepEqual(a.DrainOrders(), kept) {
		t.Errorf("%+v, %+v, %v, %v", state, kept, err, loadErr)
	}
	if by := kept.VIPs[vip].By; by != (peer{uint32(os.Geteuid()), true}).String() {
		t.Errorf("by %s", by)
	}
	raw := &http.Client{Transport: c.http.Transport}
	for body, want := range map[string]int{`{"vip": 3}`: 400, `{"vips": []}`: 400, `{"vip": "203.0.113.10"} x`: 400, strings.Repeat(" ", maxOrder) + "{}": 400, `{"vip": "203.0.113.10"}`: 200} {
		response, err := raw.Post("http://x/v1/undrain", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%.40s: %s", body, response.Status)
		}
	}
}

// serve is a server with one VIP that is configured, and its client.
func serve(t *testing.T, status func() metrics.Status) (socket string, a *bgp.Announcer, s *Server) {
	t.Helper()
	dir, err := os.MkdirTemp("", "control") // t.TempDir() may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a = bgp.New(bgp.Options{Config: &bgp.Config{VIPs: []bgp.VIP{{Address: netip.MustParseAddr("203.0.113.10")}}}})
	s, err = Listen(dir+"/s", dir+"/drains.json", a, status, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return dir + "/s", a, s
}

// Only a socket is ever removed to make room for ours.
func TestNoSocket(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "passwd")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(precious, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"passwd", "link"} {
		if _, err := Listen(filepath.Join(dir, name), "", nil, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "is no socket") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left are %v, %v", entries, err)
	}
}

// Whoever gives an order and does not read the answer, however large, is in nobody's way.
func TestSlowReader(t *testing.T) {
	huge := metrics.Status{Summary: strings.Repeat("x", 8<<20)}
	socket, _, _ := serve(t, func() metrics.Status { return huge })
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const body = `{"vip": "203.0.113.10", "reason": "slow"}`
	if _, err := fmt.Fprintf(conn, "POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil { // the answer is on its way
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout/3)
	defer cancel()
	if _, err := NewClient(socket).Undrain(ctx, Order{VIP: "203.0.113.10"}); err != nil {
		t.Error(err)
	}
}

// Far more clients than are served at once all get their answer, and each order stands.
func TestManyClients(t *testing.T) {
	socket, a, _ := serve(t, func() metrics.Status { return metrics.Status{} })
	var clients sync.WaitGroup
	for i := range 1000 {
		clients.Go(func() {
			_, err := NewClient(socket).State(t.Context())
			if i%20 == 0 {
				_, err = NewClient(socket).Drain(t.Context(), Order{VIP: "203.0.113.10", Reason: fmt.Sprint("order ", i)})
			}
			if err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	clients.Wait()
	if kept, err := Load(filepath.Join(filepath.Dir(socket), "drains.json")); err != nil || !reflect.DeepEqual(kept, a.DrainOrders()) || len(kept.VIPs) != 1 {
		t.Errorf("kept are %v, in force are %v, %v", kept, a.DrainOrders(), err)
	}
}

// Orders on a full disk are refused and not followed, and the file stays as it was.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatalf("mount, which needs root: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	file := filepath.Join(dir, "drains.json")
	order := bgp.DrainOrder{Reason: "why"}
	if err := save(file, bgp.DrainOrders{Node: &order}); err != nil {
		t.Fatal(err)
	}
	if err := save(file, bgp.DrainOrders{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error is %v", err)
	}
	kept, err := Load(file)
	entries, dirErr := os.ReadDir(dir)
	if err != nil || kept.Node == nil || dirErr != nil || len(entries) != 1 {
		t.Errorf("kept is %+v, %v; left are %v, %v", kept, err, entries, dirErr)
	}
}

// Where a file is replaced, and only its folder cannot be synced, the order is in force: it
// would be after a restart.
func TestNotSynced(t *testing.T) {
	before := syncDir
	t.Cleanup(func() { syncDir = before })
	syncDir = func(string) error { return unix.EIO }
	socket, a, _ := serve(t, func() metrics.Status { return metrics.Status{} })
	if _, err := NewClient(socket).Drain(t.Context(), Order{VIP: "203.0.113.10", Reason: "why"}); err != nil {
		t.Error(err)
	}
	file := filepath.Join(filepath.Dir(socket), "drains.json")
	if kept, err := Load(file); err != nil || len(kept.VIPs) != 1 || !reflect.DeepEqual(kept, a.DrainOrders()) {
		t.Errorf("kept are %v, in force are %v, %v", kept, a.DrainOrders(), err)
	}
	if err := Replace(file, nil); !errors.Is(err, ErrNotSynced) || !errors.Is(err, unix.EIO) {
		t.Errorf("error is %v", err)
	}
}
