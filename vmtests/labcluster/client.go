package labcluster

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// Client is a host behind the routers that asks for VIPs, by each router from an
// address of its own.
type Client struct {
	Host *lab.Host
	Via  []string // the routers that it can ask by

	sources map[string]place
	timeout time.Duration // of a request
	atOnce  int           // requests of a pull; 0: any number
	mu      sync.Mutex
	pulls   []*Pull
}

// wireClient joins the client to every router that forwards.
func (c *Cluster) wireClient() error {
	host, err := c.Lab.Host(c.topology.own("client"))
	if err != nil {
		return err
	}
	client := &Client{Host: host, sources: map[string]place{}, timeout: cmp.Or(c.cfg.Requests, requestTimeout), atOnce: c.cfg.AtOnce}
	var errs []error
	for i, name := range c.RouterNames() {
		r := c.Routers[name]
		if !r.config.Forwards {
			continue
		}
		end := func(last int) place {
			return place{netip.MustParseAddr(fmt.Sprintf(clientNet, i, last)), netip.MustParseAddr(fmt.Sprintf(clientV6, i, last))}
		}
		own, gateway := end(2), end(1)
		if err := c.Lab.Link(host, own.prefixes(), r.Host, gateway.prefixes()); err != nil {
			return err
		}
		errs = append(errs, setSysctl(r.Host, forwarding...))
		table := fmt.Sprint(100 + i)
		for f, a := range own {
			_, err := host.IP([]string{"-4", "-6"}[f], "rule", "add", "from", a.String(), "table", table)
			errs = append(errs, err, host.Batch(fmt.Sprintf("route add default via %s table %s", gateway[f], table)))
		}
		for _, id := range r.topology.site.nodes {
			var lines []string
			for f, network := range own.prefixes() {
				if via := r.topology.place[f]; via.IsValid() && c.topology.nodes[id][f].IsValid() {
					lines = append(lines, fmt.Sprintf("route replace %s via %s", network.Masked(), via))
				}
			}
			errs = append(errs, c.Nodes[id].Batch(lines...))
		}
		client.Via = append(client.Via, name)
		client.sources[name] = own
	}
	c.Client = client
	return errors.Join(errs...)
}

// Request is one that a client made.
type Request struct {
	At    time.Time
	Took  time.Duration
	Node  string // that answered
	Moved bool   // its connection was broken on the way, and it was made once more
	Err   error  // it was lost
}

// Pull asks for one VIP again and again.
type Pull struct {
	VIP    netip.Addr
	Router string

	stop chan struct{}
	once sync.Once
	done sync.WaitGroup
	mu   sync.Mutex
	made []Request
}

// requestTimeout is how long a request may take unless told otherwise; one that takes longer is lost.
const requestTimeout = 2 * time.Second

// Pull starts to ask for the VIP by the router, so often. Each request has a connection of its own.
func (c *Client) Pull(vip netip.Addr, router string, every time.Duration) (*Pull, error) {
	source, has := c.sources[router]
	if !has {
		return nil, fmt.Errorf("no client is behind router %s; there is one behind: %s", router, strings.Join(c.Via, ", "))
	}
	p := &Pull{VIP: vip, Router: router, stop: make(chan struct{})}
	c.mu.Lock()
	c.pulls = append(c.pulls, p)
	c.mu.Unlock()
	p.done.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		var underWay atomic.Int64
		for {
			select {
			case <-p.stop:
				return
			case <-tick.C:
			}
			if c.atOnce > 0 && underWay.Load() >= int64(c.atOnce) {
				continue
			}
			underWay.Add(1)
			p.done.Go(func() {
				defer underWay.Add(-1)
				r := Request{At: time.Now()}
				r.Node, r.Err = c.ask(source[family(vip)], vip)
				if errors.Is(r.Err, errMoved) {
					r.Moved = true
					r.Node, r.Err = c.ask(source[family(vip)], vip)
				}
				r.Took = time.Since(r.At)
				p.mu.Lock()
				defer p.mu.Unlock()
				p.made = append(p.made, r)
			})
		}
	})
	return p, nil
}

