package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
	"github.com/centra/plasmacloud/deployer/api/v1/deployerv1connect"
	"github.com/centra/plasmacloud/deployer/certtest"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

// remote is a deployer behind a real connection.
type remote struct {
	t        *testing.T
	url      string
	roots    *x509.CertPool // nil: cleartext
	store    store.Store
	registry *deployer.Registry
	http     *http.Server
}

// begin serves nodes of the store, with TLS where that is asked for.
func begin(t *testing.T, s store.Store, cfg server.Config, nodes int, secure bool) *remote {
	t.Helper()
	r := &remote{t: t, store: s}
	cfg.Logger = slog.New(slog.DiscardHandler)
	var err error
	if r.registry, err = deployer.New(t.Context(), deployer.Config{Store: s, Logger: cfg.Logger}); err != nil {
		t.Fatal(err)
	}
	var declared []node.Declaration
	for i := range nodes {
		declared = append(declared, node.Declaration{ID: fmt.Sprintf("node%02d", i+1), Role: "worker", ConfigHash: hash1})
	}
	if _, err := r.registry.Declare(t.Context(), declared); err != nil {
		t.Fatal(err)
	}
	cfg.Registry = r.registry
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + listener.Addr().String()
	if secure {
		ca := certtest.New(t)
		cert, key := ca.Issue("deployer")
		certificate, err := server.LoadCertificate(server.TLSFiles{Cert: cert, Key: key}, cfg.Logger)
		if err != nil {
			t.Fatal(err)
		}
		pem, err := os.ReadFile(ca.File)
		if err != nil {
			t.Fatal(err)
		}
		r.roots = x509.NewCertPool()
		r.roots.AppendCertsFromPEM(pem)
		listener = tls.NewListener(listener, certificate.Config())
		r.url = "https://" + strings.TrimPrefix(r.url, "http://")
	}
	r.http = server.NewHTTP(server.AsDocumented(t, server.New(cfg)))
	r.http.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	go func() { _ = r.http.Serve(listener) }()
	t.Cleanup(func() { _ = r.http.Close() })
	return r
}

func file(t *testing.T) store.Store {
	t.Helper()
	s, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// transport speaks HTTP/2 where that is asked for, else HTTP/1.1, on connections of its own.
func (r *remote) transport(h2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	protocols.SetUnencryptedHTTP2(h2)
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: r.roots}}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (r *remote) client(h2 bool, options ...connect.ClientOption) deployerv1connect.DeployerServiceClient {
	return deployerv1connect.NewDeployerServiceClient(r.transport(h2), r.url, options...)
}

// dial is a connection of grpc-go.
func (r *remote) dial() *grpc.ClientConn {
	r.t.Helper()
	creds := insecure.NewCredentials()
	if r.roots != nil {
		creds = credentials.NewClientTLSFromCert(r.roots, "")
	}
	_, address, _ := strings.Cut(r.url, "://")
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func method(name string) string { return "/" + deployerv1connect.DeployerServiceName + "/" + name }

// wantProblem is the Problem in err, which has the code of gRPC.
func wantProblem(t *testing.T, what string, err error, want connect.Code, code string) *deployerv1.Problem {
	t.Helper()
	var failed *connect.Error
	if !errors.As(err, &failed) || failed.Code() != want {
		t.Errorf("%s: %v, want %s", what, err, want)
		return nil
	}
	for _, detail := range failed.Details() {
		value, err := detail.Value()
		if p, ok := value.(*deployerv1.Problem); err == nil && ok {
			if p.Code != code || p.Title == "" || p.Detail == "" || failed.Message() != p.Title+": "+p.Detail {
				t.Errorf("%s: %v %v, want %s", what, failed, p, code)
			}
			return p
		}
	}
	t.Errorf("%s: %v has no Problem", what, err)
	return nil
}

// TestProtocols asks everything in each protocol, as messages and as JSON, over
// cleartext and TLS, HTTP/1.1 and HTTP/2.
func TestProtocols(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		s := file(t)
		r := begin(t, s, server.Config{Version: "v1"}, 3, secure)
		for name, c := range map[string]struct {
			h2      bool
			options []connect.ClientOption
		}{
			"connect over HTTP/1.1":        {false, nil},
			"connect over HTTP/2":          {true, nil},
			"connect with JSON":            {false, []connect.ClientOption{connect.WithProtoJSON()}},
			"connect with GET":             {false, []connect.ClientOption{connect.WithHTTPGet()}},
			"connect with gzip":            {true, []connect.ClientOption{connect.WithSendGzip()}},
			"gRPC":                         {true, []connect.ClientOption{connect.WithGRPC()}},
			"gRPC with JSON":               {true, []connect.ClientOption{connect.WithGRPC(), connect.WithProtoJSON()}},
			"gRPC-Web over HTTP/1.1":       {false, []connect.ClientOption{connect.WithGRPCWeb()}},
			"gRPC-Web over HTTP/2, JSON":   {true, []connect.ClientOption{connect.WithGRPCWeb(), connect.WithProtoJSON()}},
			"gRPC-Web over HTTP/2, gzip":   {true, []connect.ClientOption{connect.WithGRPCWeb(), connect.WithSendGzip()}},
			"connect over HTTP/2 and JSON": {true, []connect.ClientOption{connect.WithProtoJSON()}},
		} {
			t.Run(fmt.Sprintf("%s, TLS %v", name, secure), func(t *testing.T) {
				askAll(t, r.client(c.h2, c.options...))
			})
		}
		t.Run(fmt.Sprintf("grpc-go, TLS %v", secure), func(t *testing.T) { askGRPC(t, r.dial()) })
	}
}

