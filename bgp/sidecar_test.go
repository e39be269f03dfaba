package bgp_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/internal/netnstest"
	"github.com/centra/plasmacloud/bgp/vip"
)

func TestMain(m *testing.M) { gobgpdtest.Main(m) }

// site is one node under test: a real gobgpd with a session to a router, a network
// namespace that holds the VIPs, and the real announcer binary.
type site struct {
	t      *testing.T
	router *gobgpdtest.Router
	daemon *gobgpdtest.Daemon
	ns     *netnstest.NS
	holder *vip.Netlink
	file   string
	extra  object   // of announcer.json, beside what configure says
	env    []string // of the announcer, beside ours

	cmd    *exec.Cmd
	exited chan struct{}
	mu     sync.Mutex
	log    []logLine
}

type logLine struct {
	Msg   string `json:"msg"`
	Error string `json:"error"`
	Took  int64  `json:"took"` // of a pass, in nanoseconds
	text  string
}

func newSite(t *testing.T, cfg gobgpdtest.Config) *site {
	t.Helper()
	asn := cfg.PeerASN
	if asn == 0 {
		asn = gobgpdtest.RouterASN
	}
	s := &site{t: t, ns: netnstest.New(t), router: gobgpdtest.StartRouterOf(t, asn, cfg.RouterExtra), file: filepath.Join(t.TempDir(), "announcer.json")}
	cfg.Peers = []netip.AddrPort{s.router.BGP}
	s.daemon = gobgpdtest.Start(t, cfg)
	var err error
	if s.holder, err = vip.Open(vip.Config{Interface: "lo", NetNS: s.ns.Path}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.holder.Close() })
	s.router.WaitEstablished(t)
	return s
}

// object is a piece of announcer.json.
type object map[string]any

// configure writes announcer.json with these VIPs.
func (s *site) configure(vips ...object) {
	s.t.Helper()
	config := object{
		"schema_version": 1, "node_id": "node01", "asn": gobgpdtest.SpeakerASN,
		"speaker":     object{"address": s.daemon.API, "timeout": "500ms"},
		"hold":        object{"interface": "lo", "netns": s.ns.Path},
		"drain_delay": drainDelay.String(), "reconcile_interval": "1s",
		"vips": vips,
	}
	maps.Copy(config, s.extra)
	data, err := json.Marshal(config)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.file, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

const drainDelay = 400 * time.Millisecond

// start runs the announcer.
func (s *site) start() {
	s.t.Helper()
	s.cmd = exec.Command(gobgpdtest.Build(s.t, "github.com/centra/plasmacloud/cmd/plasmacloud-announcer"), "run", "--config", s.file, "--control", s.socket(), "--drains", s.file+".drains", "--last", s.file+".last", "--sysctls", s.file+".sysctls", "--log-format", "json", "--log-level", "debug")
	s.cmd.Env = append(os.Environ(), s.env...)
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := gobgpdtest.StartProcess(s.cmd); err != nil {
		s.t.Fatal(err)
	}
	cmd, exited := s.cmd, make(chan struct{})
	s.exited = exited
	s.mu.Lock()
	s.log = nil
	s.mu.Unlock()
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			line := logLine{text: lines.Text()}
			_ = json.Unmarshal(lines.Bytes(), &line)
			s.mu.Lock()
			s.log = append(s.log, line)
			s.mu.Unlock()
		}
		_ = cmd.Wait()
		close(exited)
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		_ = os.Remove(s.socket())
		if s.t.Failed() {
			for _, l := range s.logged() {
				s.t.Log(l.text)
			}
		}
	})
}

// socket is where the announcer is controlled; it is shorter than t.TempDir().
func (s *site) socket() string { return filepath.Join("/run", filepath.Base(s.ns.Path)+".sock") }

func (s *site) logged() []logLine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]logLine(nil), s.log...)
}

// count is how many lines with that message the announcer has logged.
func (s *site) count(msg string) int {
	n := 0
	for _, l := range s.logged() {
		if l.Msg == msg {
			n++
		}
	}
	return n
}

