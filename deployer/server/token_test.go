package server

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

func (g *guarded) createToken(operator, body string) (api.NewToken, string) {
	g.t.Helper()
	w, code := g.ask(http.MethodPost, api.PathTokens, body, bearerOf(operator), "", here)
	var made api.NewToken
	if code == "" {
		if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil {
			g.t.Fatal(err)
		}
	}
	return made, code
}

// get reads what path answers an admin with.
func (g *guarded) get(path string, into any) string {
	g.t.Helper()
	w, code := g.ask(http.MethodGet, path, "", bearerOf("a"), "", here)
	if code != "" {
		g.t.Fatalf("%s: %s", path, code)
	}
	text := w.Body.String()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		g.t.Fatal(err)
	}
	return text
}

// tokenStore has a token row2 that cannot be read, or any number of tokens.
type tokenStore struct {
	store.Store
	tokens int
}

func (s tokenStore) Token(context.Context, string) (node.Token, error) {
	return store.DecodeToken("row2", "join_tokens/row2", []byte("{"))
}

func (s tokenStore) Tokens(context.Context) ([]node.Token, error) {
	return make([]node.Token, s.tokens), nil
}

// TestUnreadableToken: who comes with it is told that the token is at fault, and not the
// node.
func TestUnreadableToken(t *testing.T) {
	g := newGuarded(t, func(c *deployer.Config) { c.Store = tokenStore{Store: c.Store} })
	w, code := g.ask(http.MethodPost, api.PathPhoneHome, `{"node_id":"node01","phase":"ready","role":"worker"}`,
		"Bearer row2."+strings.Repeat("0", 64), token("secret"), here)
	if text := w.Body.String(); code != api.CodeUnavailable || !strings.Contains(text, "plasmactl token revoke row2") || strings.Contains(text, "node reset") {
		t.Errorf("%s", text)
	}
}

// TestTokensAreBounded: a list of tokens, which has no pages, stays one that can be read.
func TestTokensAreBounded(t *testing.T) {
	g := newGuarded(t, func(c *deployer.Config) { c.Store = tokenStore{Store: c.Store, tokens: deployer.MaxTokens} })
	w, code := g.ask(http.MethodPost, api.PathTokens, `{"name":"one-more"}`, bearerOf("a"), "", here)
	if text := w.Body.String(); code != api.CodeTooManyTokens || !strings.Contains(text, "revoke") {
		t.Errorf("%s", text)
	}
}

// TestRefusalsOfOperatorsAreLoggedWithinABudget: whoever asks again and again for what
// they may not do does not fill the disk.
func TestRefusalsOfOperatorsAreLoggedWithinABudget(t *testing.T) {
	g := newGuarded(t)
	for range 500 {
		g.order("v", "node01", "hold", "")
		g.order("o", "node01", "hold", "")
	}
	g.now = g.now.Add(11 * time.Second)
	g.order("v", "node01", "hold", "")
	log := g.log.String()
	if n := strings.Count(log, `msg="operator refused"`); n != 51 || !strings.Contains(log, `msg="more operators were refused than logged" count=950`) {
		t.Errorf("%d lines:\n%.2000s", n, log)
	}
}

// TestStoredTokens: the life of a token that an admin makes, and what becomes of those
// who come with it.
func TestStoredTokens(t *testing.T) {
	g := newGuarded(t)
	for _, bad := range []struct{ operator, body, want string }{
		{"", `{"name":"x"}`, api.CodeOperatorTokenRequired},
		{"p", `{"name":"x"}`, api.CodeOperatorRole},
		{"a", ``, api.CodeBadRequest},
		{"a", `{"name":"a.b"}`, api.CodeBadRequest},
		{"a", `{"name":"x","uses":-1}`, api.CodeBadRequest},
		{"a", `{"name":"x","role":"king"}`, api.CodeBadRequest},
		{"a", `{"name":"x","node":"No"}`, api.CodeBadRequest},
		{"a", `{"name":"x","expires":"2026-02-28T00:00:00Z"}`, api.CodeBadRequest},
		{"a", `{"name":"x","token":"mine"}`, api.CodeBadRequest},
	} {
		if _, code := g.createToken(bad.operator, bad.body); code != bad.want {
			t.Errorf("%s by %q: %q, want %q", bad.body, bad.operator, code, bad.want)
		}
	}
	once, code := g.createToken("a", `{"name":"once","uses":1,"expires":"2026-03-01T13:00:00Z"}`)
	if code != "" || !strings.HasPrefix(once.Secret, "once.") || len(once.Secret) < 64 {
		t.Fatalf("%q, %+v", code, once)
	}
	two, _ := g.createToken("a", `{"name":"two","node":"node02","expires":"2026-03-01T12:30:00Z"}`)
	if _, code := g.createToken("a", `{"name":"once"}`); code != api.CodeTokenExists {
		t.Errorf("twice: %q", code)
	}
	var list api.TokenList
	if text := g.get(api.PathTokens, &list); len(list.Tokens) != 2 || strings.Contains(text, once.Secret) || strings.Contains(text, "sha256") {
		t.Errorf("the list is %s", text)
	}

	first, second := token("first"), token("second")
	for _, step := range []struct{ id, bearer, secret, want string }{
		{"node01", two.Secret, first, node.CodeJoinTokenScope},
		{"node01", once.Secret + "x", first, node.CodeJoinTokenWrong},
		{"node01", "once." + strings.Repeat("0", 64), first, node.CodeJoinTokenWrong},
		{"node01", once.Secret, first, ""},
		{"node01", once.Secret, first, ""}, // its answer was lost
		{"node02", once.Secret, second, node.CodeJoinTokenUsedUp},
		{"node02", two.Secret, second, ""},
	} {
		if got := g.report(step.id, "Bearer "+step.bearer, step.secret); got != step.want {
			t.Errorf("%s with %.8s: %q, want %q", step.id, step.bearer, got, step.want)
		}
	}
	g.get(api.PathTokens, &list)
	if u := list.Tokens[0]; u.Used != 1 || u.LastNode != "node01" || u.LastUsed == nil || u.CreatedBy != "a" {
		t.Errorf("used: %+v", u)
	}
	g.now = g.now.Add(45 * time.Minute)
	if got := g.report("node02", "Bearer "+two.Secret, token("third")); got != node.CodeNodeSecretWrong {
		t.Errorf("a node that was Active, with an expired token: %q", got)
	}
	if got := g.report("node02", "Bearer "+two.Secret, second); got != "" {
		t.Errorf("who joined before it expired: %q", got)
	}
	for _, step := range []struct{ operator, name, want string }{
		{"p", "once", api.CodeOperatorRole}, {"a", "once", ""}, {"a", "once", api.CodeNotFound}, {"a", "../x", api.CodeNotFound},
	} {
		if _, code := g.ask(http.MethodDelete, api.PathTokens+"/"+step.name, "", bearerOf(step.operator), "", here); code != step.want {
			t.Errorf("revoke %s: %q, want %q", step.name, code, step.want)
		}
	}
	if got := g.report("node01", "Bearer "+once.Secret, token("fourth")); got == "" {
		t.Error("joined with a token that was revoked")
	}
	if got := g.report("node01", "Bearer "+once.Secret, first); got != "" {
		t.Errorf("who joined before it was revoked: %q", got)
	}
	if log := g.log.String(); strings.Contains(log, once.Secret) || strings.Contains(log, two.Secret) {
		t.Error("a token is in the log")
	}
}