func askAll(t *testing.T, client deployerv1connect.DeployerServiceClient) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	told, err := client.PhoneHome(ctx, &deployerv1.PhoneHomeRequest{NodeId: "node02", Phase: "ready", Role: "worker", ConfigHash: hash1, Vips: []string{"203.0.113.10"}})
	if err != nil || told.State != "Active" || told.HeartbeatIntervalSeconds != 10 || told.ExpectedConfigHash != hash1 {
		t.Fatalf("%v, %v", told, err)
	}
	n, err := client.GetNode(ctx, &deployerv1.GetNodeRequest{NodeId: "node02"})
	if err != nil || n.State != "Active" || n.Reachability != "online" || n.Config != "in_sync" || len(n.History) == 0 || n.Vips[0] != "203.0.113.10/32" || n.LastSeen.AsTime().IsZero() {
		t.Errorf("%v, %v", n, err)
	}
	page, err := client.ListNodes(ctx, &deployerv1.ListNodesRequest{Limit: 2})
	if err != nil || len(page.Nodes) != 2 || page.Next != "node02" || page.Nodes[1].History != nil {
		t.Errorf("%v, %v", page, err)
	}
	events, err := client.ListEvents(ctx, &deployerv1.ListEventsRequest{})
	if err != nil || len(events.Events) < 2 || events.Next == "" || events.More {
		t.Errorf("%v, %v", events, err)
	}
	health, err := client.GetHealth(ctx, &deployerv1.GetHealthRequest{})
	if err != nil || health.Status != "ok" || health.Version != "v1" {
		t.Errorf("%v, %v", health, err)
	}
	if fleet, err := client.GetStatus(ctx, &deployerv1.GetStatusRequest{}); err != nil || fleet.Nodes != 3 || fleet.States["Active"] != 1 {
		t.Errorf("%v, %v", fleet, err)
	}
	if vips, err := client.ListVips(ctx, &deployerv1.ListVipsRequest{Limit: 1}); err != nil || len(vips.Vips) != 1 || vips.Vips[0].Nodes[0].NodeId != "node02" {
		t.Errorf("%v, %v", vips, err)
	}
	_, err = client.GetNode(ctx, &deployerv1.GetNodeRequest{NodeId: "node99"})
	wantProblem(t, "no such node", err, connect.CodeNotFound, api.CodeNotFound)
	_, err = client.PhoneHome(ctx, &deployerv1.PhoneHomeRequest{NodeId: "node99", Phase: "ready"})
	wantProblem(t, "unknown node", err, connect.CodePermissionDenied, node.CodeUnknownNode)
	_, err = client.PhoneHome(ctx, &deployerv1.PhoneHomeRequest{NodeId: "node02", Phase: "ready", Vips: []string{"x"}})
	if p := wantProblem(t, "bad report", err, connect.CodeInvalidArgument, api.CodeBadRequest); p.GetField() != "vips[0]" || p.GetStatus() != 400 {
		t.Errorf("%v", p)
	}
	_, err = client.ResetNode(ctx, &deployerv1.OperateNodeRequest{NodeId: "node02"})
	wantProblem(t, "an order", err, connect.CodePermissionDenied, api.CodeOperatorsUnknown)

	watched, err := client.WatchEvents(ctx, &deployerv1.WatchEventsRequest{After: events.Events[0].Cursor})
	if err != nil || !watched.Receive() || watched.Msg().Events[0].Cursor != events.Events[1].Cursor || watched.Msg().Cursor == "" {
		t.Fatalf("%v, %v", watched, err)
	}
	_ = watched.Close()
	nodes, err := client.WatchNodes(ctx, &deployerv1.WatchNodesRequest{})
	if err != nil || !nodes.Receive() || len(nodes.Msg().Nodes) != 3 || nodes.Msg().Cursor == "" {
		t.Fatalf("%v, %v", nodes, err)
	}
	_ = nodes.Close()
	bad, err := client.WatchNodes(ctx, &deployerv1.WatchNodesRequest{After: "x"})
	if err != nil || bad.Receive() {
		t.Fatalf("%v", err)
	}
	wantProblem(t, "bad cursor", bad.Err(), connect.CodeInvalidArgument, api.CodeBadRequest)
	_ = bad.Close()
}

