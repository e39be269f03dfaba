package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// asks is the code of n equal requests, which has to be the same for all.
func (g *guarded) asks(n int, want, what, method, path, body, bearer, secret, from string) {
	g.t.Helper()
	for i := range n {
		if w, code := g.ask(method, path, body, bearer, secret, from); code != want {
			g.t.Errorf("%s, number %d: %d %q, want %q", what, i+1, w.Code, code, want)
			return
		} else if code == api.CodeTooManyRequests && (w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "5") {
			g.t.Errorf("%s: %d %v", what, w.Code, w.Header())
		}
	}
}

const oneReport = `{"node_id":"node01","phase":"ready","role":"worker"}`

// TestBurst: an address that sends too much is told so, and whoever proves who he is
// does not suffer from it.
func TestBurst(t *testing.T) {
	g := newGuarded(t)
	g.cfg.Burst = 5
	g.http = AsDocumented(t, New(g.cfg))
	right, viewer := "Bearer "+token("all"), "Bearer "+token("v")
	if code := g.report("node01", right, token("own")); code != "" {
		t.Fatal(code)
	}
	const post, get, home = http.MethodPost, http.MethodGet, api.PathPhoneHome
	const tooMany = api.CodeTooManyRequests
	g.asks(5, node.CodeNodeSecretRequired, "without credentials", post, home, oneReport, "", "", here)
	g.asks(3, tooMany, "too many", post, home, oneReport, "", "", here)
	g.asks(3, tooMany, "too many, with a body that is no report", post, home, "{", "", "", here)
	g.asks(3, tooMany, "with a wrong secret", post, home, oneReport, "", token("wrong"), here)
	g.asks(20, "", "with the right secret", post, home, oneReport, "", token("own"), here)
	g.asks(1, "", "with a right token", post, home, strings.Replace(oneReport, "node01", "node02", 1), right, token("two"), here)
	g.asks(1, node.CodeNodeSecretRequired, "of another address", post, home, oneReport, "", "", "192.0.2.8:1")

	// What is no report pays apart.
	g.asks(5, api.CodeOperatorTokenRequired, "a read", get, api.PathNodes, "", "", "", here)
	g.asks(3, tooMany, "a read too many", get, api.PathNodes, "", "", "", here)
	g.asks(3, tooMany, "an order", post, api.PathNodes+"/node01/hold", "", "", "", here)
	g.asks(3, tooMany, "what is not there", get, "/nothing", "", "", "", here)
	g.asks(3, tooMany, "what is not there, with a wrong token", get, "/nothing", "", "Bearer "+token("x"), "", here)
	g.asks(3, tooMany, "what is not there, with a right token that is not looked at", get, "/nothing", "", viewer, "", here)
	g.asks(3, tooMany, "a wrong token", get, api.PathNodes, "", "Bearer "+token("x"), "", here)
	g.asks(20, "", "an operator", get, api.PathNodes, "", viewer, "", here)
	g.asks(20, api.CodeNotFound, "an operator who asks for what is not there", get, api.PathNodes+"/node99", "", viewer, "", here)
	g.asks(20, api.CodeOperatorRole, "an operator who may not", post, api.PathNodes+"/node01/hold", "", viewer, "", here)
	g.asks(20, "", "health", get, api.PathHealth, "", "", "", here)

	g.asks(5, api.CodeOperatorTokenRequired, "of an IPv6 network", get, api.PathNodes, "", "", "", "[2001:db8::1]:1")
	g.asks(1, tooMany, "of the same network", get, api.PathNodes, "", "", "", "[2001:db8::ffff:2]:1")

	g.now = g.now.Add(burstRefill / 5)
	g.asks(1, api.CodeOperatorTokenRequired, "later", get, api.PathNodes, "", "", "", here)
	g.asks(1, tooMany, "later, once more", get, api.PathNodes, "", "", "", here)
}

// TestBurstOfAnOpenDeployer: where nobody has to prove anything, accepted reports are
// free all the same, and reads pay.
func TestBurstOfAnOpenDeployer(t *testing.T) {
	g := newGuarded(t)
	g.cfg.Burst, g.cfg.JoinTokens, g.cfg.Operators = 5, nil, nil
	g.http = New(g.cfg)
	const post, home = http.MethodPost, api.PathPhoneHome
	unknown := strings.Replace(oneReport, "node01", "node99", 1)
	g.asks(5, node.CodeUnknownNode, "refused", post, home, unknown, "", "", here)
	g.asks(3, api.CodeTooManyRequests, "refused too often", post, home, unknown, "", "", here)
	g.asks(20, "", "accepted", post, home, oneReport, "", "", here)
	g.asks(5, "", "a read", http.MethodGet, api.PathNodes, "", "", "", here)
	g.asks(3, api.CodeTooManyRequests, "a read too many", http.MethodGet, api.PathNodes, "", "Bearer "+token("any"), "", here)

	page := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.RemoteAddr = here
	g.http.ServeHTTP(page, r)
	if page.Code != http.StatusTooManyRequests || !strings.HasPrefix(page.Header().Get("Content-Type"), "text/html") {
		t.Errorf("the page: %d %v", page.Code, page.Header())
	}
	g.now = g.now.Add(time.Minute)
	g.asks(5, "", "later", http.MethodGet, api.PathNodes, "", "", "", here)
}
