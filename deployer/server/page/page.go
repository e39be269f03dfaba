// Package page makes the deployer's web page: it turns what the registry knows into
// HTML. It has no transport: who may see it is the server's business.
//
// The page needs no JavaScript. Where there is some, it loads the same page again when
// an event comes, and puts what has changed in place of the old: see assets/page.js.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"path"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
)

//go:embed assets
var files embed.FS

// Paths of the page.
const (
	PathFleet  = "/"
	PathNodes  = "/ui/nodes"
	PathVIPs   = "/ui/vips"
	PathEvents = "/ui/events"
	PathStream = "/ui/stream"
	PathLogin  = "/ui/login"
	PathLogout = "/ui/logout"
	PathAssets = "/ui/assets/"
)

// Policy is the Content-Security-Policy of every page: nothing from elsewhere, and
// nothing that a page was talked into.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Asset is a file that pages load.
type Asset struct {
	Media string
	Body  []byte
	Path  string // with what tells one version from another
}

// Assets are by the name in their path.
var Assets = func() map[string]Asset {
	assets := map[string]Asset{}
	for name, media := range map[string]string{
		"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		body, err := fs.ReadFile(files, path.Join("assets", name))
		if err != nil {
			panic(err) // it was embedded
		}
		sum := sha256.Sum256(body)
		assets[name] = Asset{media, body, PathAssets + name + "?v=" + hex.EncodeToString(sum[:6])}
	}
	return assets
}()

// Frame is what all pages have around them.
type Frame struct {
	Version  string
	Operator string // who looks; "" where the deployer knows no operators
	Orders   bool   // whether they may order Verbs
	Cursor   string // of the events; "": the page is not live
	Now      time.Time
}

// view is what a template gets.
type view struct {
	Frame
	Title   string
	Section string // of the navigation
	Page    any
}

var funcs = template.FuncMap{
	"asset":   func(name string) string { return Assets[name].Path },
	"ago":     Ago,
	"utc":     func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
	"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"tone":    func(what any) string { return tone(fmt.Sprint(what)) },
	"words":   func(what any) string { return words(fmt.Sprint(what)) },
	"count":   count,
	"address": address,
	"hash":    shortHash,
	"title":   title,
}

var templates = func() map[string]*template.Template {
	set := map[string]*template.Template{}
	for _, name := range []string{"fleet", "nodes", "node", "order", "vips", "vip", "events", "login", "message"} {
		set[name] = template.Must(template.New("base.html").Funcs(funcs).ParseFS(files, "assets/base.html", "assets/"+name+".html"))
	}
	return set
}()

// render executes the template name. What fails is a fault of the template.
func render(name string, v view) []byte {
	var text bytes.Buffer
	if err := templates[name].Execute(&text, v); err != nil {
		panic(fmt.Errorf("page %s: %w", name, err))
	}
	return text.Bytes()
}

// Login is the form that asks for a token. next is where it leads, wrong says what was
// wrong with the last try, plain that it goes over the network in plain text.
func Login(f Frame, next, wrong string, plain bool) []byte {
	f.Cursor = ""
	return render("login", view{f, "Sign in", "", struct {
		Next, Wrong string
		Plain       bool
	}{next, wrong, plain}})
}

// Message is a page with a title and some words.
func Message(f Frame, title, text string) []byte {
	f.Cursor = ""
	return render("message", view{f, title, "", text})
}

// Ago is how long before now t was, in a few letters.
func Ago(now, t time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "never"
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
}

// tone is the class of a word that tells how something stands.
func tone(word string) string {
	switch word {
	case string(node.Active), string(node.Online), string(node.InSync), node.VIPAnnounced, "active", "reloading", "refreshing":
		return "good"
	case string(node.Failed), string(node.Offline), string(node.Unannounced), node.VIPMissing, "failed":
		return "bad"
	case string(node.Drifted), node.VIPDrained, node.VIPLowered, node.VIPWithdrawn, "inactive", "deactivating", "maintenance", "waiting", "held":
		return "warn"
	case string(node.Provisioning), "activating":
		return "busy"
	default:
		return "idle"
	}
}

// words is a name of the API in words.
func words(name string) string {
	switch name {
	case string(node.InSync):
		return "in sync"
	case "vip_unannounced":
		return "VIP unannounced"
	case "vip_announced":
		return "VIP announced"
	default:
		return name
	}
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// shortHash is the beginning of a configuration's hash: enough to tell one from another.
func shortHash(hash string) string {
	const kept = len("sha256:") + 16
	if len(hash) <= kept {
		return hash
	}
	return hash[:kept] + "…"
}