// TestAudit: who did what, with what result, and no secret among it.
func TestAudit(t *testing.T) {
	g := newGuarded(t)
	made, _ := g.createToken("a", `{"name":"t"}`)
	g.createToken("v", `{"name":"u"}`)
	for range 3 {
		g.order("v", "node01", "hold", "") // once in the log
	}
	g.order("p", "node01", "hold", `{"reason":"new disks"}`)
	g.order("p", "node01", "hold", `{"reason":"new disks"}`)
	g.order("p", "node01", "retry", "")
	g.ask(http.MethodDelete, api.PathTokens+"/t", "", bearerOf("a"), "", here)
	var log api.AuditLog
	text := g.get(api.PathAudit, &log)
	var got []string
	for _, e := range log.Entries {
		if e.Remote != "192.0.2.7" || e.At.IsZero() || e.Cursor == "" {
			t.Errorf("%+v", e)
		}
		got = append(got, strings.Join([]string{e.By, string(e.Action), e.NodeID + e.Token, e.Result, e.Code, e.Reason}, " "))
	}
	want := []string{
		"a token-create t done  ", "v token-create  refused operator_role ", "v hold node01 refused operator_role ",
		"p hold node01 done  new disks", "p hold node01 unchanged  new disks", "p retry node01 refused wrong_state ", "a token-revoke t done  ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the audit log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if strings.Contains(text, made.Secret) {
		t.Error("a token is in the audit log")
	}
	for _, line := range []string{"msg=operator by=p remote=192.0.2.7 action=hold result=done node=node01 reason=\"new disks\"", "action=token-create result=done token=t"} {
		if !strings.Contains(g.log.String(), line) {
			t.Errorf("the log has no %s:\n%s", line, g.log)
		}
	}
	var rest api.AuditLog
	if g.get(api.PathAudit+"?limit=2&after="+log.Entries[4].Cursor, &rest); len(rest.Entries) != 2 || rest.More {
		t.Errorf("after the fifth: %+v", rest)
	}
	for _, step := range []struct{ operator, query, want string }{
		{"p", "", api.CodeOperatorRole}, {"", "", api.CodeOperatorTokenRequired}, {"a", "?after=x", api.CodeBadRequest},
		{"a", "?after=ABCDEFGH.1", api.CodeCursorGone}, {"a", "?limit=0", api.CodeBadRequest},
	} {
		if _, code := g.ask(http.MethodGet, api.PathAudit+step.query, "", bearerOf(step.operator), "", here); code != step.want {
			t.Errorf("%s%s: %q, want %q", step.operator, step.query, code, step.want)
		}
	}
	if w, _ := g.ask(http.MethodGet, api.PathAudit+"?after=ABCDEFGH.1", "", bearerOf("a"), "", here); strings.Contains(w.Body.String(), api.PathNodes) {
		t.Errorf("the mend of an old cursor is that of events: %s", w.Body)
	}
	if w, code := g.ask(http.MethodPut, api.PathTokens, "", bearerOf("a"), "", here); code != api.CodeMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("PUT: %q, allowed %q", code, w.Header().Get("Allow"))
	}
	g.cfg.Operators, g.cfg.Metrics = nil, nil
	g.http = New(g.cfg)
	for _, path := range []string{api.PathAudit, api.PathTokens} {
		if _, code := g.ask(http.MethodGet, path, "", "", "", here); code != api.CodeOperatorsUnknown {
			t.Errorf("%s without operators: %q", path, code)
		}
	}
}
