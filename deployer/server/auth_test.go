package server

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store/bolt"
	"github.com/centra/plasmacloud/deployer/tokens"
)

// guarded is the API with tokens, over a real file, with node01 and node02 declared.
type guarded struct {
	t    *testing.T
	cfg  Config
	http http.Handler
	now  time.Time
	log  *lockedBuffer
}

func (g *guarded) file(kind tokens.Kind, lines string) *tokens.File {
	path := filepath.Join(g.t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		g.t.Fatal(err)
	}
	f, err := tokens.Open(kind, path)
	if err != nil {
		g.t.Fatal(err)
	}
	return f
}

// token is one that is long enough.
func token(name string) string { return name + strings.Repeat("-", 30) }

func newGuarded(t *testing.T, change ...func(*deployer.Config)) *guarded {
	g := &guarded{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), log: &lockedBuffer{}}
	s, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	log := slog.New(slog.NewTextHandler(g.log, nil))
	clock := func() time.Time { return g.now }
	cfg := deployer.Config{Store: s, Logger: log, Now: clock}
	for _, c := range change {
		c(&cfg)
	}
	registry, err := deployer.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Declare(t.Context(), []node.Declaration{{ID: "node01", Role: "worker"}, {ID: "node02", Role: "worker"}}); err != nil {
		t.Fatal(err)
	}
	g.cfg = Config{
		Registry: registry, Logger: log, Now: clock,
		JoinTokens: g.file(tokens.Join, "all "+token("all")+"\nold "+token("old")+" expires=2026-03-01T00:00:00Z\n2 "+token("two")+" node=node02"),
		Operators:  g.file(tokens.Operators, "v "+token("v")+" role=viewer\np "+token("p")+" role=operator\na "+token("a")+" role=admin\no "+token("o")+" role=admin expires=2026-03-01T00:00:00Z"),
	}
	g.http = AsDocumented(t, New(g.cfg))
	return g
}

// ask is the status and the code, "" where it is accepted.
func (g *guarded) ask(method, path, body, bearer, secret, from string) (*httptest.ResponseRecorder, string) {
	g.t.Helper()
	r := httptest.NewRequestWithContext(g.t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.RemoteAddr = from
	if bearer != "" {
		r.Header.Set("Authorization", bearer)
	}
	if secret != "" {
		r.Header.Set(node.SecretHeader, secret)
	}
	w := httptest.NewRecorder()
	g.http.ServeHTTP(w, r)
	var p api.Problem
	if w.Code == http.StatusOK {
		return w, ""
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		g.t.Fatalf("%s: %v", w.Body, err)
	}
	if p.Status != w.Code || p.Title == "" || p.Detail == "" {
		g.t.Errorf("%+v with status %d says not all", p, w.Code)
	}
	return w, p.Code
}

const here = "192.0.2.7:4711"

func (g *guarded) report(id string, bearer, secret string) string {
	g.t.Helper()
	_, code := g.ask(http.MethodPost, api.PathPhoneHome, `{"node_id":"`+id+`","phase":"ready","role":"worker"}`, bearer, secret, here)
	return code
}

// TestJoinTokens: the way of a node from stranger to member, and of those who are not.
func TestJoinTokens(t *testing.T) {
	g := newGuarded(t)
	secret, other := token("secret"), token("other")
	for _, step := range []struct {
		id, bearer, secret, want string
	}{
		{"node01", "", "", node.CodeJoinTokenRequired},
		{"node99", "", "", node.CodeJoinTokenRequired}, // not: unknown
		{"node99", "Bearer " + token("all"), secret, node.CodeUnknownNode},
		{"node01", "", secret, node.CodeJoinTokenRequired},
		{"node01", "Bearer nonsense", secret, node.CodeJoinTokenWrong},
		{"node01", "Basic " + token("all"), secret, node.CodeJoinTokenWrong},
		{"node01", "Bearer " + token("v"), secret, node.CodeJoinTokenWrong}, // an operator's
		{"node01", "Bearer " + token("old"), secret, node.CodeJoinTokenExpired},
		{"node01", "Bearer " + token("two"), secret, node.CodeJoinTokenScope},
		{"node01", "Bearer " + token("all"), "", node.CodeNodeSecretRequired},
		{"node01", "Bearer " + token("all"), "short", api.CodeBadRequest},
		{"node01", "bearer  " + token("all"), secret, ""},
		{"node01", "Bearer " + token("all"), secret, ""}, // the answer was lost
		{"node01", "Bearer nonsense", secret, ""},        // the secret is enough
		{"node01", "", secret, ""},
		{"node01", "", "", node.CodeNodeSecretRequired},
		{"node01", "", other, node.CodeNodeSecretWrong},
		{"node01", "Bearer " + token("all"), other, node.CodeNodeSecretWrong}, // it is active
		{"node02", "Bearer " + token("two"), secret, ""},
		{"node02", "Bearer " + token("two"), other, ""}, // its own token
	} {
		if code := g.report(step.id, step.bearer, step.secret); code != step.want {
			t.Errorf("%+v: %q", step, code)
		}
	}
	w, _ := g.ask(http.MethodPost, api.PathPhoneHome, `{"node_id":"node01","phase":"ready"}`, "", "", here)
	if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
	w, _ = g.ask(http.MethodGet, api.PathNodes+"/node01", "", "Bearer "+token("v"), "", here)
	for _, hidden := range []string{secret, node.HashSecret(secret), token("all")} {
		if strings.Contains(w.Body.String(), hidden) || strings.Contains(g.log.String(), hidden) {
			t.Errorf("%q is shown:\n%s\n%s", hidden, w.Body, g.log)
		}
	}
	if !strings.Contains(w.Body.String(), "joins with the token all") {
		t.Errorf("the history does not say with which token: %s", w.Body)
	}
}

func TestOperators(t *testing.T) {
	g := newGuarded(t)
	for _, path := range []string{api.PathNodes, api.PathNodes + "/node01", api.PathEvents, api.PathVIPs, api.PathMetrics} {
		for bearer, want := range map[string]string{
			"": api.CodeOperatorTokenRequired, "Bearer " + token("all"): api.CodeOperatorTokenWrong,
			"Bearer " + token("o"): api.CodeOperatorTokenExpired, "Bearer " + token("v"): "", "Bearer " + token("a"): "",
		} {
			if w, code := g.ask(http.MethodGet, path, "", bearer, "", here); code != want {
				t.Errorf("%s with %q: %d %q, want %q", path, bearer, w.Code, code, want)
			}
		}
	}
	if w, _ := g.ask(http.MethodGet, api.PathHealth, "", "", "", here); w.Code != http.StatusOK {
		t.Errorf("health: %d", w.Code)
	}
	s := &server{cfg: Config{Operators: g.file(tokens.Operators, "v "+token("v")+" role=viewer"), Now: time.Now}, operators: newGuesses(), log: slog.New(slog.DiscardHandler)}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token("v"))
	a := s.operator(tokens.Admin, func(http.ResponseWriter, *http.Request) answer { return answer{status: http.StatusOK} })(nil, r)
	if p, _ := a.body.(api.Problem); p.Code != api.CodeOperatorRole || a.status != http.StatusForbidden {
		t.Errorf("a viewer as admin: %+v", a)
	}
}

