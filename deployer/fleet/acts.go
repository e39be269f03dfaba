package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/phonehome"
)

// Act is something that happens to a fleet.
type Act struct {
	Name  string
	About string // in one line
	Play  func(*Fleet, context.Context) ([]Result, error)
}

// Acts are all that there are. Each but the first is for a fleet that has joined.
var Acts = []Act{
	{"join", "all machines boot for the first time, at once", (*Fleet).Join},
	{"reboot", "all machines lose power and boot again, at once", (*Fleet).Reboot},
	{"restart", "all clients are restarted at once, on machines that stay up", (*Fleet).Restart},
	{"duplicates", "second machines claim nodes of the first ones, which are up", (*Fleet).Duplicates},
	{"tokens", "machines claim nodes with a wrong token and a wrong secret", (*Fleet).WrongTokens},
	{"skew", "machines have clocks that are years off, and set right later", (*Fleet).Skew},
	{"slow", "machines on a slow network report, and others hang half-way", (*Fleet).Slow},
}

// FindAct is the act of that name.
func FindAct(name string) (Act, bool) {
	i := slices.IndexFunc(Acts, func(a Act) bool { return a.Name == name })
	if i < 0 {
		return Act{}, false
	}
	return Acts[i], true
}

// Join boots all machines at once: each says booted, then ready.
func (f *Fleet) Join(ctx context.Context) ([]Result, error) {
	return f.begin(ctx, "join", node.PhaseBooted, node.PhaseReady)
}

// Reboot is a power failure: all machines boot again at once. What they know of the
// deployer is on their disks.
func (f *Fleet) Reboot(ctx context.Context) ([]Result, error) {
	stop(f.members)
	for _, m := range f.members {
		m.boot()
	}
	return f.begin(ctx, "reboot", node.PhaseBooted, node.PhaseReady)
}

// Restart restarts the client on all machines.
func (f *Fleet) Restart(ctx context.Context) ([]Result, error) {
	stop(f.members)
	return f.begin(ctx, "restart", node.PhaseReady)
}

// begin starts all nodes and waits until they are Active.
func (f *Fleet) begin(ctx context.Context, name string, phases ...node.Phase) ([]Result, error) {
	p := f.play(name, f.members)
	for _, m := range f.members {
		f.start(ctx, m, phases...)
	}
	if err := f.await(ctx, p); err != nil {
		return nil, err
	}
	return []Result{p.result(name, &p.all, len(f.members))}, nil
}

// Beat lets the nodes send heartbeats for a while.
func (f *Fleet) Beat(ctx context.Context, long time.Duration) (Result, error) {
	p := f.play("heartbeats", nil)
	if err := f.watch(ctx, p, time.After(long)); err != nil {
		return Result{}, err
	}
	r := p.result("heartbeats", &p.all, len(f.members))
	for code, n := range r.Refused {
		r.Faults = append(r.Faults, fmt.Sprintf("%d heartbeats were refused: %s", n, code))
	}
	return r, nil
}

// Duplicates lets a share of the nodes have a second machine, which must be refused
// as long as the first one is up.
func (f *Fleet) Duplicates(ctx context.Context) ([]Result, error) {
	return f.intrude(ctx, "duplicates", func(m *member) phonehome.Given {
		random := sha256.Sum256([]byte("second " + m.secret))
		given := phonehome.Given{Cluster: m.cluster, Machine: machine(m.id, random)}
		if f.cfg.JoinToken != "" {
			given.JoinToken, given.Secret = f.cfg.JoinToken, base64.RawURLEncoding.EncodeToString(random[:])
		}
		return given
	})
}

// WrongTokens lets somebody claim a share of the nodes who says about the machine what
// is right, since that is no secret, and knows neither a token nor the node's secret.
func (f *Fleet) WrongTokens(ctx context.Context) ([]Result, error) {
	if f.cfg.JoinToken == "" {
		return nil, errors.New("the deployer that is given no join token wants none, so none is wrong there")
	}
	return f.intrude(ctx, "tokens", func(m *member) phonehome.Given {
		wrong := func(what string) string {
			sum := sha256.Sum256([]byte(what + m.secret))
			return base64.RawURLEncoding.EncodeToString(sum[:])
		}
		return phonehome.Given{Cluster: m.cluster, Machine: m.machine, JoinToken: wrong("token"), Secret: wrong("secret")}
	})
}

// intrude reports once as each of some nodes, and finds fault with every report that is
// accepted.
func (f *Fleet) intrude(ctx context.Context, name string, as func(*member) phonehome.Given) ([]Result, error) {
	some := f.some()
	p := f.play(name, nil)
	intruder := &member{slow: true} // counted apart from the nodes themselves
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(len(some), f.cfg.Connections) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(some) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				given := as(some[i])
				err := phonehome.Run(ctx, phonehome.Config{
					DeployerURL: f.cfg.URL, Phase: node.PhaseReady, Attempts: 1, Timeout: f.cfg.Timeout,
					Given: &given, Transport: f.recorder(intruder, node.PhaseBooted), Logger: quiet,
				})
				var refused *api.Error
				switch {
				case err == nil:
					p.fault("%s was given to somebody else", some[i].id)
				case !errors.As(err, &refused) && ctx.Err() == nil:
					p.fault("%s: no answer to somebody else: %v", some[i].id, err)
				}
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r := p.result(name, &p.slow, len(some))
	for code := range p.result(name, &p.all, 0).Refused { // of the nodes themselves, meanwhile
		r.Faults = append(r.Faults, "a node itself was refused meanwhile: "+code)
	}
	return []Result{r}, nil
}

