// Package gobgpdtest runs real gobgpd processes, built from the module graph, one
// as the speaker and one as its router, for the tests of the packages beside it.
// (Two in-process GoBGP would share variables of the library, which is a data race.)
package gobgpdtest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/speaker"
)

// The two ends of a session, on loopback. Ports are each test's own.
var (
	SpeakerAddr = netip.MustParseAddr("127.0.1.1")
	RouterAddr  = netip.MustParseAddr("127.0.1.2")
)

// The ASNs of the two ends.
const (
	SpeakerASN = 65001
	RouterASN  = 65100
)

// Wait is how long a test waits for something that should happen soon.
const Wait = time.Minute

var built struct {
	mu       sync.Mutex
	dir      string
	binaries map[string]func() error // by file: makes it, once
}

// Main runs the tests of a package, and removes what Build built.
func Main(m *testing.M) {
	flag.Parse()
	// The tests wait for daemons more than they compute, on however few processors.
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set(strconv.Itoa(max(12, runtime.NumCPU())))
	}
	status := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// Build is the binary of a main package, built once per test binary. It has no symbols,
// since to link them is most of the time.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	file, build := binary(t, pkg)
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return file
}

func binary(t testing.TB, pkg string) (file string, build func() error) {
	t.Helper()
	built.mu.Lock()
	defer built.mu.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "gobgpdtest")
		if err != nil {
			t.Fatal(err)
		}
		built.dir, built.binaries = dir, map[string]func() error{}
	}
	file = filepath.Join(built.dir, strings.ReplaceAll(pkg, "/", "_")) // both generations' base is gobgpd
	if built.binaries[file] == nil {
		built.binaries[file] = sync.OnceValue(func() error {
			if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", file, pkg).CombinedOutput(); err != nil {
				return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
			}
			return nil
		})
	}
	return file, built.binaries[file]
}

var starters struct {
	once sync.Once
	jobs chan func()
}

// StartProcess starts cmd so that it dies with the tests. The kernel ties that to
// the thread that started it, not to the process (PR_SET_PDEATHSIG, prctl(2)), so
// all are started by one thread that never ends.
func StartProcess(cmd *exec.Cmd) error {
	starters.once.Do(func() {
		starters.jobs = make(chan func())
		go func() {
			runtime.LockOSThread()
			for job := range starters.jobs {
				job()
			}
		}()
	})
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	starters.jobs <- func() { started <- cmd.Start() }
	return <-started
}

// FreePort is a TCP port of address that nothing listens on. It is below the
// range that the kernel gives to outgoing connections, one of which could take
// it while a daemon that is started again is away.
func FreePort(t testing.TB, address string) int {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatalf("no free port at %s", address)
	return 0
}

// Daemon is a gobgpd.
type Daemon struct {
	API string         // address of its gRPC API, as a client wants it
	BGP netip.AddrPort // where it listens

	t          testing.TB
	generation Generation
	asn        uint32
	config     string
	args       []string
	cmd        *exec.Cmd
	exited     chan struct{}
	log        *bytes.Buffer
}

// Config is what differs between the tests' speakers.
type Config struct {
	Generation      Generation       // "": V4
	ASN             uint32           // 0: SpeakerASN
	Peers           []netip.AddrPort // routers, which the daemon dials
	PeerASN         uint32           // 0: RouterASN
	GracefulRestart bool
	Extra           string // more TOML, after the global section
	RouterExtra     string // the same of the router, for who starts both
	Unix            bool   // the API is on a Unix socket
	Args            []string
}

// Start runs a speaker and returns when its API listens.
func Start(t testing.TB, cfg Config) *Daemon {
	t.Helper()
	if cfg.ASN == 0 {
		cfg.ASN = SpeakerASN
	}
	if cfg.Generation == "" {
		cfg.Generation = V4
	}
	if cfg.PeerASN == 0 {
		cfg.PeerASN = RouterASN
	}
	d := newDaemon(t, cfg.Generation, SpeakerAddr, cfg.ASN)
	d.args = cfg.Args
	if cfg.Unix {
		dir, err := os.MkdirTemp("", "gobgpd") // t.TempDir() may be too long for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		d.API = "unix://" + dir + "/api"
	}
	text := d.global() + cfg.Extra + "\n"
	for _, peer := range cfg.Peers {
		text += neighbor(peer.Addr(), cfg.PeerASN, cfg.GracefulRestart)
		text += fmt.Sprintf("[neighbors.transport.config]\nremote-port = %d\nlocal-address = %q\n", peer.Port(), SpeakerAddr)
	}
	d.start(text)
	return d
}

func newDaemon(t testing.TB, generation Generation, address netip.Addr, asn uint32) *Daemon {
	t.Helper()
	host := address.String()
	return &Daemon{
		API:        net.JoinHostPort(host, strconv.Itoa(FreePort(t, host))),
		BGP:        netip.AddrPortFrom(address, uint16(FreePort(t, host))),
		t:          t,
		generation: generation,
		asn:        asn,
		config:     filepath.Join(t.TempDir(), "gobgpd.toml"),
	}
}

func (d *Daemon) global() string {
	return fmt.Sprintf("[global.config]\nas = %d\nrouter-id = %q\nport = %d\nlocal-address-list = [%q]\n",
		d.asn, d.BGP.Addr(), d.BGP.Port(), d.BGP.Addr())
}