// errMoved is what a connection ends with whose packets have begun to go to
// another node, which knows nothing of it: routers do not know connections.
var errMoved = errors.New("the connection was reset")

// Try asks once for the VIP by the router.
func (c *Client) Try(vip netip.Addr, router string) error {
	source, has := c.sources[router]
	if !has {
		return fmt.Errorf("no client is behind router %s; there is one behind: %s", router, strings.Join(c.Via, ", "))
	}
	_, err := c.ask(source[family(vip)], vip)
	return err
}

func (c *Client) ask(from, vip netip.Addr) (node string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	var conn net.Conn
	err = c.Host.Inside(func() error {
		dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		conn, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(vip.String(), clientPort))
		return err
	})
	broken := func(err error) error {
		if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			return errMoved
		}
		return err
	}
	if err != nil {
		return "", broken(err) // also before connect returns
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", vip); err != nil {
		return "", broken(err)
	}
	lines := bufio.NewReader(io.LimitReader(conn, 4096))
	status, err := lines.ReadString('\n')
	if err != nil {
		return "", broken(err)
	}
	if !strings.Contains(status, " 200 ") {
		return "", fmt.Errorf("answered %q", strings.TrimSpace(status))
	}
	rest, err := io.ReadAll(lines)
	if err != nil {
		return "", broken(err)
	}
	_, body, _ := strings.Cut(string(rest), "\r\n\r\n")
	return strings.TrimSpace(body), nil
}

// Stop ends the pull, and returns what was asked, by time.
func (p *Pull) Stop() []Request {
	p.once.Do(func() { close(p.stop) })
	p.done.Wait()
	return p.Requests()
}

// Requests are those made so far, by time.
func (p *Pull) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.Clone(p.made)
	slices.SortFunc(list, func(a, b Request) int { return a.At.Compare(b.At) })
	return list
}

// Tally is what became of requests.
type Tally struct {
	Requests int            `json:"requests"`
	Lost     int            `json:"lost"`
	Moved    int            `json:"moved"`      // answered at the second try, after a reset
	Outage   time.Duration  `json:"outage_ns"`  // the longest time in which requests were lost, some or all, until one was answered
	Silence  time.Duration  `json:"silence_ns"` // the longest time in which none was answered, and some were lost
	Nodes    map[string]int `json:"nodes"`
	First    string         `json:"first_error,omitempty"`
}

// outageEnds is how long all requests must be answered until an outage is over: while it
// hits a part of them, the others are answered.
const outageEnds = 2 * time.Second

// outageLeast is how long a lost request counts as an outage that none is answered after.
const outageLeast = time.Millisecond

// Count counts what became of requests.
func Count(list []Request) Tally {
	t := Tally{Requests: len(list), Nodes: map[string]int{}}
	var good time.Time            // the last answer
	var began, answered time.Time // the outage's first request; the first answer since the last one that was lost
	lost := false
	silence := func(until time.Time) {
		if lost && !good.IsZero() {
			t.Silence = max(t.Silence, until.Sub(good))
		}
	}
	for _, r := range list {
		if r.Err != nil {
			if t.Lost++; t.First == "" {
				t.First = r.Err.Error()
			}
			if began.IsZero() || !lost && r.At.Sub(answered) > outageEnds {
				began = r.At
			}
			t.Outage = max(t.Outage, r.At.Sub(began)+outageLeast)
			lost = true
			continue
		}
		if lost {
			answered = r.At
			t.Outage = max(t.Outage, r.At.Sub(began))
		}
		if r.Moved {
			t.Moved++
		}
		t.Nodes[r.Node]++
		silence(r.At)
		good, lost = r.At, false
	}
	if len(list) > 0 {
		silence(list[len(list)-1].At)
	}
	return t
}

func (c *Client) close() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pulls {
		p.Stop()
	}
}
