package server

import (
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"golang.org/x/net/netutil"

	"github.com/centra/plasmacloud/deployer/api"
)

// maxConnections bounds open connections, idle ones included. It is well over the
// nodes of one deployer, each of which keeps one open.
const maxConnections = 16384

// NewHTTP is the http.Server around h with the limits that a service on an open
// network needs.
func NewHTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      60 * time.Second, // the list of all nodes over a slow line
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
}

// LimitListener lets no more connections in than the server should hold; more
// wait in the kernel's queue.
func LimitListener(l net.Listener) net.Listener { return netutil.LimitListener(l, maxConnections) }

// only answers any other method with the one that is allowed.
func only(method string, h http.HandlerFunc) http.Handler {
	allow := method
	if method == http.MethodGet {
		allow = "GET, HEAD"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == method || method == http.MethodGet && r.Method == http.MethodHead {
			h(w, r)
			return
		}
		w.Header().Set("Allow", allow)
		writeProblem(w, api.Problem{
			Status: http.StatusMethodNotAllowed, Code: api.CodeMethodNotAllowed, Title: "Method not allowed",
			Detail: fmt.Sprintf("%s takes %s", r.URL.Path, allow),
		})
	})
}

// turnstile lets at most limit requests work at once. The others queue for wait
// and are then told to come again, so that a storm is served late and not lost.
func turnstile(limit int, wait time.Duration, h http.Handler) http.Handler {
	slots := make(chan struct{}, limit)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
		default:
			timer := time.NewTimer(wait)
			defer timer.Stop()
			select {
			case slots <- struct{}{}:
			case <-r.Context().Done():
				return
			case <-timer.C:
				w.Header().Set("Retry-After", "2")
				writeProblem(w, api.Problem{
					Status: http.StatusServiceUnavailable, Code: api.CodeBusy, Title: "The deployer is busy",
					Detail: "too many requests are under way; try again in two seconds",
				})
				return
			}
		}
		defer func() { <-slots }()
		h.ServeHTTP(w, r)
	})
}

// recoverPanics keeps one bad request from taking the service down.
func (s *server) recoverPanics(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v)
			default:
				s.log.ErrorContext(r.Context(), "request panicked", "method", r.Method, "path", r.URL.Path,
					"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
				writeProblem(w, api.Problem{
					Status: http.StatusInternalServerError, Code: api.CodeInternal, Title: "Internal error",
					Detail: "the deployer's log has the reason",
				})
			}
		}()
		h.ServeHTTP(w, r)
	})
}