// askGRPC does the same with the client that most users of gRPC have.
func askGRPC(t *testing.T, conn *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n := new(deployerv1.Node)
	var header metadata.MD
	if err := conn.Invoke(ctx, method("GetNode"), &deployerv1.GetNodeRequest{NodeId: "node01"}, n, grpc.Header(&header)); err != nil || n.NodeId != "node01" {
		t.Errorf("%v, %v", n, err)
	}
	if got := header.Get("cache-control"); len(got) != 1 || got[0] != "no-store" {
		t.Errorf("%v", header)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method("WatchEvents"))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&deployerv1.WatchEventsRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	message := new(deployerv1.WatchEventsResponse)
	if err := stream.RecvMsg(message); err != nil || len(message.Events) == 0 {
		t.Errorf("%v, %v", message, err)
	}
	for name, want := range map[string]struct {
		code    codes.Code
		problem string
	}{"GetNode": {codes.NotFound, api.CodeNotFound}, "Nothing": {codes.Unimplemented, api.CodeUnknownMethod}} {
		err := conn.Invoke(ctx, method(name), &deployerv1.GetNodeRequest{NodeId: "node99"}, n)
		details := status.Convert(err).Details()
		if status.Code(err) != want.code || len(details) != 1 || details[0].(*deployerv1.Problem).Code != want.problem {
			t.Errorf("%s: %v %v", name, err, details)
		}
	}
}

