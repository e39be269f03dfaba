package bgp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/centra/plasmacloud/bgp/health"
)

// Limits on what a check is told, in bytes where it is text.
const (
	maxPattern   = 1000
	maxStatuses  = 16
	maxHeaders   = 32
	maxHeader    = 4 << 10
	maxRedirects = 10
	maxWords     = 64
	maxCommand   = 4 << 10
)

// check reads one entry of a VIP's checks.
func (r *reader) check(path string, item any, vip netip.Addr) health.Check {
	o := r.object(path, item)
	c := health.Check{Kind: health.Kind(o.text("type"))}
	var host, field string
	switch c.Kind {
	case health.HTTP:
		field = "url"
		c.URL = o.text(field)
		if c.URL != "" {
			u, err := parseCheckURL(c.URL)
			if err != nil {
				r.add(o.at(field), "%v", err)
			} else {
				host = u.Hostname()
			}
		}
		r.http(o, &c)
	case health.TCP, health.GRPC:
		field = "address"
		c.Address = o.text(field)
		if c.Address != "" {
			if err := checkDialAddress(c.Address, false); err != nil {
				r.add(o.at(field), "%v", err)
			} else {
				host, _, _ = net.SplitHostPort(c.Address)
			}
		}
		if c.Kind == health.GRPC {
			c.Service = o.atMost("service", maxPattern)
			c.TLS = o.flag("tls")
			r.trust(o, &c)
		}
	case health.Exec:
		c.Command = r.command(o)
	case health.Systemd:
		if c.Unit = o.text("unit"); c.Unit != "" && (len(c.Unit) > 255 || !unitName.MatchString(c.Unit)) {
			r.add(o.at("unit"), "%s is no name of a unit; want one with its suffix, such as \"nginx.service\"", quote(c.Unit))
		}
	default:
		if o.has("type") && c.Kind != "" {
			r.add(o.at("type"), "%s is not a type of check; want \"http\", \"tcp\", \"grpc\", \"exec\" or \"systemd\"", quote(string(c.Kind)))
		}
		o.ignoreRest()
	}
	if host != "" && vip.IsValid() {
		switch addr, err := netip.ParseAddr(host); {
		case err != nil:
			c.NotAddr = vip // seen when the name is dialled
		case addr.WithZone("").Unmap() == vip:
			r.add(o.at(field), "dials the VIP itself, which is held only while it is announced; dial the service at 127.0.0.1 or at the node's own address")
		}
	}
	c.Interval = o.duration("interval", 2*time.Second)
	if c.Fast = o.duration("fast_interval", c.Interval); c.Fast == c.Interval {
		c.Fast = 0
	}
	if c.Fast > c.Interval && c.Interval > 0 {
		r.add(o.at("fast_interval"), "%s is longer than the interval, %s; make it at most that", c.Fast, c.Interval)
	}
	c.Timeout = o.duration("timeout", time.Second)
	if c.Timeout > c.Interval && c.Interval > 0 {
		r.add(o.at("timeout"), "%s is longer than the interval, %s; make it at most that", c.Timeout, c.Interval)
	}
	c.Rise = o.count("rise", 2)
	c.Fall = o.count("fall", 3)
	o.end()
	return c
}

var (
	unitName = regexp.MustCompile(`^[0-9A-Za-z:_.\\@-]+\.(service|socket|target|device|mount|automount|swap|timer|path|slice|scope)$`)
	hostName = regexp.MustCompile(`^[0-9A-Za-z._-]{1,253}$`)
)

// http reads what an http check has beside its URL.
func (r *reader) http(o *object, c *health.Check) {
	items := o.optionalList("status")
	if len(items) > maxStatuses {
		r.add(o.at("status"), "has %d entries; at most %d are allowed", len(items), maxStatuses)
		items = nil
	}
	var entries []string
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", o.at("status"), i)
		var entry string
		switch v := item.(type) {
		case string:
			entry = v
		case json.Number:
			entry = v.String()
		default:
			r.add(at, "is %s; want a number such as 204, or a string such as \"200-299\"", kindOf(item))
			continue
		}
		if _, err := health.ParseStatuses([]string{entry}); err != nil {
			r.add(at, "%v", err)
			continue
		}
		entries = append(entries, entry)
	}
	c.Status, _ = health.ParseStatuses(entries)
	c.Body = o.atMost("body", maxPattern)
	if c.BodyRegex = o.atMost("body_regex", maxPattern); c.BodyRegex != "" {
		if _, err := regexp.Compile(c.BodyRegex); err != nil {
			r.add(o.at("body_regex"), "%s is no regular expression of RE2: %s", quote(c.BodyRegex), cut(err.Error(), 100))
		}
	}
	if n := o.optionalNumber("redirects", maxRedirects); n != nil {
		c.Redirects = int(*n)
	}
	c.Headers = r.headers(o.optionalObject("headers"))
	r.trust(o, c)
}

// notHeaders are set by us or by the protocol, or have secrets.
var notHeaders = map[string]string{
	"Host":                "set host instead",
	"Authorization":       "this file is no place for secrets; let the service answer checks without it",
	"Proxy-Authorization": "this file is no place for secrets; let the service answer checks without it",
	"Cookie":              "this file is no place for secrets; let the service answer checks without it",
	"Content-Length":      "a check sends no body; remove it",
	"Transfer-Encoding":   "a check sends no body; remove it",
	"Trailer":             "a check sends no body; remove it",
	"Connection":          "a check's connection is closed after one answer; remove it",
	"Upgrade":             "a check's connection is closed after one answer; remove it",
}

