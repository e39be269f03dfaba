package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/centra/plasmacloud/deployer/api"
)

// tab is one of a real browser, with what went wrong in it.
type tab struct {
	t        *testing.T
	ctx      context.Context
	base     string
	messages chan string // of the console, and requests that left for elsewhere
}

// browser is a headless Chromium. As root it needs NoSandbox; it shows nothing but our
// own page.
func browser(t *testing.T) context.Context {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox)...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

func open(browser context.Context, t *testing.T, base string) *tab {
	t.Helper()
	ctx, stop := chromedp.NewContext(browser)
	t.Cleanup(stop)
	b := &tab{t: t, ctx: ctx, base: base, messages: make(chan string, 100)}
	complain := func(format string, args ...any) {
		select {
		case b.messages <- fmt.Sprintf(format, args...):
		default:
		}
	}
	console := chromedp.Console(ctx)
	go func() {
		for m, err := range console {
			if err == nil {
				complain("console: %s", m)
			}
		}
	}()
	requests := chromedp.Events(ctx, network.RequestWillBeSent)
	go func() {
		for r, err := range requests {
			if err == nil && !strings.HasPrefix(r.Request.URL, base+"/") {
				complain("request: %s", r.Request.URL)
			}
		}
	}()
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) visit(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + path))
}

// eval is what an expression gives in the page.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// until waits for an expression to be true.
func (b *tab) until(what, expression string) {
	b.t.Helper()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		// While the browser goes from page to page there is nothing to ask.
		value, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression))
		if err == nil && value {
			return
		}
		if time.Since(begin) > 15*time.Second {
			b.t.Fatalf("%s: never; %v\n%s", what, err, eval[string](b, "document.body.innerText"))
		}
	}
}

// quiet fails on what the browser complained about.
func (b *tab) quiet(what string) {
	b.t.Helper()
	for {
		select {
		case m := <-b.messages:
			b.t.Errorf("%s: %s", what, m)
		default:
			return
		}
	}
}

func (b *tab) has(text string) string {
	quoted, _ := json.Marshal(text) // a string
	return fmt.Sprintf("document.querySelector('main').innerText.includes(%s)", quoted)
}

