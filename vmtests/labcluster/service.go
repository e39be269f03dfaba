package labcluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// clientPort is where clients pull through a VIP, and where stands in what a lab
// cannot ask.
const clientPort = "80"

// service is what stands in for the services of a node: it answers every request
// on clientPort with the node's name, and each check where the check asks. A check is
// named by what it asks: 127.0.0.1:8080/healthz, or the address alone of a tcp check.
type service struct {
	mu        sync.Mutex
	failed    map[string]bool // by check; "" is all
	asked     map[string]int
	answers   map[string]answer
	listeners map[string]*listener // by address
	off       bool
}

// answer is what a check wants to see.
type answer struct {
	status int
	body   string
}

type listener struct {
	tcp    []string // the checks that want no more than a connection
	server *http.Server
}

// clientAddress is every address of the node, VIPs too.
const clientAddress = "[::]:" + clientPort

// listens is where the service listens to be asked at an address.
func listens(address string) string {
	if _, port, _ := net.SplitHostPort(address); port == clientPort {
		return clientAddress
	}
	return address
}

var firstNumber = regexp.MustCompile(`[0-9]{3}`)

// forThisHost is announcer.json with what cannot be asked here replaced; a file
// all of whose checks the service can answer stays as it is.
func (n *Node) forThisHost(text []byte) ([]byte, error) {
	n.service.mu.Lock()
	defer n.service.mu.Unlock()
	s := &n.service
	if s.failed == nil {
		s.failed, s.asked, s.listeners = map[string]bool{}, map[string]int{}, map[string]*listener{}
	}
	s.answers = map[string]answer{}
	for _, l := range s.listeners {
		l.tcp = nil
	}
	wanted := map[string]bool{}
	var file map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&file); err != nil {
		return nil, fmt.Errorf("announcer.json of %s: %w", n.ID, err)
	}
	changed := false
	vips, _ := file["vips"].([]any)
	for _, entry := range vips {
		vip, _ := entry.(map[string]any)
		if delay, has := vip["start_delay"]; has {
			n.cluster.instead(fmt.Sprintf("%s is announced as soon as its checks are up, without its start delay of %s", vip["address"], delay))
			delete(vip, "start_delay")
			changed = true
		}
		checks, _ := vip["checks"].([]any)
		for i, c := range checks {
			check, _ := c.(map[string]any)
			address, a, path, ok := n.answerable(check)
			if !ok {
				key, _ := json.Marshal(check)
				target := firstOf(check, "url", "address", "command", "unit")
				hash := fnv.New32a()
				hash.Write(key)
				name := fmt.Sprintf("127.0.0.1:%s/instead/%x", clientPort, hash.Sum32())
				checks[i] = instead(check, "http://"+name)
				s.answers[name] = answer{status: http.StatusOK}
				n.cluster.instead(fmt.Sprintf("the %s check of %s asks the lab's own service in place of %s", check["type"], vip["address"], target))
				changed = true
				continue
			}
			at := listens(address)
			if s.listeners[at] == nil {
				s.listeners[at] = &listener{}
			}
			wanted[at] = true
			if path == "" {
				s.listeners[at].tcp = append(s.listeners[at].tcp, address)
			} else {
				s.answers[address+path] = a
			}
		}
	}
	if hold, _ := file["hold"].(map[string]any); hold != nil {
		if name, _ := hold["interface"].(string); name != "" && name != "lo" && name != "eth0" {
			if _, err := n.IP("link", "show", name); err != nil {
				// Not every kernel has dummies; a bridge without ports is as good.
				if _, err := n.IP("link", "add", name, "up", "type", "bridge"); err != nil {
					return nil, fmt.Errorf("hold interface of %s: %w", n.ID, err)
				}
				n.cluster.instead(fmt.Sprintf("the interface %s that holds VIPs is a bridge with no ports", name))
			}
		}
	}
	for address, l := range s.listeners {
		if !wanted[address] && l.server == nil {
			delete(s.listeners, address)
		}
	}
	if s.listeners[clientAddress] == nil {
		s.listeners[clientAddress] = &listener{}
	}
	maps.DeleteFunc(s.asked, func(name string, _ int) bool { _, still := s.answers[name]; return !still })
	if !changed {
		return text, nil
	}
	return json.MarshalIndent(file, "", "  ")
}

// answerable tells which address of the node a check asks, and what is to be answered;
// the path is empty for one that wants a connection only.
func (n *Node) answerable(check map[string]any) (address string, a answer, path string, ok bool) {
	a.status = http.StatusOK
	switch check["type"] {
	case "tcp":
		address, _ = check["address"].(string)
	case "http":
		if check["body_regex"] != nil {
			return "", a, "", false
		}
		text, _ := check["url"].(string)
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" {
			return "", a, "", false
		}
		address, path = u.Host, u.RequestURI()
		if u.Port() == "" {
			address = net.JoinHostPort(u.Hostname(), "80")
		}
		if statuses, _ := check["status"].([]any); len(statuses) > 0 {
			a.status, _ = strconv.Atoi(firstNumber.FindString(fmt.Sprint(statuses[0])))
		}
		a.body, _ = check["body"].(string)
	default:
		return "", a, "", false
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", a, "", false
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() && ip != n.place[0] && ip != n.place[1] {
		return "", a, "", false
	}
	return net.JoinHostPort(ip.String(), port), a, path, true
}