func (r *reader) headers(o *object) health.List {
	if len(o.fields) > maxHeaders {
		r.add(o.path, "has %d entries; at most %d are allowed", len(o.fields), maxHeaders)
		return ""
	}
	var words []string
	seen := map[string]bool{}
	for _, f := range slices.SortedFunc(slices.Values(o.fields), func(a, b field) int { return strings.Compare(a.key, b.key) }) {
		name := f.key
		canonical := http.CanonicalHeaderKey(name)
		value, isText := f.value.(string)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			r.add(o.path, "%s is no name of an HTTP header", quote(name))
		case notHeaders[canonical] != "":
			r.add(o.at(name), "cannot be set; %s", notHeaders[canonical])
		case seen[canonical]:
			r.add(o.at(name), "is there already, in other letters; remove one")
		case !isText:
			r.add(o.at(name), "is %s; want a string", kindOf(f.value))
		case !httpguts.ValidHeaderFieldValue(value) || len(value) > maxHeader:
			r.add(o.at(name), "%s is no value of an HTTP header: want at most %d bytes, and no control characters", quote(value), maxHeader)
		default:
			words = append(words, canonical, value)
		}
		seen[canonical] = true
	}
	return health.ListOf(words...)
}

// trust reads whose name is asked for, and who signs its certificate.
func (r *reader) trust(o *object, c *health.Check) {
	if c.Host = o.textOr("host", ""); c.Host != "" && !hostName.MatchString(c.Host) {
		r.add(o.at("host"), "%s is no name of a host; want one such as \"www.example.org\", without a port", quote(c.Host))
	}
	c.CAFile = o.textOr("ca_file", "")
	switch {
	case c.CAFile == "":
	case !filepath.IsAbs(c.CAFile):
		r.add(o.at("ca_file"), "%s is no absolute path", quote(c.CAFile))
	case c.Kind == health.GRPC && !c.TLS, c.Kind == health.HTTP && !strings.HasPrefix(strings.ToLower(c.URL), "https:"):
		r.add(o.at("ca_file"), "is there, and the check uses no TLS; use https or tls, or remove it")
	}
}

func (r *reader) command(o *object) health.List {
	var words []string
	size := 0
	for i, item := range o.list("command") {
		word, ok := item.(string)
		if !ok || strings.ContainsRune(word, 0) {
			r.add(fmt.Sprintf("%s[%d]", o.at("command"), i), "is %s; want a string without NUL", kindOf(item))
			continue
		}
		words = append(words, word)
		size += len(word) + 1
	}
	switch {
	case len(words) == 0 && o.has("command"):
		r.add(o.at("command"), "names no program; want a list such as [\"/run/current-system/sw/bin/test\", \"-e\", \"/run/ready\"]")
	case len(words) > maxWords || size > maxCommand:
		r.add(o.at("command"), "is too long; at most %d words and %d bytes are allowed", maxWords, maxCommand)
	case len(words) > 0 && !filepath.IsAbs(words[0]):
		r.add(o.at("command"), "%s is no absolute path; there is no shell that would look for it", quote(words[0]))
	}
	return health.ListOf(words...)
}

func parseCheckURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	const want = "want one such as \"http://127.0.0.1:8080/healthz\""
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s is not a URL; %s", quote(s), want)
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, fmt.Errorf("%s is not an http or https URL; %s", quote(s), want)
	case u.User != nil:
		return nil, errors.New("has a user name or password in its URL, and this file is no place for secrets; remove it")
	}
	if p := u.Port(); p != "" {
		if err := checkPort(p); err != nil {
			return nil, fmt.Errorf("%s: %w", quote(s), err)
		}
	}
	return u, nil
}

// checkDialAddress wants host:port, or with unix also unix:///path.
func checkDialAddress(s string, unix bool) error {
	if path, ok := strings.CutPrefix(s, "unix://"); ok && unix {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("%s has no absolute path; want one such as \"unix:///run/gobgpd.sock\"", quote(s))
		}
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || strings.ContainsAny(host, "/ \t\n") {
		return fmt.Errorf("%s is not an address and a port; want one such as \"127.0.0.1:80\" or \"[::1]:80\"", quote(s))
	}
	if err := checkPort(port); err != nil {
		return fmt.Errorf("%s: %w", quote(s), err)
	}
	return nil
}

func checkPort(s string) error {
	if n, err := strconv.ParseUint(s, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %s is not a number from 1 to 65535", quote(s))
	}
	return nil
}

// parseAddr reads an address without prefix length, zone or IPv4-in-IPv6.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil && strings.Contains(s, "/"):
		return a, fmt.Errorf("%s has a prefix length; write the address alone, it is announced as a host prefix", quote(s))
	case err != nil:
		return a, fmt.Errorf("%s is not an IP address; want one such as \"203.0.113.10\" or \"2001:db8::10\"", quote(s))
	case a.Zone() != "":
		return a, fmt.Errorf("%s has a zone; write it without %%%s", quote(s), cut(a.Zone(), 60))
	case a.Is4In6():
		return a, fmt.Errorf("%s is an IPv4 address written as IPv6; write %s", quote(s), a.Unmap())
	}
	return a, nil
}
