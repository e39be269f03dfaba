package labcluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// clientPort is where clients pull through a VIP, and where stands in what a lab
// cannot ask.
const clientPort = "80"

// service is what stands in for the services of a node: it answers every request
// on clientPort with the node's name, and each check where the check asks.
type service struct {
	mu        sync.Mutex
	failed    map[string]bool // by path, or by address of a tcp check; "" is all
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
	tcp    bool // a check wants no more than a connection
	server *http.Server
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
				path = "/instead/" + fmt.Sprintf("%x", fnv(key))
				checks[i] = instead(check, "http://127.0.0.1:"+clientPort+path)
				n.cluster.instead(fmt.Sprintf("the %s check of %s asks the lab's own service in place of %s", check["type"], vip["address"], target))
				changed = true
				continue
			}
			if s.listeners[address] == nil {
				s.listeners[address] = &listener{}
			}
			wanted[address] = true
			if path == "" {
				s.listeners[address].tcp = true
			} else {
				s.answers[path] = a
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
	if wanted := "[::]:" + clientPort; s.listeners[wanted] == nil {
		s.listeners[wanted] = &listener{}
	}
	if !changed {
		return text, nil
	}
	return json.MarshalIndent(file, "", "  ")
}

// answerable tells where the service has to listen so that a check is answered,
// and what with; the path is empty for one that wants a connection only.
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
	if port == clientPort {
		return "[::]:" + clientPort, a, path, true
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

func fnv(text []byte) (hash uint32) {
	hash = 2166136261
	for _, b := range text {
		hash = (hash ^ uint32(b)) * 16777619
	}
	return hash
}

// serve lets the service listen wherever it does not yet.
func (n *Node) serve() error {
	s := &n.service
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = false
	if s.listeners == nil {
		s.failed, s.asked = map[string]bool{}, map[string]int{}
		s.listeners = map[string]*listener{"[::]:" + clientPort: {}}
	}
	return n.listen()
}

// listen opens what is to be open, with the lock held.
func (n *Node) listen() error {
	s := &n.service
	var errs []error
	for address, l := range s.listeners {
		refuses := s.off || l.tcp && (s.failed[""] || s.failed[address])
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
	path := r.URL.RequestURI()
	s.asked[path]++
	failed := s.failed[""] || s.failed[path]
	a, known := s.answers[path]
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

// Fail makes the service refuse, or answer again, a path, or all if it is empty.
// For a check that wants no more than a connection, the path is its address.
func (n *Node) Fail(path string, fails bool) error {
	n.service.mu.Lock()
	defer n.service.mu.Unlock()
	n.service.failed[path] = fails
	return n.listen()
}

// Asked is how often each path was asked for.
func (n *Node) Asked() map[string]int {
	n.service.mu.Lock()
	defer n.service.mu.Unlock()
	counts := map[string]int{}
	for path, count := range n.service.asked {
		counts[path] = count
	}
	return counts
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