// instead is a check with the patience of another one.
func instead(check map[string]any, url string) map[string]any {
	other := map[string]any{"type": "http", "url": url}
	for _, key := range []string{"interval", "fast_interval", "timeout", "rise", "fall"} {
		if value, has := check[key]; has {
			other[key] = value
		}
	}
	return other
}

func firstOf(check map[string]any, keys ...string) string {
	for _, key := range keys {
		if value, has := check[key]; has {
			return fmt.Sprint(value)
		}
	}
	return "its target"
}

// serve lets the service listen wherever it does not yet.
func (n *Node) serve() error {
	s := &n.service
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = false
	if s.listeners == nil {
		s.failed, s.asked = map[string]bool{}, map[string]int{}
		s.listeners = map[string]*listener{clientAddress: {}}
	}
	return n.listen()
}

// listen opens what is to be open, with the lock held.
func (n *Node) listen() error {
	s := &n.service
	var errs []error
	for address, l := range s.listeners {
		refuses := s.off || len(l.tcp) > 0 && s.failed[""] || slices.ContainsFunc(l.tcp, func(name string) bool { return s.failed[name] })
		if refuses {
			l.stop()
			continue
		}
		if l.server != nil {
			continue
		}
		socket, err := n.Listen("tcp", address)
		if err != nil {
			errs = append(errs, fmt.Errorf("service of %s: %w", n.ID, err))
			continue
		}
		l.server = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(n.answer)}
		l.server.SetKeepAlivesEnabled(false) // or a check would go on over an old connection
		go func(server *http.Server) { _ = server.Serve(socket) }(l.server)
	}
	return errors.Join(errs...)
}

func (l *listener) stop() {
	if l.server != nil {
		_ = l.server.Close()
		l.server = nil
	}
}

func (n *Node) answer(w http.ResponseWriter, r *http.Request) {
	s := &n.service
	s.mu.Lock()
	name := askedAt(r) + r.URL.RequestURI()
	if _, known := s.answers[name]; !known { // a check of localhost may come to ::1
		if rest, is := strings.CutPrefix(name, "[::1]:"); is {
			name = "127.0.0.1:" + rest
		}
	}
	failed := s.failed[""] || s.failed[name]
	a, known := s.answers[name]
	if known { // a client asks at a VIP, which no check does
		s.asked[name]++
	}
	s.mu.Unlock()
	switch {
	case failed:
		w.WriteHeader(http.StatusServiceUnavailable)
	case known:
		w.WriteHeader(a.status)
		if a.status != http.StatusNoContent && a.status != http.StatusNotModified {
			fmt.Fprintln(w, a.body)
		}
	default:
		fmt.Fprintln(w, n.ID)
	}
}

// askedAt is the address that a request came to.
func askedAt(r *http.Request) string {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	at, err := netip.ParseAddrPort(fmt.Sprint(local))
	if err != nil {
		return ""
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String()
}

// stop ends the service until [Node.serve].
func (s *service) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = true
	for _, l := range s.listeners {
		l.stop()
	}
}

func (s *service) close() { s.stop() }

// Fail makes the service refuse, or answer again: all that is asked if which is empty, or
// one check, such as 127.0.0.1:8080/healthz, or the address alone of a tcp check, or all of
// a path at whatever address, such as /healthz.
func (n *Node) Fail(which string, fails bool) error {
	s := &n.service
	s.mu.Lock()
	defer s.mu.Unlock()
	names := slices.Collect(maps.Keys(s.answers))
	for _, l := range s.listeners {
		names = append(names, l.tcp...)
	}
	chosen := []string{""}
	if which != "" {
		chosen = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			return name != strings.Replace(which, "localhost:", "127.0.0.1:", 1) && pathOf(name) != which
		})
	}
	if len(chosen) == 0 {
		slices.Sort(names)
		return fmt.Errorf("no check of %s asks %s; they ask: %s", n.ID, which, strings.Join(names, ", "))
	}
	for _, name := range chosen {
		s.failed[name] = fails
	}
	return n.listen()
}

// pathOf is the path in the name of a check, "" for one of tcp.
func pathOf(name string) string {
	_, path, has := strings.Cut(name, "/")
	if !has {
		return ""
	}
	return "/" + path
}

// Asked is how often each check by HTTP has asked.
func (n *Node) Asked() map[string]int {
	n.service.mu.Lock()
	defer n.service.mu.Unlock()
	return maps.Clone(n.service.asked)
}

// instead notes once what is not as in the data centre.
func (c *Cluster) instead(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, before := range c.Instead {
		if before == what {
			return
		}
	}
	c.Instead = append(c.Instead, what)
}