func (s *site) waitLog(msg string, times int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("log says %q %d times", msg, times), func() error {
		if n := s.count(msg); n < times {
			return fmt.Errorf("said it %d times", n)
		}
		return nil
	})
}

func (s *site) signal(sig syscall.Signal) { _ = s.cmd.Process.Signal(sig) }

// crash ends the announcer with no chance to clean up.
func (s *site) crash() {
	s.signal(syscall.SIGKILL)
	<-s.exited
}

// wait returns the announcer's exit status.
func (s *site) wait() int {
	s.t.Helper()
	select {
	case <-s.exited:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(gobgpdtest.Wait):
		s.t.Fatal("the announcer does not end")
		return 0
	}
}

func (s *site) eventually(what string, ok func() error) {
	s.t.Helper()
	gobgpdtest.Eventually(s.t, what, ok)
}

// waitRoutes returns when the router has exactly these host routes from the speaker.
func (s *site) waitRoutes(vips ...string) {
	s.t.Helper()
	want := map[netip.Prefix]bool{}
	for _, v := range vips {
		a := netip.MustParseAddr(v)
		want[netip.PrefixFrom(a, a.BitLen())] = true
	}
	s.eventually(fmt.Sprint("router has ", vips), func() error {
		learned := s.router.Learned(s.t)
		if len(learned) != len(want) {
			return fmt.Errorf("has %v", learned)
		}
		for p := range learned {
			if !want[p] {
				return fmt.Errorf("has %v", learned)
			}
		}
		return nil
	})
}

func (s *site) held() vip.Held {
	s.t.Helper()
	a, err := s.holder.List(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// waitHeld returns when exactly these addresses carry our mark.
func (s *site) waitHeld(vips ...string) {
	s.t.Helper()
	s.eventually(fmt.Sprint("host holds ", vips), func() error {
		own := s.held().Own
		for _, v := range vips {
			if own[netip.MustParseAddr(v)] == vip.None {
				return fmt.Errorf("holds %v", own)
			}
		}
		if len(own) != len(vips) {
			return fmt.Errorf("holds %v", own)
		}
		return nil
	})
}

// removals collects when addresses leave the host from now on.
func (s *site) removals() *removals {
	s.t.Helper()
	ns, err := netns.GetFromPath(s.ns.Path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer ns.Close()
	r := &removals{s: s, at: map[netip.Addr]time.Time{}}
	updates, done := make(chan netlink.AddrUpdate, 100), make(chan struct{})
	if err := netlink.AddrSubscribeAt(ns, updates, done); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { close(done) })
	go func() {
		for u := range updates {
			if a, ok := netip.AddrFromSlice(u.LinkAddress.IP); ok && !u.NewAddr {
				r.mu.Lock()
				r.at[a.Unmap()] = time.Now()
				r.mu.Unlock()
			}
		}
	}()
	return r
}

type removals struct {
	s  *site
	mu sync.Mutex
	at map[netip.Addr]time.Time
}

func (r *removals) of(vip string) (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.at[netip.MustParseAddr(vip)]
	return at, ok
}

// wait is when vip left the host; the event may come a little after the fact.
func (r *removals) wait(vip string) (at time.Time) {
	r.s.t.Helper()
	r.s.eventually("removal of "+vip+" is seen", func() error {
		var ok bool
		if at, ok = r.of(vip); !ok {
			return fmt.Errorf("not seen")
		}
		return nil
	})
	return at
}

// service is what a check asks; tests make it good or bad.
type service struct {
	*httptest.Server
	bad   atomic.Bool
	asked atomic.Int64
}

func newService(t *testing.T) *service {
	s := &service{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.asked.Add(1)
		if s.bad.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// check is the service's entry in announcer.json. On a busy machine some answers
// are late, which is not what the tests are about.
func (s *service) check() object {
	return object{"type": "http", "url": s.URL + "/healthz", "interval": "50ms", "timeout": "50ms", "rise": 2, "fall": 10}
}
