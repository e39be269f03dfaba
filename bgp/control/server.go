package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/metrics"
)

// Limits on what an operator may ask.
const (
	maxConnections = 16
	maxOrder       = 4 << 10
	timeout        = 30 * time.Second
)

// Announcer is what is controlled; *bgp.Announcer is one.
type Announcer interface {
	SetDrainOrders(bgp.DrainOrders)
	DrainOrders() bgp.DrainOrders
	Configured(netip.Addr) bool
	Plan(context.Context, *bgp.Config) ([]bgp.PlannedStep, error)
	Events() *bgp.Events
	Offered(context.Context, netip.Addr) ([]netip.Addr, error)
	Note(level slog.Level, msg string, e bgp.Event, attrs ...any)
}

// Server answers at the socket.
type Server struct {
	announcer Announcer
	status    func() metrics.Status
	file      string
	log       *slog.Logger
	http      *http.Server
	mu        sync.Mutex // one order at a time
	followers chan struct{}
	heartbeat time.Duration
}

// Listen makes the socket, for root and for the user of this process alone, and
// answers until Close. Orders are kept in file.
func Listen(socket, file string, a Announcer, status func() metrics.Status, logger *slog.Logger) (*Server, error) {
	// What is no socket does not listen either, and is not ours to remove.
	if info, err := os.Lstat(socket); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s: is there, and is no socket; name another place", socket)
	}
	// A socket that a killed process left behind. The announcer has its own locks
	// against a second one that runs.
	if conn, err := net.Dial("unix", socket); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s: somebody listens there already", socket)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &Server{announcer: a, status: status, file: file, log: logger.With("part", "control"),
		followers: make(chan struct{}, maxFollowers), heartbeat: heartbeat}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/state", s.state)
	mux.HandleFunc("GET /v1/plan", s.plan)
	mux.HandleFunc("POST /v1/plan", s.plan)
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("GET /v1/offered", s.offered)
	mux.HandleFunc("POST /v1/drain", s.drain)
	mux.HandleFunc("POST /v1/undrain", s.undrain)
	s.http = &http.Server{
		Handler:     s.known(mux),
		ReadTimeout: timeout, WriteTimeout: timeout, IdleTimeout: timeout, MaxHeaderBytes: 16 << 10,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: withPeer,
	}
	go func() { _ = s.http.Serve(netutil.LimitListener(credentialed{listener}, maxConnections)) }()
	return s, nil
}

// Close ends every connection and removes the socket.
func (s *Server) Close() error { return s.http.Close() }

// peer is who is at the other end, in place of the address that a Unix socket's client
// does not have.
type peer struct {
	uid   uint32
	known bool
}

func (peer) Network() string { return "unix" }

func (p peer) String() string {
	if !p.known {
		return "uid unknown"
	}
	return fmt.Sprintf("uid %d", p.uid)
}

// credentialed gives each connection its peer as remote address.
type credentialed struct{ net.Listener }

type credentialedConn struct {
	net.Conn
	peer peer
}

func (c credentialedConn) RemoteAddr() net.Addr { return c.peer }

func (l credentialed) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return credentialedConn{conn, peerOf(conn)}, nil
}

func peerOf(conn net.Conn) (p peer) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return peer{}
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return peer{}
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p = peer{cred.Uid, true}
		}
	})
	return p
}

type peerKey struct{}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	p, _ := c.RemoteAddr().(peer)
	return context.WithValue(ctx, peerKey{}, p)
}

// known lets root and our own user through.
func (s *Server) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := r.Context().Value(peerKey{}).(peer)
		if !allowed(p, os.Geteuid()) {
			s.log.Warn("refused", "by", p.String(), "path", r.URL.Path)
			refuse(w, http.StatusForbidden, fmt.Errorf("%s may not control the announcer; root may", p))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func allowed(p peer, self int) bool { return p.known && (p.uid == 0 || int(p.uid) == self) }

func (s *Server) state(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, State{s.status(), s.announcer.DrainOrders().Clone()})
}

func (s *Server) drain(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, func(o Order, addr netip.Addr, orders *bgp.DrainOrders) (int, error) {
		if err := o.checkReason(); err != nil {
			return http.StatusBadRequest, err
		}
		order := bgp.DrainOrder{Reason: o.Reason, By: r.RemoteAddr, Since: time.Now().UTC().Truncate(time.Second)}
		switch {
		case !addr.IsValid():
			orders.Node = &order
		case !s.announcer.Configured(addr):
			return http.StatusNotFound, fmt.Errorf("%s is no VIP of this node; see plasmactl vip list", addr)
		default:
			orders.VIPs[addr] = order
		}
		return 0, nil
	})
}