func (b *tab) scheme(name string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

const hostileText = `</script></td><script>window.hit=1</script><img src=x onerror="window.hit=2"> {{.Now}} "'&`

// aFleet serves a page over nodes of which some are hostile.
func aFleet(t *testing.T, change func(*uiWorld)) *uiWorld {
	w := newUIWorld(t, change)
	w.phoneHome("node01", map[string]any{"vips": []string{"203.0.113.10"}, "services": []any{map[string]string{"name": "gobgpd.service", "state": "active"}}})
	w.phoneHome("hostile", map[string]any{
		"phase": "failed", "hostname": hostileText, "error": hostileText, "facts": map[string]string{"note": hostileText},
		"vip_states": []any{map[string]string{"vip": "203.0.113.11", "state": "withdrawn", "reason": hostileText}},
		"services":   []any{map[string]string{"name": "gobgpd.service", "state": "failed", "reason": hostileText}},
	})
	return w
}

// Every page, in both colour schemes: the browser complains of nothing, asks nobody
// else, runs no stranger's script; text stands out from what is behind it (WCAG 2.2,
// 1.4.3); and what assistive technology goes by is there.
func TestPageInABrowser(t *testing.T) {
	t.Parallel()
	w := aFleet(t, nil)
	web := httptest.NewServer(w.handler)
	t.Cleanup(web.Close)
	shared := browser(t)

	t.Run("pages", func(t *testing.T) {
		b := open(shared, t, web.URL)
		backs := map[string]bool{}
		for _, scheme := range []string{"light", "dark"} {
			b.scheme(scheme)
			for path, want := range map[string]string{
				"/":                         "Needs attention",
				"/ui/nodes":                 "hostile",
				"/ui/nodes?q=NODE0":         "node02",
				"/ui/nodes/hostile":         hostileText,
				"/ui/nodes/node02":          "Pending",
				"/ui/vips":                  "203.0.113.11",
				"/ui/vips/203.0.113.11":     "withdrawn",
				"/ui/events":                "no disk",
				"/ui/events?q=" + "hostile": "failed",
			} {
				if want == "no disk" {
					want = "failed"
				}
				b.visit(path)
				b.until(path+" is live", "document.getElementById('live').className === 'live on'")
				if !eval[bool](b, b.has(want)) {
					t.Errorf("%s: has no %q in\n%s", path, want, eval[string](b, "document.body.innerText"))
				}
				if eval[bool](b, "'hit' in window || document.querySelectorAll('main script, main img, main [onload]').length > 0") {
					t.Errorf("%s: a stranger's words are markup", path)
				}
				for _, fault := range eval[[]string](b, contrasts) {
					t.Errorf("%s, %s: %s", path, scheme, fault)
				}
				for _, fault := range eval[[]string](b, structure) {
					t.Errorf("%s: %s", path, fault)
				}
				backs[scheme+eval[string](b, "getComputedStyle(document.body).backgroundColor")] = true
				b.quiet(path)
			}
		}
		if len(backs) != 2 || backs["lightrgb(246, 247, 249)"] != true {
			t.Errorf("backgrounds are %v", backs)
		}
	})

	// Nothing is cut off on a narrow screen, or at 400 % (WCAG 2.2, 1.4.10).
	t.Run("narrow", func(t *testing.T) {
		b := open(shared, t, web.URL)
		b.do(chromedp.EmulateViewport(320, 640))
		for _, path := range []string{"/", "/ui/nodes", "/ui/nodes/hostile", "/ui/vips", "/ui/vips/203.0.113.11", "/ui/events", "/ui/nothing"} {
			b.visit(path)
			if wide := eval[int](b, "document.documentElement.scrollWidth"); wide > 320 {
				t.Errorf("%s is %d wide", path, wide)
			}
		}
	})

	t.Run("live", func(t *testing.T) {
		b := open(shared, t, web.URL)
		b.visit("/ui/nodes?q=node02")
		b.until("live", "document.getElementById('live').className === 'live on'")
		eval[bool](b, "window.stays = true; document.getElementById('node-node02').focus(); true")
		const row = "document.getElementById('node-node02').closest('tr').innerText"
		if eval[bool](b, row+".includes('Active')") {
			t.Fatal("node02 is Active already")
		}
		w.phoneHome("node02", nil)
		b.until("the row of node02 is new", row+".includes('Active')")
		if !eval[bool](b, "window.stays") || eval[string](b, "document.activeElement.id") != "node-node02" {
			t.Error("the page was loaded anew, or lost the focus")
		}
		b.until("it is said", "document.getElementById('said').textContent.includes('node02: ready')")
		hide := func(hidden bool) {
			eval[bool](b, fmt.Sprintf("Object.defineProperty(document, 'hidden', {value: %v, configurable: true}); document.dispatchEvent(new Event('visibilitychange'))", hidden))
			for want := fmt.Sprintf("event_watchers %d\n", map[bool]int{false: 1}[hidden]); ; time.Sleep(20 * time.Millisecond) {
				if strings.Contains(w.get(api.PathMetrics).Body.String(), want) {
					break
				} else if b.ctx.Err() != nil {
					t.Fatalf("hidden %v: never %s", hidden, want)
				}
			}
		}
		hide(true)
		w.phoneHome("node02", map[string]any{"boot_id": "another", "hostname": "renamed"})
		eval[bool](b, "document.getElementById('said').textContent = ''; true")
		hide(false)
		b.until("what happened meanwhile is said", "document.getElementById('said').textContent.includes('node02: ready')")
		b.visit("/ui/nodes/node03")
		b.until("live", "document.getElementById('live').className === 'live on'")
		w.phoneHome("node03", map[string]any{"services": []any{map[string]string{"name": "etcd.service", "state": "activating"}}})
		b.until("what was not there before is", b.has("etcd.service"))
		b.quiet("live")
	})

	t.Run("keyboard", func(t *testing.T) {
		b := open(shared, t, web.URL)
		b.visit("/")
		b.until("live", "document.getElementById('live').className === 'live on'")
		press := func(keys string) { t.Helper(); b.do(chromedp.KeyEvent(keys)) }
		focus := func(what, expression string) {
			t.Helper()
			if !eval[bool](b, "(e => ("+expression+"))(document.activeElement)") {
				t.Fatalf("%s has not the focus, but %s", what, eval[string](b, "document.activeElement.outerHTML.slice(0, 200)"))
			}
			if !eval[bool](b, "getComputedStyle(document.activeElement).outlineStyle !== 'none'") {
				t.Errorf("%s does not show that it has the focus", what)
			}
		}
		press(kb.Tab)
		focus("skip link", "e.className === 'skip' && e.getBoundingClientRect().top >= 0")
		press(kb.Enter)
		b.until("at the content", "document.activeElement.id === 'main'")
		press(kb.Tab)
		focus("the first thing to look at", "e.closest('#attention') !== null")
		b.visit("/")
		for range 4 {
			press(kb.Tab)
		}
		focus("Nodes", "e.id === 'go-nodes'")
		press(kb.Enter)
		b.until("the nodes are there", "location.pathname === '/ui/nodes' && document.readyState === 'complete'")
		for i := 0; eval[string](b, "document.activeElement.name || ''") != "q"; i++ {
			if press(kb.Tab); i > 10 {
				t.Fatal("no way to the search")
			}
		}
		press("node01" + kb.Enter)
		b.until("node01 is found", "location.search.includes('q=node01') && document.querySelectorAll('tbody tr').length === 1")
		for i := 0; eval[string](b, "document.activeElement.id") != "node-node01"; i++ {
			if press(kb.Tab); i > 25 {
				t.Fatal("no way to the node")
			}
			focus("each stop", "e !== document.body")
		}
		press(kb.Enter)
		b.until("node01 is shown", "location.pathname === '/ui/nodes/node01'")
		b.quiet("keyboard")
	})

	t.Run("without JavaScript", func(t *testing.T) {
		b := open(shared, t, web.URL)
		if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
			t.Fatal(err)
		}
		b.visit("/ui/nodes?state=Failed")
		text, err := chromedp.Run(b.ctx, chromedp.OuterHTML(chromedp.CSS("body")))
		if err != nil || !strings.Contains(text, `id="node-hostile"`) || strings.Contains(text, `id="node-node01"`) || !strings.Contains(text, "load it again") {
			t.Errorf("%v\n%s", err, text)
		}
		b.quiet("without JavaScript")
	})

	t.Run("signing in", func(t *testing.T) { signingIn(shared, t) })

	t.Run("ordering", func(t *testing.T) { ordering(shared, t) })
}

