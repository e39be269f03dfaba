package speaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/log"
	"github.com/osrg/gobgp/v3/pkg/server"
	"google.golang.org/grpc"
)

// InProcessConfig describes a GoBGP that runs inside this process.
type InProcessConfig struct {
	APIAddress      string       // host:port of the gRPC API; port 0 picks a free one
	ASN             uint32       // own
	RouterID        netip.Addr   // IPv4
	ListenAddresses []netip.Addr // of BGP; none: all
	ListenPort      int          // of BGP; -1: no listener; 0: a free one
	Peers           []InProcessPeer
	// GracefulRestart is the restart time offered to every peer (RFC 4724), in
	// whole seconds; 0: not offered.
	GracefulRestart time.Duration
	Logger          *slog.Logger // nil: silent
}

// InProcessPeer is a neighbour, with both unicast families.
type InProcessPeer struct {
	Address      netip.Addr
	Port         uint16     // 0: 179
	ASN          uint32     // its own
	LocalAddress netip.Addr // to dial from; the zero Addr: the kernel chooses
	Passive      bool       // never dials; two sides that both dial may collide for half a minute
}

// InProcess is a running GoBGP v3 that serves the gRPC API of a gobgpd.
type InProcess struct {
	bgp        *server.BgpServer
	apiAddress string
	listenPort int
	hook       *stopHook
	stop       sync.Once
}

// startTimeout bounds how long the API may take to answer for the first time.
const startTimeout = 5 * time.Second

// StartInProcess returns when the API answers and BGP listens. A port that is
// taken, and any other mistake, is an error that names it; nothing is left
// behind then. The end of ctx stops the server, as Stop does.
func StartInProcess(ctx context.Context, cfg InProcessConfig) (*InProcess, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !cfg.RouterID.Is4() || cfg.ASN == 0 {
		return nil, fmt.Errorf("in-process speaker: ASN %d, router ID %s: want an ASN above 0 and an IPv4 router ID", cfg.ASN, cfg.RouterID)
	}
	apiAddress, err := claim(cfg.APIAddress)
	if err != nil {
		return nil, fmt.Errorf("in-process speaker: API address %s: %w", cfg.APIAddress, err)
	}
	listenPort, err := claimBGP(cfg)
	if err != nil {
		return nil, fmt.Errorf("in-process speaker: BGP: %w", err)
	}
	logger := cfg.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	hook := &stopHook{}
	adapter := &logAdapter{log: logger, fatal: make(chan string, 1), hook: hook}
	p := &InProcess{
		apiAddress: apiAddress,
		listenPort: listenPort,
		hook:       hook,
		bgp: server.NewBgpServer(
			server.GrpcListenAddress(apiAddress),
			server.GrpcOption([]grpc.ServerOption{grpc.MaxRecvMsgSize(256 << 20), grpc.MaxSendMsgSize(256 << 20)}),
			server.LoggerOption(adapter),
			server.TimingHookOption(hook)),
	}
	hook.ended = make(chan struct{})
	go func() {
		defer close(hook.ended)
		p.bgp.Serve()
	}()
	if err := p.configure(ctx, cfg, adapter.fatal); err != nil {
		p.Stop()
		return nil, fmt.Errorf("in-process speaker: %w", err)
	}
	context.AfterFunc(ctx, p.Stop)
	return p, nil
}

