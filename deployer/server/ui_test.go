package server_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/server/page"
	"github.com/centra/plasmacloud/deployer/store/bolt"
	"github.com/centra/plasmacloud/deployer/tokens"
)

const viewerToken = "f1e2d3c4b5a697887969fae0d1c2b3a4"

// uiWorld is a deployer with its page.
type uiWorld struct {
	t         *testing.T
	handler   http.Handler
	registry  *deployer.Registry
	operators string // what is in the file; "" is no file
	nodes     int
	noPage    bool
	approval  node.Approval
	file      *tokens.File
	path      string
}

func newUIWorld(t *testing.T, change func(*uiWorld)) *uiWorld {
	t.Helper()
	w := &uiWorld{t: t, nodes: 3, path: filepath.Join(t.TempDir(), "operators")}
	if change != nil {
		change(w)
	}
	store, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	if w.registry, err = deployer.New(t.Context(), deployer.Config{Store: store, Logger: quiet, AllowUnknownNodes: true, Approval: w.approval}); err != nil {
		t.Fatal(err)
	}
	var nodes []node.Declaration
	for i := range w.nodes {
		nodes = append(nodes, node.Declaration{
			ID: fmt.Sprintf("node%02d", i+1), Role: []string{"worker", "control-plane"}[i%2], ConfigHash: hash1,
			Labels: map[string]string{"rack": fmt.Sprint(i % 4)},
		})
	}
	if _, err := w.registry.Declare(t.Context(), nodes); err != nil {
		t.Fatal(err)
	}
	if err := w.registry.DeclareVIPs([]deployer.VIPDeclaration{{VIP: "203.0.113.10/32", Nodes: []string{"node01"}}, {VIP: "203.0.113.11/32", Nodes: []string{"node02"}}}); err != nil {
		t.Fatal(err)
	}
	cfg := server.Config{Registry: w.registry, Logger: quiet, Version: "v1", NoPage: w.noPage}
	if w.operators != "" {
		w.write(w.operators)
		if w.file, err = tokens.Open(tokens.Operators, w.path); err != nil {
			t.Fatal(err)
		}
		cfg.Operators = w.file
	}
	w.handler = server.New(cfg)
	return w
}