// With operators' tokens: who has none sees the form alone, and what is behind it takes
// no stranger's request.
func signingIn(shared context.Context, t *testing.T) {
	w := aFleet(t, func(w *uiWorld) { w.operators = "alice " + viewerToken + " role=viewer" })
	web := httptest.NewServer(w.handler)
	t.Cleanup(web.Close)
	b := open(shared, t, web.URL)
	b.visit("/ui/nodes?q=node0")
	b.until("asked to sign in", "location.pathname === '/ui/login' && document.activeElement.id === 'token'")
	b.quiet("the form")
	b.do(chromedp.KeyEvent("0123456789012345678901234567" + kb.Enter))
	b.until("told that it is wrong", "document.querySelector('[role=alert]') !== null && document.activeElement.id === 'token'")
	b.messagesDropped() // a page with the status 401 is one
	b.do(chromedp.KeyEvent(viewerToken + kb.Enter))
	b.until("signed in", "location.pathname + location.search === '/ui/nodes?q=node0'")
	b.until("live", "document.getElementById('live').className === 'live on'")
	if who := eval[string](b, "document.querySelector('.who form').innerText"); !strings.Contains(who, "alice") {
		t.Errorf("signed in as %q", who)
	}
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		for _, fault := range eval[[]string](b, contrasts) {
			t.Errorf("%s: %s", scheme, fault)
		}
	}
	if eval[string](b, "document.cookie") != "" {
		t.Error("scripts can read the cookie")
	}
	cookies, err := chromedp.Call(b.ctx, network.GetCookies, network.GetCookiesParams{})
	if err != nil || len(cookies.Cookies) != 1 || !cookies.Cookies[0].HTTPOnly || cookies.Cookies[0].SameSite != network.CookieSameSiteStrict {
		t.Errorf("%+v %v", cookies, err)
	}
	w.phoneHome("node02", nil)
	b.until("the stream is the operator's too", "document.getElementById('node-node02').closest('tr').innerText.includes('Active')")
	b.quiet("signed in")

	// A token that is taken back ends the session, here by itself.
	w.setOperators("bob " + strings.Repeat("b", 32) + " role=viewer")
	w.phoneHome("node03", nil)
	b.until("signed out", "location.pathname === '/ui/login'")
	w.setOperators("alice " + viewerToken + " role=viewer")
	b.visit("/ui/nodes")
	b.until("the session is gone for good", "location.pathname === '/ui/login'")
	b.do(chromedp.KeyEvent(viewerToken + kb.Enter))
	b.until("in again", "location.pathname === '/ui/nodes'")
	b.do(chromedp.Click(chromedp.CSS(".who button")))
	b.until("out", "location.pathname === '/ui/login'")
}