// TestGuesses: an address that sends many wrong tokens or secrets is not looked at
// for a while, the others are.
func TestGuesses(t *testing.T) {
	g := newGuarded(t)
	report := func(bearer, secret, from string) string {
		_, code := g.ask(http.MethodPost, api.PathPhoneHome, `{"node_id":"node01","phase":"ready"}`, bearer, secret, from)
		return code
	}
	right := "Bearer " + token("all")
	if code := report(right, token("own"), here); code != "" {
		t.Fatal(code)
	}
	for i := range guessBurst {
		if code := report("Bearer wrong", "", here); code != node.CodeNodeSecretRequired { // guesses nothing
			t.Fatalf("no secret: %q", code)
		}
		if code := report("", token("other"), here); code != node.CodeNodeSecretWrong {
			t.Fatalf("guess %d of the secret: %q", i, code)
		}
		if _, code := g.ask(http.MethodGet, api.PathNodes, "", "Bearer wrong", "", here); code != api.CodeOperatorTokenWrong {
			t.Fatalf("guess %d of a token: %q", i, code)
		}
	}
	w, code := g.ask(http.MethodPost, api.PathPhoneHome, `{"node_id":"node02","phase":"ready"}`, right, token("new"), here)
	if code != api.CodeTooManyAttempts || w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s %v", w.Code, code, w.Header())
	}
	if code := report("", token("other"), here); code != api.CodeTooManyAttempts {
		t.Errorf("one guess more: %q", code)
	}
	if code := report("Bearer wrong", token("own"), here); code != "" {
		t.Errorf("a right secret from behind the same NAT: %q", code)
	}
	if _, code := g.ask(http.MethodGet, api.PathNodes, "", "Bearer "+token("v"), "", here); code != api.CodeTooManyAttempts {
		t.Errorf("as an operator: %q", code)
	}
	if code := report(right, token("own"), "192.0.2.8:4711"); code != "" {
		t.Errorf("another address: %q", code)
	}
	g.now = g.now.Add(10 * time.Second)
	if code := g.report("node02", right, token("new")); code != "" {
		t.Errorf("ten seconds later: %q", code)
	}
	for range guessBurst {
		g.report("node01", "", token("other"))
	}
	if _, code := g.ask(http.MethodGet, api.PathNodes, "", "Bearer "+token("v"), "", here); code != "" {
		t.Errorf("an operator beside broken nodes: %q", code)
	}
}

// TestGuessesAreBounded: any number of addresses takes a bounded amount of memory,
// a /64 is one address, and a clock that is set back locks nobody out.
func TestGuessesAreBounded(t *testing.T) {
	g, now := newGuesses(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	from := func(addr string) *http.Request { return &http.Request{RemoteAddr: addr} }
	for i := range 3 * maxAddresses {
		g.failed(from(fmt.Sprintf("10.%d.%d.1:1", i/256, i%256)), now)
	}
	if len(g.until) > maxAddresses {
		t.Errorf("%d addresses", len(g.until))
	}
	for i := range 10 * guessBurst {
		g.failed(from(fmt.Sprintf("[2001:db8::%x]:1", i)), now)
	}
	for addr, want := range map[string]bool{
		"[2001:db8::ffff]:9": true, "[2001:db8:0:1::1]:9": false, "192.0.2.1:9": false, "unix": false,
	} {
		if g.exhausted(from(addr), now) != want {
			t.Errorf("%s: exhausted is %v", addr, !want)
		}
	}
	if g.exhausted(from("[2001:db8::1]:1"), now.Add(-time.Hour)) {
		t.Error("exhausted for as long as the clock was set back")
	}
	for range guessBurst {
		g.failed(from("[2001:db8::1]:1"), now.Add(-time.Hour))
	}
	if !g.exhausted(from("[2001:db8::1]:1"), now.Add(-time.Hour)) || g.exhausted(from("[2001:db8::1]:1"), now.Add(-time.Hour+2*time.Second)) {
		t.Error("the bound moves with the clock that was set back")
	}
}