func (s *Server) undrain(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, func(_ Order, addr netip.Addr, orders *bgp.DrainOrders) (int, error) {
		switch _, there := orders.VIPs[addr]; {
		case !addr.IsValid() && orders.Node == nil:
			return http.StatusNotFound, errors.New("the node is not drained")
		case !addr.IsValid():
			orders.Node = nil
		case !there:
			return http.StatusNotFound, fmt.Errorf("%s is not drained by an order of its own", addr)
		default:
			delete(orders.VIPs, addr)
		}
		return 0, nil
	})
}

// change makes one change of the orders: kept first, done second, so that what is
// answered for outlives a crash.
func (s *Server) change(w http.ResponseWriter, r *http.Request, f func(Order, netip.Addr, *bgp.DrainOrders) (int, error)) {
	var o Order
	if err := decode(http.MaxBytesReader(w, r.Body, maxOrder), &o); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("not an order: %w", err))
		return
	}
	addr, err := o.address()
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	orders, code, err := s.obey(func(orders *bgp.DrainOrders) (int, error) { return f(o, addr, orders) }, func() { s.note(r, o, addr) })
	if err != nil {
		refuse(w, code, err)
		return
	}
	// Whoever is slow to read this keeps nobody from giving the next order.
	answer(w, http.StatusOK, State{s.status(), orders})
}

func (s *Server) obey(f func(*bgp.DrainOrders) (int, error), note func()) (bgp.DrainOrders, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	orders := s.announcer.DrainOrders()
	if code, err := f(&orders); err != nil {
		return orders, code, err
	}
	switch err := save(s.file, orders); {
	case errors.Is(err, ErrNotSynced): // a restart would obey it, so it is obeyed now
		s.log.Warn("an order may be lost", "error", err)
	case err != nil:
		return orders, http.StatusInternalServerError, fmt.Errorf("nothing is changed, since it would not outlive a restart: %w", err)
	}
	note() // before what follows from it
	s.announcer.SetDrainOrders(orders)
	return orders, 0, nil
}

func (s *Server) note(r *http.Request, o Order, addr netip.Addr) {
	e := bgp.Event{Kind: bgp.EventDrained, VIP: addr, By: r.RemoteAddr, Cause: bgp.CauseDrained, Reason: o.Reason}
	do, what := path.Base(r.URL.Path), "the node"
	if do == "undrain" {
		e.Kind, e.Reason = bgp.EventUndrained, "the order is taken back"
	}
	if addr.IsValid() {
		what = addr.String()
	}
	s.announcer.Note(slog.LevelInfo, "order", e, "do", do, "what", what, "reason", o.Reason, "by", r.RemoteAddr)
}

func (s *Server) offered(w http.ResponseWriter, r *http.Request) {
	addr, err := Order{VIP: r.URL.Query().Get("vip")}.address()
	if err == nil && !addr.IsValid() {
		err = errors.New("vip: is missing")
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout/2)
	defer cancel()
	peers, err := s.announcer.Offered(ctx, addr)
	if err != nil {
		refuse(w, http.StatusConflict, err)
		return
	}
	o := Offered{Peers: []string{}}
	for _, p := range peers {
		o.Peers = append(o.Peers, p.String())
	}
	answer(w, http.StatusOK, o)
}

func (s *Server) plan(w http.ResponseWriter, r *http.Request) {
	var candidate *bgp.Config
	if r.Method == http.MethodPost {
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bgp.MaxConfigBytes))
		if err == nil {
			candidate, err = bgp.ParseConfig(data)
		}
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout/2)
	defer cancel()
	steps, err := s.announcer.Plan(ctx, candidate)
	if err != nil {
		refuse(w, http.StatusConflict, err)
		return
	}
	plan := Plan{Steps: []Step{}}
	for _, step := range steps {
		plan.Steps = append(plan.Steps, Step{step.Do, step.Address.String(), step.How.String(), step.Why, step.String()})
	}
	answer(w, http.StatusOK, plan)
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // what fails here is the connection
}

func refuse(w http.ResponseWriter, code int, err error) { answer(w, code, Problem{Text: err.Error()}) }