func neighbor(address netip.Addr, asn uint32, gracefulRestart bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[[neighbors]]\n[neighbors.config]\nneighbor-address = %q\npeer-as = %d\n", address, asn)
	fmt.Fprint(&b, "[neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n")
	fmt.Fprintf(&b, "[neighbors.graceful-restart.config]\nenabled = %t\nrestart-time = 30\n", gracefulRestart)
	for _, family := range []string{"ipv4-unicast", "ipv6-unicast"} {
		fmt.Fprintf(&b, "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = %q\n", family)
		fmt.Fprintf(&b, "[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = %t\n", gracefulRestart)
	}
	return b.String()
}

func (d *Daemon) start(config string) {
	d.t.Helper()
	if err := os.WriteFile(d.config, []byte(config), 0o600); err != nil {
		d.t.Fatal(err)
	}
	d.Run()
	d.t.Cleanup(func() {
		d.Kill()
		if d.t.Failed() && testing.Verbose() {
			d.t.Logf("gobgpd of AS %d said:\n%s", d.asn, d.log)
		}
	})
}

// Run starts the process, again after Kill or Terminate.
func (d *Daemon) Run(args ...string) {
	d.t.Helper()
	d.log = &bytes.Buffer{}
	network, address := "tcp", d.API
	if path, ok := strings.CutPrefix(d.API, "unix://"); ok {
		network, address = "unix", path
		_ = os.Remove(path) // as RuntimeDirectory= does; gobgpd does not
	}
	args = slices.Concat([]string{"-f", d.config, "--api-hosts", d.API, "--pprof-disable", "--metrics-path="}, d.args, args)
	d.cmd = exec.Command(d.generation.binary(d.t), args...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := StartProcess(d.cmd); err != nil {
		d.t.Fatal(err)
	}
	exited := make(chan struct{})
	d.exited = exited
	cmd := d.cmd
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	Eventually(d.t, "gobgpd's API listens", func() error {
		conn, err := net.Dial(network, address)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// Replace runs the process as another generation from now on, as an upgrade does.
func (d *Daemon) Replace(generation Generation) {
	d.t.Helper()
	d.Terminate()
	d.generation = generation
	d.Run()
}

// Signal sends sig to the process.
func (d *Daemon) Signal(sig syscall.Signal) { _ = d.cmd.Process.Signal(sig) }

// Kill ends the process as a crash would.
func (d *Daemon) Kill() { d.end(syscall.SIGKILL) }

// Terminate ends the process as its service manager would.
func (d *Daemon) Terminate() { d.end(syscall.SIGTERM) }

func (d *Daemon) end(sig syscall.Signal) {
	d.Signal(sig)
	<-d.exited
}

// Client is a client of the daemon that expects SpeakerASN.
func (d *Daemon) Client(timeout time.Duration) *speaker.GoBGP {
	d.t.Helper()
	return Client(d.t, d.API, SpeakerASN, timeout)
}

// Client is a client of the daemon at api.
func Client(t testing.TB, api string, asn uint32, timeout time.Duration) *speaker.GoBGP {
	t.Helper()
	c, err := speaker.Dial(speaker.Config{Address: api, ASN: asn, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Router is the other end of the session, and a client of it. It waits to be dialled.
type Router struct {
	*Daemon
	*speaker.GoBGP
}

// StartRouter runs a router for one speaker, with graceful restart on offer. It is
// always of v3, so that what two generations of speakers send is seen by the same eyes.
func StartRouter(t testing.TB) *Router {
	t.Helper()
	return StartRouterOf(t, RouterASN, "")
}

// StartInternalRouter runs a router of the speaker's own AS, which is told local preferences.
func StartInternalRouter(t testing.TB) *Router {
	t.Helper()
	return StartRouterOf(t, SpeakerASN, "")
}

// StartRouterOf is StartRouter with an AS and more TOML, after the global section.
func StartRouterOf(t testing.TB, asn uint32, extra string) *Router {
	t.Helper()
	d := newDaemon(t, V3, RouterAddr, asn)
	d.start(d.global() + extra + "\n" + neighbor(SpeakerAddr, SpeakerASN, true) + "[neighbors.transport.config]\npassive-mode = true\n")
	r := &Router{d, Client(t, d.API, asn, 5*time.Second)}
	Eventually(t, "router is configured", func() error {
		peers, err := r.Peers(t.Context())
		if err == nil && len(peers) == 0 {
			err = errors.New("no peer yet")
		}
		return err
	})
	return r
}

// Learned is the router's routes from its peer, by prefix; stale ones are left out.
func (r *Router) Learned(t testing.TB) map[netip.Prefix]speaker.Route {
	t.Helper()
	routes, err := r.Routes(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	learned := map[netip.Prefix]speaker.Route{}
	for _, route := range routes {
		if route.Peer.IsValid() && !route.Stale {
			learned[route.Prefix] = route
		}
	}
	return learned
}

// Updates is how many UPDATE messages the router has received.
func (r *Router) Updates(t testing.TB) uint64 {
	t.Helper()
	peers, err := r.Peers(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return peers[0].Received.Updates
}

// WaitEstablished returns when the session is up.
func (r *Router) WaitEstablished(t testing.TB) {
	t.Helper()
	Eventually(t, "session established", func() error {
		peers, err := r.Peers(t.Context())
		if err == nil && !peers[0].Established {
			err = fmt.Errorf("state is %s", peers[0].State)
		}
		return err
	})
}

// Eventually asks until ok is nil, and fails the test after Wait. What takes long to
// ask is asked less often, so that it leaves room for what it waits for.
func Eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(Wait)
	for {
		began := time.Now()
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, Wait, err)
		}
		time.Sleep(max(10*time.Millisecond, 2*time.Since(began))) // between two looks; the deadline decides
	}
}
