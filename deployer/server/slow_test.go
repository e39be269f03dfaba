package server_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store/bolt"
	"github.com/centra/plasmacloud/deployer/tokens"
)

// listen serves the API on a port of its own, with n nodes declared. The store's
// reads wait for gate, unless it is nil.
func listen(t *testing.T, cfg server.Config, n int, gate chan struct{}) (addr string) {
	t.Helper()
	file, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	slow := &slowStore{Store: file}
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.Registry, err = deployer.New(t.Context(), deployer.Config{Store: slow, Logger: cfg.Logger}); err != nil {
		t.Fatal(err)
	}
	var nodes []node.Declaration
	for i := range n {
		nodes = append(nodes, node.Declaration{ID: fmt.Sprintf("node%02d", i+1), Role: "worker", ConfigHash: hash1})
	}
	if _, err := cfg.Registry.Declare(t.Context(), nodes); err != nil {
		t.Fatal(err)
	}
	slow.gate = gate
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := server.NewHTTP(server.New(cfg))
	go func() { _ = srv.Serve(smallBuffers{listener}) }()
	t.Cleanup(func() { _ = srv.Close() })
	return listener.Addr().String()
}

// smallBuffers lets the kernel take little of an answer off the server's hands.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		_ = conn.(*net.TCPConn).SetWriteBuffer(16 << 10)
	}
	return conn, err
}

// say opens a connection and sends text on it.
func say(t *testing.T, addr, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// heard is the answer that comes on conn.
func heard(t *testing.T, conn net.Conn) (status int, header http.Header, body string) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(data)
}

const report = "POST " + api.PathPhoneHome + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"

// TestSlowBodies: peers that announce a body and send one byte of it, or most of a
// large one, keep nobody else waiting, and are told off.
func TestSlowBodies(t *testing.T) {
	addr := listen(t, server.Config{MaxConcurrent: 2, MaxWait: 10 * time.Second, BodyTimeout: time.Second}, 1, nil)
	var slow []net.Conn
	for range 20 {
		slow = append(slow, say(t, addr, fmt.Sprintf(report, 100, "{")), say(t, addr, fmt.Sprintf(report, 60_000, strings.Repeat(" ", 50_000))),
			say(t, addr, "GET "+api.PathNodes+"/node01 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"))
	}
	time.Sleep(100 * time.Millisecond) // for them to arrive
	began := time.Now()
	const good = `{"node_id":"node01","phase":"ready"}`
	if status, _, body := heard(t, say(t, addr, fmt.Sprintf(report, len(good), good))); status != 200 {
		t.Errorf("a good report: %d %s", status, body)
	}
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("a good report is answered after %s", took)
	}
	for i, conn := range slow {
		if i%3 == 2 {
			continue
		}
		status, header, body := heard(t, conn)
		if status != 408 || header.Get("Content-Type") != api.ProblemContentType || !strings.Contains(body, api.CodeBodyTooSlow) {
			t.Errorf("a slow report: %d %v %s", status, header, body)
		}
	}
}

// TestLateAnswer: the deadline of a body does not end the wait for a turn.
func TestLateAnswer(t *testing.T) {
	gate := make(chan struct{})
	addr := listen(t, server.Config{BodyTimeout: 100 * time.Millisecond}, 0, gate)
	const good = `{"node_id":"node01","phase":"ready"}`
	conn := say(t, addr, fmt.Sprintf(report, len(good), good))
	time.Sleep(300 * time.Millisecond)
	close(gate)
	if status, _, body := heard(t, conn); status != 403 || !strings.Contains(body, node.CodeUnknownNode) {
		t.Errorf("%d %q", status, body)
	}
}

// TestLateOrder: nor does that of a form of the page, and be it empty.
func TestLateOrder(t *testing.T) {
	gate := make(chan struct{})
	cfg := server.Config{BodyTimeout: 100 * time.Millisecond, MaxConcurrent: 1}
	path := filepath.Join(t.TempDir(), "operators")
	if err := os.WriteFile(path, []byte("alice "+operatorToken+" role=operator\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if cfg.Operators, err = tokens.Open(tokens.Operators, path); err != nil {
		t.Fatal(err)
	}
	addr := listen(t, cfg, 1, gate)
	const signed = "Host: x\r\nAuthorization: Bearer " + operatorToken + "\r\n"
	say(t, addr, "GET "+api.PathNodes+"/node01 HTTP/1.1\r\n"+signed+"\r\n") // at work until the gate opens
	time.Sleep(100 * time.Millisecond)
	conn := say(t, addr, "POST "+hold01+" HTTP/1.1\r\n"+signed+"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n\r\n")
	time.Sleep(300 * time.Millisecond)
	close(gate)
	if status, header, body := heard(t, conn); status != 303 || header.Get("Location") != "/ui/nodes/node01" {
		t.Errorf("%d %q", status, body)
	}
}

// TestSlowReaders: peers that ask for the list and do not read it have no more than a part
// of it in memory, however long it is, keep nobody else waiting, and are cut off.
func TestSlowReaders(t *testing.T) {
	const nodes, readers, cutOff = 5_000, 90, 4 * time.Second
	addr := listen(t, server.Config{MaxConcurrent: readers / 2, MaxWait: 10 * time.Second, WriteTimeout: cutOff}, nodes, nil)
	const request = "GET " + api.PathNodes + " HTTP/1.1\r\nHost: x\r\n\r\n"
	_, _, list := heard(t, say(t, addr, request))
	if got := strings.Count(list, `"node_id"`); got != nodes {
		t.Fatalf("%d nodes", got)
	}
	before := heap()
	small := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	var slow []net.Conn
	asked := time.Now()
	for range readers {
		conn, err := small.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, conn)
	}
	const most = readers * 128 << 10
	grown := heap() - before
	for ; grown > most || time.Since(asked) < time.Second; grown = heap() - before { // first the fleet is read anew
		if time.Since(asked) > cutOff {
			t.Fatalf("%d lists of %d bytes take %d bytes", readers, len(list), grown)
		}
		time.Sleep(100 * time.Millisecond)
	}
	const good = `{"node_id":"node01","phase":"ready"}`
	if status, _, body := heard(t, say(t, addr, fmt.Sprintf(report, len(good), good))); status != 200 || time.Since(asked) > cutOff {
		t.Errorf("a good report: %d %s %s after the lists were asked for", status, body, time.Since(asked))
	}
	if _, _, list := heard(t, say(t, addr, request)); strings.Count(list, `"node_id"`) != nodes {
		t.Errorf("a list for one who reads has %d bytes", len(list))
	}
	time.Sleep(cutOff)
	_ = slow[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.Copy(io.Discard, slow[0]); err != nil && !errors.Is(err, syscall.ECONNRESET) || got >= int64(len(list)) {
		t.Errorf("one who does not read got %d of %d bytes, %v", got, len(list), err)
	}
}

// heap is how many bytes are in use.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