// Skew restarts a share of the machines with clocks ten years ahead or behind. Over
// plain HTTP that must make no difference. Over TLS they find the deployer's
// certificate not valid; their clocks are set right then.
func (f *Fleet) Skew(ctx context.Context) ([]Result, error) {
	some := f.some()
	stop(some)
	var right atomic.Bool
	for i, m := range some {
		off := 10 * 365 * 24 * time.Hour
		if i%2 == 1 {
			off = -off
		}
		m.own = f.transport(1, nil, func() time.Time {
			if right.Load() {
				return time.Now()
			}
			return time.Now().Add(off)
		})
		m.slow = true // counted apart
		m.boot()
	}
	p := f.play("skew", some)
	for _, m := range some {
		f.start(ctx, m, node.PhaseBooted, node.PhaseReady)
	}
	watched, done := context.WithCancel(ctx)
	defer done()
	go func() {
		for !right.Load() && watched.Err() == nil {
			time.Sleep(10 * time.Millisecond)
			right.Store(p.badCertificates() >= len(some))
		}
	}()
	if err := f.await(ctx, p); err != nil {
		return nil, err
	}
	return []Result{p.result("skew", &p.slow, len(some))}, nil
}

// Slow reboots all machines, a share of them on a network that is throttled and far
// away, while as many connections as those hang after the begin of a request.
func (f *Fleet) Slow(ctx context.Context) ([]Result, error) {
	stop(f.members)
	some := f.some()
	for _, m := range f.members {
		m.boot()
	}
	for _, m := range some {
		m.own, m.slow = f.transport(1, slowDial, nil), true
	}
	p := f.play("slow", f.members)
	hanging, err := f.hang(ctx, min(len(some), 1000))
	if err != nil {
		return nil, err
	}
	defer hanging.close()
	for _, m := range f.members {
		f.start(ctx, m, node.PhaseBooted, node.PhaseReady)
	}
	if err := f.await(ctx, p); err != nil {
		return nil, err
	}
	took, left := hanging.dropped(ctx)
	if left > 0 {
		p.fault("%d of %d connections that hang were not dropped within %s", left, len(hanging.connections), patienceToDrop)
	}
	slow, others := p.result("slow", &p.slow, len(some)), p.result("beside slow", &p.all, len(f.members)-len(some))
	slow.Dropped = seconds(took)
	others.Faults, others.AllActive = nil, 0 // told with the others
	return []Result{slow, others}, nil
}

// play begins an act about members.
func (f *Fleet) play(name string, members []*member) *play {
	for _, m := range members {
		m.active.Store(false)
	}
	p := newPlay(name, len(members))
	f.playing.Store(p)
	return p
}

// await waits until all nodes of the act are Active, or gave up, or patience ends.
func (f *Fleet) await(ctx context.Context, p *play) error {
	end := make(chan time.Time)
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		select {
		case <-p.whole:
		case <-time.After(f.cfg.Patience):
		case <-stopped:
		}
		close(end)
	}()
	return f.watch(ctx, p, end)
}

// watch reports progress until end.
func (f *Fleet) watch(ctx context.Context, p *play, end <-chan time.Time) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-end:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
			if f.cfg.Progress != nil {
				f.cfg.Progress(p.progress())
			}
		}
	}
}

// patienceToDrop is how long a deployer may hold a connection that says nothing more.
const patienceToDrop = 30 * time.Second

// hanging is connections that have sent the begin of a request.
type hanging struct {
	begin       time.Time
	connections []net.Conn
	closed      chan error   // by the deployer
	last        atomic.Int64 // when the last one was, after begin
}

func (f *Fleet) hang(ctx context.Context, n int) (*hanging, error) {
	begin := "POST " + api.PathPhoneHome + " HTTP/1.1\r\nHost: deployer\r\nContent-Le"
	if strings.HasPrefix(f.cfg.URL, "https:") {
		begin = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" // of a ClientHello (RFC 8446 section 4.1.2)
	}
	h := &hanging{begin: time.Now(), closed: make(chan error, n)}
	for range n {
		conn, err := (&net.Dialer{Timeout: f.cfg.Timeout}).DialContext(ctx, "tcp", f.address)
		if err == nil {
			h.connections = append(h.connections, conn)
			_, err = conn.Write([]byte(begin))
		}
		if err != nil {
			h.close()
			return nil, fmt.Errorf("a connection to hang: %w", err)
		}
		_ = conn.SetReadDeadline(h.begin.Add(patienceToDrop))
		go func() {
			_, err := io.Copy(io.Discard, conn) // it may be told 408 first
			h.last.Store(int64(time.Since(h.begin)))
			h.closed <- err
		}()
	}
	return h, nil
}

// dropped waits until the deployer has dropped them all; took is when it had.
func (h *hanging) dropped(ctx context.Context) (took time.Duration, left int) {
	defer context.AfterFunc(ctx, h.close)()
	for range h.connections {
		var timeout net.Error
		if err := <-h.closed; errors.As(err, &timeout) && timeout.Timeout() {
			left++
		}
	}
	return time.Duration(h.last.Load()), left
}

func (h *hanging) close() {
	for _, conn := range h.connections {
		conn.Close()
	}
}
