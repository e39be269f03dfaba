package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

const hash1 = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

// start serves the API over a real file, with n nodes declared.
func start(t testing.TB, n int) (handler http.Handler, logged *bytes.Buffer) {
	s, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return over(t, s, n)
}

func over(t testing.TB, s store.Store, n int) (http.Handler, *bytes.Buffer) {
	logged := &bytes.Buffer{}
	log := slog.New(slog.NewTextHandler(&syncWriter{w: logged}, nil))
	registry, err := deployer.New(t.Context(), deployer.Config{Store: s, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	var nodes []node.Declaration
	for i := range n {
		nodes = append(nodes, node.Declaration{ID: fmt.Sprintf("node%02d", i+1), Role: "worker", ConfigHash: hash1})
	}
	if _, err := registry.Declare(t.Context(), nodes); err != nil {
		t.Fatal(err)
	}
	h := server.New(server.Config{Registry: registry, Logger: log, Version: "v1"})
	if _, bench := t.(*testing.B); !bench {
		h = server.AsDocumented(t, h)
	}
	return h, logged
}

type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

func do(t testing.TB, h http.Handler, method, path, contentType, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func problem(t testing.TB, w *httptest.ResponseRecorder) api.Problem {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != api.ProblemContentType {
		t.Fatalf("status %d, content type %q, body %s", w.Code, got, w.Body)
	}
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if p.Status != w.Code || p.Title == "" || p.Code == "" || p.Detail == "" {
		t.Errorf("problem %+v with status %d does not say everything", p, w.Code)
	}
	return p
}

// TestBadReports: each mistake is refused, with the field and the mend.
func TestBadReports(t *testing.T) {
	h, _ := start(t, 1)
	long := strings.Repeat("x", 300)
	facts := map[string]string{}
	for i := range 33 {
		facts[fmt.Sprint("fact", i)] = "x"
	}
	manyFacts, _ := json.Marshal(facts)
	manyVIPs, _ := json.Marshal(strings.Split(strings.Repeat("10.0.0.1,", 1024)+"10.0.0.1", ","))
	with := func(field, value string) string {
		return `{"node_id":"node01","phase":"ready",` + fmt.Sprintf("%q:%s}", field, value)
	}
	tests := map[string]struct {
		body, field, detail string
	}{
		"empty":              {``, "", "empty"},
		"not JSON":           {`phase=ready`, "", "want a JSON object"},
		"array":              {`[]`, "", "want a JSON object"},
		"cut":                {`{"node_id":"node01"`, "", "ends too early"},
		"broken":             {`{"node_id":"node01",}`, "", "not JSON at byte"},
		"trailing":           {`{"node_id":"node01","phase":"ready"} {}`, "", "something follows"},
		"not UTF-8":          {"{\"node_id\":\"node01\",\"phase\":\"ready\",\"hostname\":\"\xff\"}", "", "UTF-8"},
		"unknown field":      {with("nodeid", `"x"`), "nodeid", "known are acknowledges, boot_id, config_hash"},
		"wrong case":         {with("Hostname", `"x"`), "Hostname", `the name is "hostname"`},
		"twice":              {with("phase", `"ready"`), "phase", "given twice"},
		"fact twice":         {with("facts", `{"a":"1","a":"2"}`), "facts.a", "given twice"},
		"wrong type":         {with("vips", `"10.0.0.1"`), "vips", "want an array, found string"},
		"fact of wrong type": {with("facts", `{"cpus":4}`), "facts", "want a string, found number"},
		"no node":            {`{"phase":"ready"}`, "node_id", "required"},
		"bad node":           {`{"node_id":"Node_01","phase":"ready"}`, "node_id", "RFC 1123"},
		"path as node":       {`{"node_id":"../etc","phase":"ready"}`, "node_id", "RFC 1123"},
		"no phase":           {`{"node_id":"node01"}`, "phase", "booted, installing, installed, ready, failed"},
		"bad phase":          {`{"node_id":"node01","phase":"tick"}`, "phase", "booted, installing"},
		"error without fail": {with("error", `"x"`), "error", "only with the phase failed"},
		"bad role":           {with("role", `"a b"`), "role", "control-plane or worker"},
		"bad ip":             {with("ip", `"10.0.0.256"`), "ip", "address"},
		"ip with prefix":     {with("ip", `"10.0.0.1/24"`), "ip", "without prefix"},
		"ip with zone":       {with("ip", `"fe80::1%eth0"`), "ip", "zone"},
		"unspecified ip":     {with("ip", `"0.0.0.0"`), "ip", "address"},
		"bad hash":           {with("config_hash", `"sha256:zz"`), "config_hash", "64 lower-case hex"},
		"long hostname":      {with("hostname", `"`+long+`"`), "hostname", "253"},
		"hostile hostname":   {with("hostname", `"\u001b[2J"`), "hostname", "printable"},
		"hostile machine id": {with("machine_id", `"a\nb"`), "machine_id", "printable"},
		"long boot id":       {with("boot_id", `"`+long+`"`), "boot_id", "128"},
		"too many facts":     {with("facts", string(manyFacts)), "facts", "32"},
		"bad fact key":       {with("facts", `{"A B":"x"}`), "facts", "a-z"},
		"long fact":          {with("facts", `{"a":"`+strings.Repeat("x", 1025)+`"}`), "facts.a", "1024"},
		"bad macs":           {with("facts", `{"macs":"52:54:00:12:34:56, 52:54:00:12:34:57"}`), "facts.macs", "with commas"},
		"multicast mac":      {with("facts", `{"macs":"ff:ff:ff:ff:ff:ff"}`), "facts.macs", "network cards"},
		"too many vips":      {with("vips", string(manyVIPs)), "vips", "1024"},
		"bad vip":            {with("vips", `["10.0.0.1","x"]`), "vips[1]", "203.0.113.10/32"},
		"too many states":    {with("vip_states", string(manyVIPs)), "vip_states", "want"},
		"bad state's vip":    {with("vip_states", `[{"vip":"x","state":"announced"}]`), "vip_states[0].vip", "203.0.113.10/32"},
		"bad state":          {with("vip_states", `[{"vip":"10.0.0.1","state":"up"}]`), "vip_states[0].state", "announced, lowered, missing"},
		"a state twice":      {with("vip_states", `[{"vip":"10.0.0.1","state":"missing"},{"vip":"10.0.0.1/32","state":"drained"}]`), "vip_states[1].vip", "there twice"},
		"bad number":         {with("vips_left_out", `-1`), "vips_left_out", "want 0 to"},
		"too many services":  {with("services", "["+strings.Repeat(`{"name":"a.service","state":"active"},`, 64)+`{"name":"a.service","state":"active"}]`), "services", "64"},
		"bad service":        {with("services", `[{"name":"a b","state":"active"}]`), "services[0].name", "gobgpd.service"},
		"bad service state":  {with("services", `[{"name":"a.service","state":"<b>"}]`), "services[0].state", "ActiveState"},
		"a service twice":    {with("services", `[{"name":"a.service","state":"active"},{"name":"a.service","state":"failed"}]`), "services[1].name", "there twice"},
		"vip of many":        {with("vips", `["10.0.0.0/24"]`), "vips[0]", "one address"},
		"deep":               {with("facts", strings.Repeat("[", 20000)), "", "not JSON"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := do(t, h, "POST", api.PathPhoneHome, "application/json", test.body)
			p := problem(t, w)
			if p.Status != 400 || p.Code != api.CodeBadRequest || p.Field != test.field || !strings.Contains(p.Detail, test.detail) {
				t.Errorf("got %+v, want field %q and %q in the detail", p, test.field, test.detail)
			}
		})
	}
	if w := do(t, h, "GET", api.PathNodes+"/node01", "", ""); !strings.Contains(w.Body.String(), `"state":"Pending"`) {
		t.Errorf("a bad report did something: %s", w.Body)
	}
}

func TestRequestsThatAreNoReports(t *testing.T) {
	h, _ := start(t, 1)
	const good = `{"node_id":"node01","phase":"ready"}`
	tests := map[string]struct {
		method, path, contentType, body string
		status                          int
		code                            string
	}{
		"text":         {"POST", api.PathPhoneHome, "text/plain", good, 415, api.CodeUnsupportedMedia},
		"no type":      {"POST", api.PathPhoneHome, "", good, 415, api.CodeUnsupportedMedia},
		"latin-1":      {"POST", api.PathPhoneHome, "application/json; charset=latin1", good, 415, api.CodeUnsupportedMedia},
		"too large":    {"POST", api.PathPhoneHome, "application/json", `{"node_id":"` + strings.Repeat("x", 64<<10) + `"}`, 413, api.CodeBodyTooLarge},
		"get":          {"GET", api.PathPhoneHome, "", "", 405, api.CodeMethodNotAllowed},
		"delete":       {"DELETE", api.PathNodes + "/node01", "", "", 405, api.CodeMethodNotAllowed},
		"post health":  {"POST", api.PathHealth, "", "", 405, api.CodeMethodNotAllowed},
		"nowhere":      {"GET", "/api/v2/nodes", "", "", 404, api.CodeNotFound},
		"elsewhere":    {"GET", "/nothing", "", "", 404, api.CodeNotFound},
		"double slash": {"GET", "/" + api.PathNodes, "", "", 404, api.CodeNotFound},
		"inner slash":  {"GET", api.PathNodes + "//node01", "", "", 404, api.CodeNotFound},
		"dots":         {"GET", "/api/../api/v1/nodes", "", "", 404, api.CodeNotFound},
		"open end":     {"GET", api.PathNodes + "/", "", "", 404, api.CodeNotFound},
		"whole server": {"OPTIONS", "*", "", "", 404, api.CodeNotFound},
		"no node":      {"GET", api.PathNodes + "/node99", "", "", 404, api.CodeNotFound},
		"strange node": {"GET", api.PathNodes + "/%1b%5b2J%00", "", "", 404, api.CodeNotFound},
		"unknown":      {"POST", api.PathPhoneHome, "application/json", `{"node_id":"node99","phase":"ready"}`, 403, node.CodeUnknownNode},
		"wrong role":   {"POST", api.PathPhoneHome, "application/json; charset=utf-8", `{"node_id":"node01","phase":"ready","role":"control-plane"}`, 409, node.CodeRoleMismatch},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := do(t, h, test.method, test.path, test.contentType, test.body)
			p := problem(t, w)
			if p.Status != test.status || p.Code != test.code {
				t.Errorf("got %+v, want %d %s", p, test.status, test.code)
			}
			if test.status == 405 && w.Header().Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if strings.ContainsAny(p.Detail, "\x00\x1b") {
				t.Errorf("the detail drives a terminal: %q", p.Detail)
			}
		})
	}
}

