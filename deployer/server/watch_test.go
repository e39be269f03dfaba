package server_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store"
)

// says lets a node report.
func (r *remote) says(id string, report node.Report) {
	r.t.Helper()
	if _, err := r.registry.PhoneHome(r.t.Context(), id, report); err != nil {
		r.t.Fatal(err)
	}
}

// watchNodes begins a stream. next is the ids of its next message that has nodes.
func (r *remote) watchNodes(after string) (next func() (ids []string, cursor string)) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	r.t.Cleanup(cancel)
	stream, err := r.client(true, connect.WithGRPC()).WatchNodes(ctx, &deployerv1.WatchNodesRequest{After: after})
	if err != nil {
		r.t.Fatal(err)
	}
	return func() (ids []string, cursor string) {
		r.t.Helper()
		for stream.Receive() {
			for _, n := range stream.Msg().Nodes {
				ids = append(ids, n.NodeId)
			}
			if cursor = stream.Msg().Cursor; len(ids) > 0 && cursor != "" {
				return ids, cursor
			}
		}
		r.t.Fatalf("the stream ended: %v", stream.Err())
		return nil, ""
	}
}

// TestWatchNodes: all nodes, then what changes, and over a restart of the deployer what
// differs from what the watcher had, be it of no event.
func TestWatchNodes(t *testing.T) {
	t.Parallel()
	s := file(t)
	r := begin(t, s, server.Config{}, 40, false)
	next := r.watchNodes("")
	ids, first := next()
	if len(ids) != 40 || ids[0] != "node01" || ids[39] != "node40" {
		t.Fatalf("%v", ids)
	}
	r.says("node07", node.Report{Phase: node.PhaseReady})
	ids, cursor := next()
	if fmt.Sprint(ids) != "[node07]" || cursor == first {
		t.Errorf("%v", ids)
	}
	r.says("node07", node.Report{Phase: node.PhaseReady}) // a heartbeat is no change
	r.says("node09", node.Report{Phase: node.PhaseReady})
	ids, cursor = next()
	if fmt.Sprint(ids) != "[node09]" {
		t.Errorf("%v", ids)
	}

	_ = r.http.Close()
	r = begin(t, s, server.Config{}, 40, false)
	r.says("node12", node.Report{Phase: node.PhaseReady})
	r.says("node07", node.Report{Phase: node.PhaseReady, Hostname: "seven"}) // makes no event
	ids, _ = r.watchNodes(cursor)()
	all := strings.Join(ids, " ")
	if !strings.Contains(all, "node07") || !strings.Contains(all, "node12") || len(ids) > 20 {
		t.Errorf("after a restart: %v", ids)
	}
}

// TestWatchNodesEnds: heartbeats come, and at the end of the deployer a stream ends well.
func TestWatchNodesEnds(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	r := begin(t, file(t), server.Config{Heartbeat: 10 * time.Millisecond, Stop: stop, MaxWatchers: 1}, 1, false)
	client := r.client(true, connect.WithGRPC())
	stream, err := client.WatchNodes(t.Context(), &deployerv1.WatchNodesRequest{})
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	cursor := stream.Msg().Cursor
	if !stream.Receive() || len(stream.Msg().Nodes) != 0 || stream.Msg().Cursor != cursor {
		t.Errorf("no heartbeat: %v, %v", stream.Msg(), stream.Err())
	}
	for name, err := range map[string]error{"nodes": second(client.WatchNodes(t.Context(), &deployerv1.WatchNodesRequest{})),
		"events": second(client.WatchEvents(t.Context(), &deployerv1.WatchEventsRequest{}))} {
		wantProblem(t, "one watcher of "+name+" too many", err, connect.CodeUnavailable, api.CodeBusy)
	}
	close(stop)
	for stream.Receive() { //nolint:revive // to its end
	}
	if stream.Err() != nil {
		t.Errorf("%v", stream.Err())
	}
}

// second is what a stream ends with that says nothing.
func second[M any](stream *connect.ServerStreamForClient[M], err error) error {
	if err != nil || stream.Receive() {
		return err
	}
	return stream.Err()
}