// TestPlainJSON: Connect by hand, as with curl. Its JSON is that of REST.
func TestPlainJSON(t *testing.T) {
	t.Parallel()
	r := begin(t, file(t), server.Config{}, 1, false)
	ask := func(verb, path, media, body string) (int, string, http.Header) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), verb, r.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", media)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text), response.Header
	}
	const plain = "application/json"
	if status, text, _ := ask("POST", method("PhoneHome"), plain, `{"node_id":"node01","phase":"ready","config_hash":"`+hash1+`"}`); status != 200 || !strings.Contains(text, `"heartbeat_interval_seconds":10`) {
		t.Errorf("%d %s", status, text)
	}
	_, byConnect, _ := ask("POST", method("GetNode"), plain+"; charset=utf-8", `{"node_id":"node01"}`)
	_, byREST, _ := ask("GET", api.PathNodes+"/node01", "", "")
	var one, other api.Node
	if err := errors.Join(json.Unmarshal([]byte(byConnect), &one), json.Unmarshal([]byte(byREST), &other)); err != nil || fmt.Sprintf("%+v", one.History) != fmt.Sprintf("%+v", other.History) {
		t.Errorf("%v: Connect has\n%s\nREST\n%s", err, byConnect, byREST)
	}
	for what, c := range map[string]struct {
		verb, method, media, body string
		status                    int
		says                      string
	}{
		"unknown key":     {"POST", "PhoneHome", plain, `{"node_id":"node01","phaze":"ready"}`, 400, `"code":"bad_request"`},
		"of no report":    {"POST", "GetNode", plain, `{"nodes":"node01"}`, 400, `The request breaks a rule`},
		"key twice":       {"POST", "PhoneHome", plain, `{"node_id":"node01","node_id":"node02"}`, 400, "duplicate"},
		"no JSON":         {"POST", "GetNode", plain, `node01`, 400, `"code":"bad_request"`},
		"nothing":         {"POST", "GetNode", plain, ``, 400, "want a JSON object"},
		"no message":      {"POST", "GetNode", "application/proto", "\xff\xff", 400, "invalid_argument"},
		"unknown method":  {"POST", "GetNodes", plain, `{}`, 501, `"code":"unknown_method"`},
		"another type":    {"POST", "GetNode", "text/plain", `{}`, 415, `"code":"unsupported_media_type"`},
		"another codec":   {"POST", "GetNode", "application/xml", `{}`, 415, ""},
		"another verb":    {"PUT", "GetNode", plain, `{}`, 405, `"code":"method_not_allowed"`},
		"GET of a change": {"GET", "PhoneHome", "", "", 405, ""},
		"too large":       {"POST", "GetNode", plain, `{"node_id":"` + strings.Repeat("x", 5000) + `"}`, 429, `"code":"body_too_large"`},
		"large report":    {"POST", "PhoneHome", plain, `{"node_id":"` + strings.Repeat("x", 70000) + `"}`, 429, `"code":"body_too_large"`},
		"negative limit":  {"POST", "ListNodes", plain, `{"limit":-1}`, 400, `"field":"limit"`},
		"large limit":     {"POST", "ListEvents", plain, `{"limit":1001}`, 400, `"field":"limit"`},
		"bad page":        {"POST", "ListNodes", plain, `{"after":"../x"}`, 400, `"field":"after"`},
		"bad cursor":      {"POST", "ListEvents", plain, `{"after":"x"}`, 400, `"field":"after"`},
	} {
		status, text, header := ask(c.verb, method(c.method), c.media, c.body)
		if status != c.status || !strings.Contains(text, c.says) || header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s %v", what, status, text, header)
		}
	}
}

// TestPages: all nodes come once, in order, also with REST, and new ones are in a first page.
func TestPages(t *testing.T) {
	t.Parallel()
	r := begin(t, file(t), server.Config{}, 23, false)
	client := r.client(false)
	var ids, rest []string
	for after, first := "", true; first || after != ""; first = false {
		page, err := client.ListNodes(t.Context(), &deployerv1.ListNodesRequest{After: after, Limit: 5})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range page.Nodes {
			ids = append(ids, n.NodeId)
		}
		response, err := http.Get(r.url + api.PathNodes + "?limit=5&after=" + after)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var list api.NodeList
		if err := json.NewDecoder(response.Body).Decode(&list); err != nil || list.Next != page.Next {
			t.Fatalf("%v, %v", list, err)
		}
		for _, n := range list.Nodes {
			rest = append(rest, n.ID)
		}
		after = page.Next
	}
	if len(ids) != 23 || ids[0] != "node01" || ids[22] != "node23" || strings.Join(rest, " ") != strings.Join(ids, " ") {
		t.Errorf("%v\n%v", ids, rest)
	}
	if _, err := r.registry.PhoneHome(t.Context(), "node01", node.Report{Phase: node.PhaseReady}); err != nil {
		t.Fatal(err)
	}
	page, err := client.ListNodes(t.Context(), &deployerv1.ListNodesRequest{})
	if err != nil || len(page.Nodes) != 23 || page.Next != "" || page.Nodes[0].State != "Active" {
		t.Errorf("%v, %v", page, err)
	}
	for _, query := range []string{"?limit=0", "?limit=x", "?after=../x", "?state=Active"} {
		response, err := http.Get(r.url + api.PathNodes + query)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", query, response.StatusCode)
		}
	}
}

func hasRetry(err *connect.Error) bool {
	for _, detail := range err.Details() {
		value, _ := detail.Value()
		if retry, ok := value.(*errdetails.RetryInfo); ok && retry.RetryDelay.AsDuration() == 10*time.Second {
			return true
		}
	}
	return false
}
