package server

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// TestShareOfAnAddress: one address cannot take all connections.
func TestShareOfAnAddress(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewHTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	go func() { _ = s.Serve(limitListener(listener, 8)) }()
	t.Cleanup(func() { _ = s.Close() })
	served := func(from byte) (net.Conn, bool) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}}
		conn, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			_ = answer.Body.Close()
		}
		return conn, err == nil
	}
	var held []net.Conn
	for i := range 10 {
		conn, ok := served(1)
		if ok != (i < 6) {
			t.Errorf("connection %d of one address: %v", i, ok)
		}
		held = append(held, conn)
	}
	if _, ok := served(2); !ok {
		t.Error("another address is shut out")
	}
	_ = held[0].Close()
	within(t, func() bool { _, ok := served(1); return ok }, "no place after one was given back")
}

// TestMoreNodesThanConnections: nodes that keep their connection, and report before it is
// idle for long, leave a place for the others.
func TestMoreNodesThanConnections(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const connections, nodes, heartbeats = 8, 20, 3
	s := newHTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), connections)
	go func() { _ = s.Serve(limitListener(listener, connections)) }()
	t.Cleanup(func() { _ = s.Close() })
	clients := make([]*http.Client, nodes)
	var opened atomic.Int64
	for i := range clients {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i))}}
		transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			opened.Add(1)
			return dialer.DialContext(ctx, network, address)
		}}
		t.Cleanup(transport.CloseIdleConnections)
		clients[i] = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	}
	for beat := range heartbeats {
		for i, client := range clients {
			answer, err := client.Get("http://" + listener.Addr().String())
			if err != nil {
				t.Fatalf("heartbeat %d of node %d: %v", beat, i, err)
			}
			_ = answer.Body.Close()
		}
	}
	// Below half of them all keep theirs.
	if most := int64(nodes*heartbeats - 1); opened.Load() > most {
		t.Errorf("%d connections for %d heartbeats, want at most %d", opened.Load(), nodes*heartbeats, most)
	}
}

// TestPlaces: of what all have in common one address has a share, and gives it back.
func TestPlaces(t *testing.T) {
	t.Parallel()
	p := newPlaces(8)
	from := func(address string) *http.Request { return &http.Request{RemoteAddr: address} }
	var leave []func()
	for i := range 8 {
		left, ok := p.take(from("[2001:db8::1]:1"))
		if ok != (i < 6) {
			t.Errorf("place %d of one address: %v", i, ok)
		}
		if ok {
			leave = append(leave, left)
		}
	}
	if _, ok := p.take(from("[2001:db8::ffff]:1")); ok {
		t.Error("another address of the /64 has a share of its own")
	}
	for i := range 3 {
		left, ok := p.take(from("192.0.2.1:1"))
		if ok != (i < 2) {
			t.Errorf("place %d of another address: %v", i, ok)
		}
		if ok {
			leave = append(leave, left)
		}
	}
	for _, left := range leave {
		left()
	}
	if len(p.all) != 0 || len(p.share.open) != 0 {
		t.Errorf("%d places and %v are not given back", len(p.all), p.share.open)
	}
}

// TestAwaitShare: who is over the share of an address waits for it, and gives back what
// it got where it waits in vain.
func TestAwaitShare(t *testing.T) {
	t.Parallel()
	p, s := newPlaces(4), &server{cfg: Config{MaxWait: 50 * time.Millisecond}}
	r := &http.Request{RemoteAddr: "192.0.2.1:1"}
	var leave []func()
	for range 3 {
		left, ok := s.await(r, p)
		if !ok {
			t.Fatal("no place in the share")
		}
		leave = append(leave, left)
	}
	if _, ok := s.await(r, p); ok {
		t.Error("a place beyond the share")
	}
	s.cfg.MaxWait = 10 * time.Second
	time.AfterFunc(50*time.Millisecond, leave[0])
	left, ok := s.await(r, p)
	if !ok {
		t.Fatal("it did not wait for its share")
	}
	for _, left := range append(leave[1:], left) {
		left()
	}
	if len(p.all) != 0 || len(p.share.open) != 0 {
		t.Errorf("%d places and %v are not given back", len(p.all), p.share.open)
	}
}