func (p *InProcess) configure(ctx context.Context, cfg InProcessConfig, fatal <-chan string) error {
	global := &api.Global{Asn: cfg.ASN, RouterId: cfg.RouterID.String(), ListenPort: int32(p.listenPort)}
	for _, a := range cfg.ListenAddresses {
		global.ListenAddresses = append(global.ListenAddresses, a.String())
	}
	if err := p.bgp.StartBgp(ctx, &api.StartBgpRequest{Global: global}); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	for _, peer := range cfg.Peers {
		if err := p.bgp.AddPeer(ctx, &api.AddPeerRequest{Peer: peer.encode(cfg.GracefulRestart)}); err != nil {
			return fmt.Errorf("peer %s: %w", peer.Address, err)
		}
	}
	// The library starts its gRPC listener on its own time, and would end the
	// process where that fails; our logger hands the reason over instead.
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	for {
		conn, err := net.DialTimeout("tcp", p.apiAddress, time.Second)
		if err == nil {
			conn.Close()
			// Somebody else's listener would answer too.
			select {
			case reason := <-fatal:
				return fmt.Errorf("API %s: %s", p.apiAddress, reason)
			default:
				return nil
			}
		}
		select {
		case reason := <-fatal:
			return fmt.Errorf("API %s: %s", p.apiAddress, reason)
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("API %s does not answer: %w", p.apiAddress, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (peer InProcessPeer) encode(gracefulRestart time.Duration) *api.Peer {
	restart := gracefulRestart > 0
	encoded := &api.Peer{
		Conf:            &api.PeerConf{NeighborAddress: peer.Address.String(), PeerAsn: peer.ASN},
		Transport:       &api.Transport{PassiveMode: peer.Passive, RemotePort: uint32(peer.Port)},
		Timers:          &api.Timers{Config: &api.TimersConfig{ConnectRetry: 1, IdleHoldTimeAfterReset: 1, HoldTime: 90, KeepaliveInterval: 30}},
		GracefulRestart: &api.GracefulRestart{Enabled: restart, RestartTime: uint32(gracefulRestart / time.Second)},
	}
	if peer.LocalAddress.IsValid() {
		encoded.Transport.LocalAddress = peer.LocalAddress.String()
	}
	for _, f := range families {
		encoded.AfiSafis = append(encoded.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: familyV3(f), Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: restart}},
		})
	}
	return encoded
}

// APIAddress is the host:port of the gRPC API, for Config.Address.
func (p *InProcess) APIAddress() string { return p.apiAddress }

// ListenPort is the TCP port of BGP, or -1.
func (p *InProcess) ListenPort() int { return p.listenPort }

// Stop ends the sessions with a Cease notification, closes every listener and
// connection, and returns when the server has ended. It may be called again.
func (p *InProcess) Stop() {
	p.stop.Do(func() {
		p.bgp.Stop()
		// The library's own loop never returns. Its timing hook runs inside that loop
		// after each request, and can end the goroutine. It must not do so after an
		// earlier request, though, since ours would then wait for ever; and the only
		// request that the loop itself tells us of is one that it finds fatal.
		p.hook.stopping.Store(true)
		_ = p.bgp.SetPolicies(context.Background(), &api.SetPoliciesRequest{DefinedSets: []*api.DefinedSet{
			{DefinedType: api.DefinedType_AS_PATH, Name: "last", List: []string{"("}}}})
		<-p.hook.ended
	})
}

// stopHook ends the server's loop after the last request.
type stopHook struct {
	stopping atomic.Bool // the last request is on its way
	last     atomic.Bool // it is the one that the loop is at
	ended    chan struct{}
}

// lastRequest is what the library logs inside its loop of the request that Stop makes.
const lastRequest = "failed to create routing policy"

// Observe implements server.FSMTimingHook.
func (h *stopHook) Observe(server.FSMOperation, time.Duration, time.Duration) {
	if h.last.Load() {
		runtime.Goexit()
	}
}

// claim checks that address can be listened on, and replaces port 0 by a free one.
func claim(address string) (string, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// claimBGP does the same for BGP's addresses, which share one port.
func claimBGP(cfg InProcessConfig) (int, error) {
	if cfg.ListenPort < 0 {
		return -1, nil
	}
	addresses := cfg.ListenAddresses
	if len(addresses) == 0 {
		addresses = []netip.Addr{netip.IPv4Unspecified()}
	}
	port := cfg.ListenPort
	for _, a := range addresses {
		claimed, err := claim(net.JoinHostPort(a.String(), strconv.Itoa(port)))
		if err != nil {
			return 0, err
		}
		_, text, err := net.SplitHostPort(claimed)
		if err != nil {
			return 0, err
		}
		if port, err = strconv.Atoi(text); err != nil {
			return 0, err
		}
	}
	return port, nil
}

// logAdapter passes the library's log on, and keeps it from ending the process.
type logAdapter struct {
	log   *slog.Logger
	fatal chan string
	hook  *stopHook
}

func (a *logAdapter) write(level slog.Level, msg string, fields log.Fields) {
	if !a.log.Enabled(context.Background(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, len(fields))
	for k, v := range fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	a.log.LogAttrs(context.Background(), level, msg, attrs...)
}

func (a *logAdapter) Fatal(msg string, fields log.Fields) {
	if msg == lastRequest && a.hook.stopping.Load() {
		a.hook.last.Store(true)
		return
	}
	a.write(slog.LevelError, msg, fields)
	select {
	case a.fatal <- fmt.Sprintf("%s: %v", msg, fields["Err"]):
	default:
	}
}

// Panic is used by the library for broken invariants only.
func (a *logAdapter) Panic(msg string, fields log.Fields) {
	a.write(slog.LevelError, msg, fields)
	panic(errors.New(msg))
}

func (a *logAdapter) Error(msg string, fields log.Fields) { a.write(slog.LevelError, msg, fields) }
func (a *logAdapter) Warn(msg string, fields log.Fields)  { a.write(slog.LevelWarn, msg, fields) }
func (a *logAdapter) Info(msg string, fields log.Fields)  { a.write(slog.LevelInfo, msg, fields) }
func (a *logAdapter) Debug(msg string, fields log.Fields) { a.write(slog.LevelDebug, msg, fields) }
func (a *logAdapter) SetLevel(log.LogLevel)               {}

// GetLevel keeps the library from preparing debug output that nobody reads.
func (a *logAdapter) GetLevel() log.LogLevel {
	if a.log.Enabled(context.Background(), slog.LevelDebug) {
		return log.DebugLevel
	}
	return log.InfoLevel
}