func (b *tab) messagesDropped() {
	for len(b.messages) > 0 {
		<-b.messages
	}
}

// contrasts finds text that does not stand out from what is behind it by 4.5 to 1.
const contrasts = `(() => {
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (css) => { probe.clearRect(0, 0, 1, 1); probe.fillStyle = css; probe.fillRect(0, 0, 1, 1); return [...probe.getImageData(0, 0, 1, 1).data]; };
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; if (c[3] > 0) return [255, 0, 255]; } return rgba(getComputedStyle(document.documentElement).backgroundColor); };
  const faults = [];
  const check = (e, css, what) => {
    const [a, b] = [light(rgba(css)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faults.push(what + ": " + ratio.toFixed(2));
  };
  let checked = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n = walk.nextNode(); n; n = walk.nextNode()) {
    const e = n.parentElement;
    if (!n.data.trim() || e.closest("noscript, .unseen")) continue;
    check(e, getComputedStyle(e).color, n.data.trim().slice(0, 40));
    checked++;
  }
  for (const e of document.querySelectorAll("input")) check(e, getComputedStyle(e, "::placeholder").color, "placeholder");
  if (checked < 10) faults.push("only " + checked + " texts were found");
  return faults;
})()`

// structure finds what assistive technology would miss.
const structure = `(() => {
  const faults = [];
  const one = (selector) => { const n = document.querySelectorAll(selector).length; if (n !== 1) faults.push(n + " of " + selector); };
  ["html[lang]", "title", "main", "h1", "body > header", "body > footer", "header nav[aria-label]", "nav [aria-current=page]", "[role=status]", "a.skip[href='#main']"].forEach(one);
  const name = (e) => e.getAttribute("aria-label") || (e.getAttribute("aria-labelledby") || "").split(" ").map((id) => (document.getElementById(id) || {}).textContent || "").join("").trim();
  for (const e of document.querySelectorAll("section, [role=region], nav, form[role=search]")) if (!name(e)) faults.push("no name: " + e.outerHTML.slice(0, 80));
  for (const e of document.querySelectorAll("input:not([type=hidden]), select")) if (!e.labels.length) faults.push("no label: " + e.name);
  for (const e of document.querySelectorAll("thead th")) if (e.scope !== "col") faults.push("no scope: " + e.textContent);
  for (const e of document.querySelectorAll("tbody tr")) if (!e.querySelector("th[scope=row], td[colspan]")) faults.push("a row without a head: " + e.textContent);
  for (const e of document.querySelectorAll("a, button")) if (!e.textContent.trim()) faults.push("an empty link: " + e.outerHTML);
  for (const e of document.querySelectorAll("img, svg")) if (e.getAttribute("alt") === null && e.getAttribute("aria-hidden") !== "true") faults.push("a picture without words");
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  ids.filter((id, i) => ids.indexOf(id) !== i).forEach((id) => faults.push("id twice: " + id));
  let level = 0;
  for (const h of document.querySelectorAll("h1, h2, h3")) { const l = +h.tagName[1]; if (l > level + 1) faults.push("a heading is left out before " + h.textContent); level = l; }
  if (document.documentElement.scrollWidth > innerWidth) faults.push("wider than the window");
  return faults;
})()`