// TestWatchEvents: what was before and what comes, behind a cursor, and the word that a
// cursor is too old.
func TestWatchEvents(t *testing.T) {
	t.Parallel()
	w := newWatched(t, server.Config{})
	r := &remote{t: t, url: w.url}
	client := r.client(true, connect.WithGRPC())
	w.happens("a", "b")
	list, err := client.ListEvents(t.Context(), &deployerv1.ListEventsRequest{Limit: 1})
	if err != nil || len(list.Events) != 1 || list.Events[0].Reason != "a" || !list.More {
		t.Fatalf("%v, %v", list, err)
	}
	stream, err := client.WatchEvents(t.Context(), &deployerv1.WatchEventsRequest{After: list.Next})
	if err != nil || !stream.Receive() || stream.Msg().Events[0].Reason != "b" {
		t.Fatalf("%v, %v", err, stream.Err())
	}
	w.happens("c")
	if !stream.Receive() || stream.Msg().Events[0].Reason != "c" || stream.Msg().Events[0].Cursor != stream.Msg().Cursor {
		t.Errorf("%v, %v", stream.Msg(), stream.Err())
	}
	_ = stream.Close()
	many := make([]store.Event, 700)
	for i := range many {
		many[i] = store.Event{At: time.Now(), Node: "node01", Event: node.EventBooted, Reason: "more"}
	}
	if err := w.store.Append(t.Context(), many...); err != nil {
		t.Fatal(err)
	}
	_, err = client.ListEvents(t.Context(), &deployerv1.ListEventsRequest{After: list.Next})
	wantProblem(t, "an old cursor", err, connect.CodeOutOfRange, api.CodeCursorGone)
	err = second(client.WatchEvents(t.Context(), &deployerv1.WatchEventsRequest{After: list.Next}))
	wantProblem(t, "an old cursor, watched", err, connect.CodeOutOfRange, api.CodeCursorGone)
}

// TestSlowRPCWatcher: one that does not read is cut off, and gives its place back.
func TestSlowRPCWatcher(t *testing.T) {
	t.Parallel()
	r := begin(t, file(t), server.Config{WriteTimeout: 200 * time.Millisecond, MaxWatchers: 1}, 1, false)
	for range 200 {
		if err := r.store.Append(t.Context(), store.Event{At: time.Now(), Node: "node01", Event: node.EventBooted, Reason: strings.Repeat("long ", 800)}); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := r.dial().NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, method("WatchEvents"))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&deployerv1.WatchEventsRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil { // it has begun
		t.Fatal(err)
	}
	client := r.client(true, connect.WithGRPC())
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithCancel(t.Context())
		other, err := client.WatchNodes(ctx, &deployerv1.WatchNodesRequest{})
		if err == nil && other.Receive() {
			cancel()
			break
		}
		cancel()
		if time.Now().After(end) {
			t.Fatalf("its place is still taken: %v, %v", err, other.Err())
		}
	}
}

// TestManyStreams: thousands of streams over few connections. As many as there are
// places are served, the others are told so, reports are taken all the while, and what
// it took is given back.
func TestManyStreams(t *testing.T) {
	t.Parallel()
	const places, streams, connections = 38, 2000, 20 // the share of one address
	r := begin(t, file(t), server.Config{MaxWatchers: 50, Burst: 1 << 20}, 1, false)
	before := heap()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var served, busy, other atomic.Int32
	var wg, told sync.WaitGroup
	told.Add(streams)
	for range connections {
		conn := r.dial()
		for range streams / connections {
			wg.Go(func() {
				var message deployerv1.WatchEventsResponse
				stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method("WatchEvents"))
				if err == nil {
					_ = stream.SendMsg(&deployerv1.WatchEventsRequest{})
					_ = stream.CloseSend()
					err = stream.RecvMsg(&message)
				}
				switch status.Code(err) {
				case codes.OK:
					served.Add(1)
				case codes.Unavailable:
					busy.Add(1)
				default:
					other.Add(1)
				}
				told.Done()
				<-ctx.Done()
			})
		}
	}
	told.Wait()
	if served.Load() != places || busy.Load() != streams-places || other.Load() != 0 {
		t.Errorf("%d served, %d busy, %d other", served.Load(), busy.Load(), other.Load())
	}
	if _, err := r.client(false).PhoneHome(ctx, &deployerv1.PhoneHomeRequest{NodeId: "node01", Phase: "ready"}); err != nil {
		t.Errorf("a report beside them: %v", err)
	}
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("%d bytes", grown)
	}
	cancel()
	wg.Wait()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		again, stop := context.WithCancel(t.Context())
		stream, err := r.client(true, connect.WithGRPC()).WatchEvents(again, &deployerv1.WatchEventsRequest{})
		ok := err == nil && stream.Receive()
		stop()
		if ok {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no place is given back")
		}
	}
}

// TestSlowRPCBody: a call whose message does not come is told so, over HTTP/2 too.
func TestSlowRPCBody(t *testing.T) {
	t.Parallel()
	r := begin(t, file(t), server.Config{BodyTimeout: 100 * time.Millisecond}, 1, false)
	stream, err := r.dial().NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method("GetNode"))
	if err != nil {
		t.Fatal(err)
	}
	err = stream.RecvMsg(&deployerv1.Node{})
	if status.Code(err) != codes.DeadlineExceeded || len(status.Convert(err).Details()) != 1 {
		t.Errorf("%v", err)
	}
}