func (w *uiWorld) write(lines string) {
	w.t.Helper()
	if err := os.WriteFile(w.path, []byte(lines+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *uiWorld) setOperators(lines string) {
	w.t.Helper()
	w.write(lines)
	if err := w.file.Reload(); err != nil {
		w.t.Fatal(err)
	}
}

// phoneHome lets a node say that it is ready, or what more says.
func (w *uiWorld) phoneHome(id string, more map[string]any) {
	w.t.Helper()
	report := map[string]any{"node_id": id, "phase": "ready", "machine_id": "machine-" + id}
	maps.Copy(report, more)
	body, err := json.Marshal(report)
	if err != nil {
		w.t.Fatal(err)
	}
	if a := do(w.t, w.handler, "POST", api.PathPhoneHome, "application/json", string(body)); a.Code != 200 {
		w.t.Fatalf("%s: %d %s", id, a.Code, a.Body)
	}
}

// get asks for a page, with headers as KEY, VALUE.
func (w *uiWorld) get(path string, headers ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	return w.ask(httptest.NewRequestWithContext(w.t.Context(), "GET", path, nil), headers...)
}

// post sends a form.
func (w *uiWorld) post(path string, form url.Values, headers ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), "POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return w.ask(r, headers...)
}

func (w *uiWorld) ask(r *http.Request, headers ...string) *httptest.ResponseRecorder {
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	if r.Header.Get("Test-TLS") != "" {
		r.TLS = &tls.ConnectionState{}
	}
	a := httptest.NewRecorder()
	w.handler.ServeHTTP(a, r)
	return a
}

func TestPageIsWhereTheAPIIsNot(t *testing.T) {
	t.Parallel()
	w := newUIWorld(t, nil)
	for path, want := range map[string]int{
		"/": 200, "/ui/nodes": 200, "/ui/vips": 200, "/ui/events": 200, "/ui/nodes/node01": 200, "/ui/vips/203.0.113.10": 200,
		"/ui/nodes/none": 404, "/ui/nodes/a/b": 404, "/ui/vips/none": 404, "/ui/": 404, "/ui/nothing": 404, "/ui/assets/none": 404, "/ui/assets/../page.go": 404,
		"/ui/login": 303, page.Assets["page.css"].Path: 200, page.Assets["page.js"].Path: 200, page.Assets["icon.svg"].Path: 200,
	} {
		a := w.get(path)
		policy := a.Header().Get("Content-Security-Policy")
		asset := want == 200 && strings.HasPrefix(path, page.PathAssets)
		if a.Code != want || a.Header().Get("X-Content-Type-Options") != "nosniff" || asset == (policy != "") ||
			asset != strings.Contains(a.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", path, a.Code, a.Header())
		}
		if a := w.post(path, nil); a.Code == 200 {
			t.Errorf("%s takes a POST", path)
		}
	}
	off := newUIWorld(t, func(w *uiWorld) { w.noPage = true })
	for _, path := range []string{"/", "/ui/nodes", "/ui/login"} {
		if a := off.get(path); a.Code != 404 || a.Header().Get("Content-Type") != api.ProblemContentType {
			t.Errorf("%s without a page: %d %s", path, a.Code, a.Body)
		}
	}
}

func TestWhoSeesThePage(t *testing.T) {
	t.Parallel()
	w := newUIWorld(t, func(w *uiWorld) {
		w.operators = "alice " + viewerToken + " role=viewer\nold " + strings.Repeat("o", 32) + " role=admin expires=2020-01-01T00:00:00Z"
	})
	for _, path := range []string{"/", "/ui/nodes?q=a&state=Active", "/ui/nodes/node01", "/ui/vips", "/ui/events"} {
		a := w.get(path)
		want := page.PathLogin + "?" + url.Values{"next": {path}}.Encode()
		if a.Code != 303 || a.Header().Get("Location") != want || a.Body.Len() > 0 {
			t.Errorf("%s: %d to %s, want %s", path, a.Code, a.Header().Get("Location"), want)
		}
		if a := w.get(path, "Cookie", "plasmacloud=made-up"); a.Code != 303 {
			t.Errorf("%s with a cookie of nobody: %d", path, a.Code)
		}
		if a := w.get(path, "Authorization", "Bearer "+viewerToken); a.Code != 200 {
			t.Errorf("%s with a token: %d", path, a.Code)
		}
	}
	if a := w.get(page.PathStream); a.Code != 401 {
		t.Errorf("the stream: %d", a.Code)
	}
	sign := func(token, next string, headers ...string) *httptest.ResponseRecorder {
		t.Helper()
		return w.post(page.PathLogin, url.Values{"token": {token}, "next": {next}}, headers...)
	}
	for name, a := range map[string]*httptest.ResponseRecorder{
		"wrong":               sign(strings.Repeat("x", 32), "/"),
		"over":                sign(strings.Repeat("o", 32), "/"),
		"none":                sign("", "/"),
		"not a form":          w.ask(httptest.NewRequestWithContext(t.Context(), "POST", page.PathLogin, strings.NewReader("token="+viewerToken))),
		"too long":            sign(viewerToken, strings.Repeat("/", 5000)),
		"from elsewhere":      sign(viewerToken, "/", "Sec-Fetch-Site", "cross-site"),
		"from another origin": sign(viewerToken, "/", "Origin", "https://elsewhere.example"),
	} {
		if a.Code < 400 || a.Header().Get("Set-Cookie") != "" || strings.Contains(a.Body.String(), viewerToken) {
			t.Errorf("%s: %d %v", name, a.Code, a.Header())
		}
	}
	for next, want := range map[string]string{
		"/ui/nodes?q=a%26b": "/ui/nodes?q=a%26b", "": "/", "//elsewhere.example/": "/", "https://elsewhere.example/ui/nodes": "/",
		"/api/v1/nodes": "/", "/ui/login?next=/": "/", "/\\elsewhere.example": "/", "javascript:alert(1)": "/", "/ui/vips\r\nX: y": "/", "ui/nodes": "/",
	} {
		if a := sign(viewerToken, next); a.Code != 303 || a.Header().Get("Location") != want {
			t.Errorf("next %q: %d to %q, want %q", next, a.Code, a.Header().Get("Location"), want)
		}
	}
	in := sign(viewerToken, "/")
	cookie := in.Header().Get("Set-Cookie")
	value, attributes, _ := strings.Cut(cookie, ";")
	if !strings.HasPrefix(value, "plasmacloud=") || len(value) < 60 || attributes != " Path=/; Max-Age=43200; HttpOnly; SameSite=Strict" {
		t.Errorf("cookie %s", cookie)
	}
	if secure := sign(viewerToken, "/", "Test-TLS", "yes").Header().Get("Set-Cookie"); !strings.HasPrefix(secure, "__Host-plasmacloud=") ||
		!strings.HasSuffix(secure, "; HttpOnly; Secure; SameSite=Strict") {
		t.Errorf("with TLS: %s", secure)
	}
	if a := w.get("/", "Cookie", value); a.Code != 200 || !strings.Contains(a.Body.String(), "alice") {
		t.Errorf("signed in: %d", a.Code)
	}
	// The cookie is the page's alone: no order of the API is given by it.
	if a := w.get(api.PathNodes, "Cookie", value); a.Code != 401 {
		t.Errorf("the API takes the cookie: %d", a.Code)
	}
	if a := w.post(page.PathLogout, nil, "Cookie", value, "Sec-Fetch-Site", "cross-site"); a.Code != 403 || w.get("/", "Cookie", value).Code != 200 {
		t.Errorf("signed out by another site: %d", a.Code)
	}
	if a := w.post(page.PathLogout, nil, "Cookie", value); a.Code != 303 || !strings.Contains(a.Header().Get("Set-Cookie"), "Max-Age=0") || w.get("/", "Cookie", value).Code != 303 {
		t.Errorf("not signed out: %d %v", a.Code, a.Header())
	}
	for range 40 {
		sign(strings.Repeat("x", 32), "/")
	}
	if a := sign(viewerToken, "/"); a.Code != 429 || a.Header().Get("Retry-After") == "" {
		t.Errorf("after many guesses: %d", a.Code)
	}
}

// However large the fleet, a page has a hundred lines.
func TestPageOfManyNodes(t *testing.T) {
	t.Parallel()
	w := newUIWorld(t, func(w *uiWorld) { w.nodes = 2000 })
	w.phoneHome("node07", map[string]any{"phase": "failed", "error": "no disk", "hostname": "seven.example"})
	for query, want := range map[string]string{
		"":                                "1 to 100 of 2000",
		"?page=20":                        "1901 to 2000 of 2000",
		"?page=21":                        "1 to 100 of 2000",
		"?page=99":                        "1 to 100 of 2000",
		"?page=9223372036854775807":       "1 to 100 of 2000",
		"?page=-1":                        "1 to 100 of 2000",
		"?role=control-plane":             "1 to 100 of 1000",
		"?label=rack%3D3":                 "1 to 100 of 500",
		"?label=rack":                     "1 to 100 of 2000",
		"?label=row":                      "0 nodes",
		"?state=Failed":                   "1 node match",
		"?state=Pending&role=worker":      "1 to 100 of 999",
		"?q=SEVEN.example":                `id="node-node07"`,
		"?config=unknown&page=2":          `href="/ui/nodes?config=unknown&amp;page=3"`,
		"?only=undeclared":                "0 nodes",
		"?q=%3Cb%3E":                      `value="&lt;b&gt;"`,
		"?q=" + strings.Repeat("a", 5000): strings.Repeat("a", 128) + `" maxlength`,
	} {
		begin := time.Now()
		a := w.get(page.PathNodes + query)
		if a.Code != 200 || !strings.Contains(a.Body.String(), want) || a.Body.Len() > 100_000 {
			t.Errorf("%.40s: %d, %d bytes, without %s", query, a.Code, a.Body.Len(), want)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s took %s", query, took)
		}
	}
	if a := w.get("/"); !strings.Contains(a.Body.String(), "Nodes failed: 1") || !strings.Contains(a.Body.String(), "2000 nodes") || a.Body.Len() > 50_000 {
		t.Errorf("%d bytes\n%s", a.Body.Len(), a.Body)
	}
}