// TestClient goes through the whole API with the client over a real connection.
func TestClient(t *testing.T) {
	h, _ := start(t, 2)
	srv := httptest.NewServer(h)
	defer srv.Close()
	client, err := api.NewClient(srv.URL+"/", 5*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	answer, err := client.PhoneHome(ctx, api.PhoneHomeRequest{
		NodeID: "node02", MachineID: "AAAAAAAA000040008000000000000001", BootID: "b", IP: "10.0.0.2", Role: "worker", Hostname: "h",
		ConfigHash: hash1, Phase: node.PhaseReady, Facts: map[string]string{"cpus": "2"}, VIPs: []string{"203.0.113.10", "2001:DB8::1/128"},
	})
	want := api.PhoneHomeResponse{
		NodeID: "node02", State: node.Active, Message: "Active", HeartbeatIntervalSeconds: 10, ExpectedConfigHash: hash1,
		Hold: "this machine is already provisioned as node02 and is not installed again by itself",
	}
	if err != nil || answer != want {
		t.Fatalf("phone home: %+v, %v", answer, err)
	}
	list, err := client.List(ctx)
	if err != nil || len(list) != 2 || list[0].ID != "node01" || list[1].ID != "node02" || list[1].History != nil {
		t.Fatalf("list: %+v, %v", list, err)
	}
	n, err := client.Get(ctx, "node02")
	if err != nil {
		t.Fatal(err)
	}
	if n.MachineID != "aaaaaaaa-0000-4000-8000-000000000001" || n.Reachability != node.Online || n.Config != node.InSync ||
		len(n.History) != 2 || !reflect.DeepEqual(n.VIPs, []string{"203.0.113.10/32", "2001:db8::1/128"}) || n.ReportedIP != "10.0.0.2" {
		t.Errorf("get: %+v", n)
	}
	n.History = nil
	n.LastSeen, list[1].LastSeen = nil, nil
	if !reflect.DeepEqual(n, list[1]) {
		t.Errorf("the list has\n%+v\nthe node alone\n%+v", list[1], n)
	}
	var refused *api.Error
	if _, err := client.Get(ctx, "no/../such"); !errors.As(err, &refused) || refused.Code != api.CodeNotFound {
		t.Errorf("get of none: %v", err)
	}
	if health, err := client.Health(ctx); err != nil || health != (api.Health{Status: "ok", Version: "v1"}) {
		t.Errorf("health: %+v, %v", health, err)
	}
	_, err = client.PhoneHome(ctx, api.PhoneHomeRequest{NodeID: "node99", Phase: node.PhaseReady})
	if !errors.As(err, &refused) || refused.Code != node.CodeUnknownNode || refused.Temporary() ||
		!strings.Contains(err.Error(), "plasmacloud.cluster.nodes") {
		t.Errorf("refusal: %v", err)
	}
}

// TestLongAndHostileError: the news of a failure is cut and cleaned, never refused.
func TestLongAndHostileError(t *testing.T) {
	h, logged := start(t, 1)
	text := "no disk\x1b[31m\r\n\ttried: " + strings.Repeat("ä", 3000)
	body, _ := json.Marshal(api.PhoneHomeRequest{NodeID: "node01", Phase: node.PhaseFailed, Error: text})
	if w := do(t, h, "POST", api.PathPhoneHome, "application/json", string(body)); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var n api.Node
	if err := json.Unmarshal(do(t, h, "GET", api.PathNodes+"/node01", "", "").Body.Bytes(), &n); err != nil {
		t.Fatal(err)
	}
	if n.State != node.Failed || n.LastError == nil {
		t.Fatalf("%+v", n)
	}
	m := n.LastError.Message
	if !strings.HasPrefix(m, "no disk\ufffd[31m\n tried: ä") || !strings.HasSuffix(m, "ä…") || len(m) > api.MaxErrorBytes {
		t.Errorf("%d bytes: %.60q … %q", len(m), m, m[len(m)-8:])
	}
	if strings.Contains(logged.String(), "\x1b") {
		t.Error("the log drives a terminal")
	}
}

// brokenStore fails or panics in every read and write.
type brokenStore struct {
	store.Store
	broken bool
	panics bool
}

func (s *brokenStore) Get(ctx context.Context, id string) (node.Node, error) {
	if s.panics {
		panic("lost my mind")
	}
	if s.broken {
		return node.Node{}, errors.New("secret path /var/x: input/output error")
	}
	return s.Store.Get(ctx, id)
}

func TestBrokenStore(t *testing.T) {
	file, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := &brokenStore{Store: file}
	h, logged := over(t, s, 1)
	const good = `{"node_id":"node01","phase":"ready"}`
	check := func(status int, code string) {
		t.Helper()
		w := do(t, h, "POST", api.PathPhoneHome, "application/json", good)
		if p := problem(t, w); p.Status != status || p.Code != code || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("got %+v", p)
		}
	}
	s.broken = true
	check(503, api.CodeUnavailable)
	if w := do(t, h, "GET", api.PathHealth, "", ""); w.Code != 503 || !strings.Contains(w.Body.String(), `"status":"failing"`) {
		t.Errorf("health: %d %s", w.Code, w.Body)
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	client, _ := api.NewClient(srv.URL, time.Second, nil)
	if health, err := client.Health(t.Context()); err != nil || health.Status != "failing" || health.Reason == "" {
		t.Errorf("health by the client: %+v, %v", health, err)
	}
	s.panics = true
	check(500, api.CodeInternal)
	if !strings.Contains(logged.String(), "lost my mind") || !strings.Contains(logged.String(), "input/output error") {
		t.Errorf("the log does not have the reasons:\n%s", logged)
	}
	s.panics, s.broken = false, false
	if w := do(t, h, "POST", api.PathPhoneHome, "application/json", good); w.Code != 200 {
		t.Errorf("mended: %d %s", w.Code, w.Body)
	}
}

// TestFailuresAreLoggedWithinABudget: the store is away, and every request of thousands
// of nodes fails.
func TestFailuresAreLoggedWithinABudget(t *testing.T) {
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	registry, err := deployer.New(t.Context(), deployer.Config{Store: &brokenStore{Store: emptyStore{}, broken: true}, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	h := server.New(server.Config{Registry: registry, Logger: log, Now: func() time.Time { return now }})
	for range 500 {
		do(t, h, "POST", api.PathPhoneHome, "application/json", `{"node_id":"node01","phase":"ready"}`)
		do(t, h, "GET", api.PathHealth, "", "")
	}
	now = now.Add(11 * time.Second)
	do(t, h, "GET", api.PathHealth, "", "")
	if n := strings.Count(logged.String(), "\n"); n != 52 || !strings.Contains(logged.String(), `msg="more requests failed than logged" count=950`) {
		t.Errorf("%d lines:\n%.2000s", n, logged.String())
	}
}

type emptyStore struct{ store.Store }

func (emptyStore) List(context.Context) ([]node.Node, error) { return nil, nil }

// slowStore holds every Get until it is let go.
type slowStore struct {
	store.Store
	gate chan struct{}
}

func (s *slowStore) Get(ctx context.Context, id string) (node.Node, error) {
	if s.gate != nil {
		<-s.gate
	}
	return s.Store.Get(ctx, id)
}

// TestTurnstile: who is over the limit waits, and is told to come again when it
// takes too long; health is answered all the same.
func TestTurnstile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		slow := &slowStore{Store: file}
		registry, err := deployer.New(t.Context(), deployer.Config{Store: slow, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		slow.gate = make(chan struct{})
		h := server.New(server.Config{Registry: registry, MaxConcurrent: 2, MaxWait: time.Second})
		var codes [4]int
		var wg sync.WaitGroup
		for i := range codes {
			wg.Go(func() { codes[i] = do(t, h, "GET", api.PathNodes+"/node01", "", "").Code })
		}
		time.Sleep(2 * time.Second) // of the bubble's own time
		close(slow.gate)
		wg.Wait()
		count := map[int]int{}
		for _, code := range codes {
			count[code]++
		}
		if count[404] != 2 || count[503] != 2 {
			t.Errorf("answers %v, want two served and two sent away", codes)
		}
	})
}

// TestStorm: many nodes at once over real connections, none of them lost.
func TestStorm(t *testing.T) {
	const nodes = 300
	h, _ := start(t, nodes)
	srv := httptest.NewServer(h)
	defer srv.Close()
	transport := &http.Transport{MaxIdleConnsPerHost: nodes}
	defer transport.CloseIdleConnections()
	client, err := api.NewClient(srv.URL, 30*time.Second, transport)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() {
			for _, phase := range []node.Phase{node.PhaseBooted, node.PhaseInstalled, node.PhaseReady, node.PhaseReady} {
				_, err := client.PhoneHome(t.Context(), api.PhoneHomeRequest{NodeID: fmt.Sprintf("node%02d", i+1), Phase: phase, ConfigHash: hash1})
				if err != nil {
					t.Errorf("node%02d: %v", i+1, err)
				}
			}
		})
	}
	wg.Wait()
	list, err := client.List(t.Context())
	if err != nil || len(list) != nodes {
		t.Fatalf("%d nodes, %v", len(list), err)
	}
	for _, n := range list {
		if n.State != node.Active || n.Config != node.InSync {
			t.Errorf("%s is %s, %s", n.ID, n.State, n.Config)
		}
	}
}
