package server_test

import (
	"context"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server/page"
)

const operatorToken = "0123456789abcdef0123456789abcdef"

func withOrders(w *uiWorld) {
	w.operators, w.approval = "vic "+viewerToken+" role=viewer\nalice "+operatorToken+" role=operator", node.ApproveUndeclared
}

// signIn is the cookie of a session.
func (w *uiWorld) signIn(token string) string {
	w.t.Helper()
	a := w.post(page.PathLogin, url.Values{"token": {token}})
	cookie, _, _ := strings.Cut(a.Header().Get("Set-Cookie"), ";")
	if a.Code != http.StatusSeeOther || cookie == "" {
		w.t.Fatalf("not signed in: %d", a.Code)
	}
	return cookie
}

func (w *uiWorld) node(id string) deployer.View {
	w.t.Helper()
	v, err := w.registry.Node(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

const hold01 = "/ui/nodes/node01/hold"

// TestPageOrders: what somebody signed in orders on the page is theirs in the history and
// the audit log, and no way around the form does anything.
func TestPageOrders(t *testing.T) {
	t.Parallel()
	w := newUIWorld(t, withOrders)
	viewer, operator := w.signIn(viewerToken), w.signIn(operatorToken)
	for _, link := range []struct {
		cookie string
		want   bool
	}{{viewer, false}, {operator, true}} {
		if a := w.get("/ui/nodes/node01", "Cookie", link.cookie); a.Code != 200 || strings.Contains(a.Body.String(), `href="`+hold01+`"`) != link.want {
			t.Errorf("want a link: %v\n%s", link.want, a.Body)
		}
	}
	why := url.Values{"reason": {"new disks"}}
	for what, try := range map[string]struct {
		a    *httptest.ResponseRecorder
		want int
	}{
		"a viewer asks":       {w.get(hold01, "Cookie", viewer), 403},
		"a viewer orders":     {w.post(hold01, why, "Cookie", viewer), 403},
		"asked by a link":     {w.get(hold01, "Cookie", operator), 200},
		"without a session":   {w.post(hold01, why), 303},
		"another session":     {w.post(hold01, why, "Cookie", "plasmacloud=ABC"), 303},
		"from another site":   {w.post(hold01, why, "Cookie", operator, "Sec-Fetch-Site", "cross-site"), 403},
		"from a sister site":  {w.post(hold01, why, "Cookie", operator, "Sec-Fetch-Site", "same-site"), 403},
		"from another origin": {w.post(hold01, why, "Cookie", operator, "Origin", "http://example.com:81"), 403},
		"no form":             {w.post(hold01, why, "Cookie", operator, "Content-Type", "text/plain"), 415},
		"too long a form":     {w.post(hold01, url.Values{"reason": {strings.Repeat("x", 5000)}}, "Cookie", operator), 400},
		"too long a reason":   {w.post(hold01, url.Values{"reason": {strings.Repeat("x", 600)}}, "Cookie", operator), 400},
		"control characters":  {w.post(hold01, url.Values{"reason": {"a\x1b[2J"}}, "Cookie", operator), 400},
		"over the API":        {w.post(api.PathNodes+"/node01/hold", why, "Cookie", operator), 401},
		"not Failed":          {w.post("/ui/nodes/node01/retry", why, "Cookie", operator), 409},
		"what takes an admin": {w.post("/ui/nodes/node01/reset", why, "Cookie", operator), 405},
		"no such node":        {w.post("/ui/nodes/none/hold", why, "Cookie", operator), 404},
		"the form for none":   {w.get("/ui/nodes/none/hold", "Cookie", operator), 404},
		"a name that is none": {w.post("/ui/nodes/No%0d%0aX:1/hold", why, "Cookie", operator), 405},
		"another method":      {w.ask(httptest.NewRequestWithContext(t.Context(), "DELETE", hold01, nil), "Cookie", operator), 405},
	} {
		if try.a.Code != try.want {
			t.Errorf("%s: %d, want %d\n%s", what, try.a.Code, try.want, try.a.Body)
		}
	}
	if v := w.node("node01"); v.Held != nil {
		t.Fatalf("held: %+v", v.Held)
	}

	a := w.post(hold01, why, "Cookie", operator, "Sec-Fetch-Site", "same-origin")
	if held := w.node("node01").Held; a.Code != 303 || a.Header().Get("Location") != "/ui/nodes/node01" || held == nil || held.By != "alice" || held.Reason != "new disks" {
		t.Errorf("%d %v %+v", a.Code, a.Header(), held)
	}
	if a := w.post("/ui/nodes/node01/release", nil, "Cookie", operator); a.Code != 303 || w.node("node01").Held != nil {
		t.Errorf("released: %d", a.Code)
	}
	w.phoneHome("node02", map[string]any{"phase": "failed", "error": "no disk"})
	if a := w.post("/ui/nodes/node02/retry", nil, "Cookie", operator); a.Code != 303 || w.node("node02").State != node.Provisioning {
		t.Errorf("retried: %d", a.Code)
	}

	// It is the machine that was shown that is approved.
	w.phoneHome("stranger", map[string]any{"phase": "booted"})
	form := w.get("/ui/nodes/stranger/approve", "Cookie", operator).Body.String()
	_, machine, _ := strings.Cut(form, `name="machine" value="`)
	machine, _, _ = strings.Cut(machine, `"`)
	if a := w.post("/ui/nodes/stranger/approve", url.Values{"machine": {"another"}}, "Cookie", operator); a.Code != 409 || w.node("stranger").Approved != nil {
		t.Errorf("another machine: %d", a.Code)
	}
	if a := w.post("/ui/nodes/stranger/approve", url.Values{"machine": {html.UnescapeString(machine)}}, "Cookie", operator); a.Code != 303 || w.node("stranger").Approved == nil {
		t.Errorf("approved: %d %s", a.Code, a.Body)
	}

	log, err := w.registry.Audit(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range log.Events {
		said = append(said, strings.Join([]string{e.By, string(e.Event), e.Node, string(e.Result), e.Code}, " "))
	}
	for _, want := range []string{
		"vic hold node01 refused operator_role", "alice retry node01 refused wrong_state", "alice hold node01 done ", "alice release node01 done ",
		"alice retry node02 done ", "alice approve stranger refused wrong_machine", "alice approve stranger done ",
	} {
		if !strings.Contains("\n"+strings.Join(said, "\n")+"\n", "\n"+want+"\n") {
			t.Errorf("the audit log lacks %q:\n%s", want, strings.Join(said, "\n"))
		}
	}

	// A token whose role was made smaller orders no more in the same session.
	w.setOperators("alice " + operatorToken + " role=viewer")
	if a := w.post(hold01, why, "Cookie", operator); a.Code != 403 || w.node("node01").Held != nil {
		t.Errorf("after the role was made smaller: %d", a.Code)
	}
}

// Without operators' tokens the page knows nobody who could order.
func TestPageOrdersOfNobody(t *testing.T) {
	t.Parallel()
	w := newUIWorld(t, nil)
	if a := w.get("/ui/nodes/node01"); strings.Contains(a.Body.String(), hold01) {
		t.Errorf("%s", a.Body)
	}
	for _, a := range []*httptest.ResponseRecorder{w.get(hold01), w.post(hold01, nil)} {
		if a.Code != 403 || w.node("node01").Held != nil {
			t.Errorf("%d %s", a.Code, a.Body)
		}
	}
}

// Ordering with the keyboard alone.
func ordering(shared context.Context, t *testing.T) {
	w := aFleet(t, func(w *uiWorld) { w.operators = "alice " + operatorToken + " role=operator" })
	web := httptest.NewServer(w.handler)
	t.Cleanup(web.Close)
	b := open(shared, t, web.URL)
	b.visit("/ui/nodes/hostile")
	b.until("asked to sign in", "location.pathname === '/ui/login' && document.activeElement.id === 'token'")
	b.do(chromedp.KeyEvent(operatorToken + kb.Enter))
	b.until("the node", "location.pathname === '/ui/nodes/hostile' && document.getElementById('do-retry') !== null")
	eval[any](b, "document.getElementById('do-retry').focus()")
	b.do(chromedp.KeyEvent(kb.Enter))
	b.until("asked once more", "location.pathname === '/ui/nodes/hostile/retry' && document.activeElement.id === 'reason'")
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		for _, fault := range eval[[]string](b, contrasts) {
			t.Errorf("%s: %s", scheme, fault)
		}
	}
	if state := w.node("hostile").State; state != node.Failed {
		t.Errorf("%s before it was confirmed", state)
	}
	b.do(chromedp.KeyEvent("a new disk" + kb.Enter))
	b.until("done", "location.pathname === '/ui/nodes/hostile' && "+b.has("a new disk")+" && "+b.has("by alice"))
	if state := w.node("hostile").State; state != node.Provisioning {
		t.Errorf("%s after it was confirmed", state)
	}
	b.quiet("ordering")
}
