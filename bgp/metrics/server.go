package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// Limits on what strangers may ask.
const (
	maxConnections = 32
	maxScrapes     = 4 // of /metrics at once, and of /status
	maxHeader      = 16 << 10
	readTimeout    = 10 * time.Second
	writeTimeout   = 30 * time.Second
	idleTimeout    = 2 * time.Minute
)

// Server serves /metrics, /status, /events and /healthz.
type Server struct {
	announcer       Announcer
	nodeID, version string
	log             *slog.Logger
	handler         http.Handler
	retry           time.Duration // pause after an address could not be listened on
	wanted          chan string   // the newest address, if it is not looked at yet
}

// New prepares a Server; call it before the announcer runs.
func New(a Announcer, nodeID, version string, logger *slog.Logger) *Server {
	s := &Server{announcer: a, nodeID: nodeID, version: version, log: logger.With("part", "metrics"), retry: 5 * time.Second, wanted: make(chan string, 1)}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry(a, version), promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: writeTimeout / 2}))
	mux.Handle("GET /status", atMost(maxScrapes, s.status))
	mux.Handle("GET /events", atMost(maxScrapes, s.events))
	mux.HandleFunc("GET /healthz", s.health)
	s.handler = mux
	return s
}

// atMost lets n requests in at once. With 100,000 VIPs an answer has tens of megabytes.
func atMost(n int, next http.HandlerFunc) http.Handler {
	places := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			next(w, r)
		default:
			http.Error(w, fmt.Sprintf("%d others are asking; try again", n), http.StatusServiceUnavailable)
		}
	})
}

// Listen makes address, HOST:PORT, the one that is served; "" is none. It returns at
// once: an address that is taken keeps nobody's VIP from being announced.
func (s *Server) Listen(address string) {
	for {
		select {
		case s.wanted <- address:
			return
		case <-s.wanted: // an older one
		}
	}
}

// Run serves until ctx ends. A new address is listened on before the old one is left,
// where both can be.
func (s *Server) Run(ctx context.Context) {
	var current *http.Server
	var serving, wanted, said string
	leave := func() {
		if current != nil {
			current.Close()
		}
		current, serving = nil, ""
	}
	defer leave()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case wanted = <-s.wanted:
		case <-retry.C:
		}
		if wanted == serving {
			continue
		}
		if wanted == "" {
			leave()
			continue
		}
		listener, err := net.Listen("tcp", wanted)
		if err != nil && current != nil {
			leave() // which may be what is in the way: another address, the same port
			listener, err = net.Listen("tcp", wanted)
		}
		if err != nil {
			if said != err.Error() {
				said = err.Error()
				s.log.Error("metrics are not served; tried again and again", "address", wanted, "error", err)
			}
			retry.Reset(s.retry)
			continue
		}
		leave()
		current, serving, said = s.serve(listener), wanted, ""
		s.log.Info("metrics are served", "address", listener.Addr())
	}
}

func (s *Server) serve(l net.Listener) *http.Server {
	server := &http.Server{
		Handler:     s.handler,
		ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	go func() {
		if err := server.Serve(netutil.LimitListener(l, maxConnections)); err != http.ErrServerClosed {
			s.log.Error("metrics are not served any more", "error", err)
		}
	}()
	return server
}
