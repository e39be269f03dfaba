// Package server is the deployer's HTTP API: thin layers over deployer.Registry.
// Every answer is JSON, and every error a problem (RFC 9457) with a stable code.
package server

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// Config is what the API needs. Zero limits mean the defaults beside them.
type Config struct {
	Registry *deployer.Registry
	Logger   *slog.Logger // nil: slog.Default()
	Version  string       // shown by /health

	MaxConcurrent int           // requests at work at once; 1024
	MaxWait       time.Duration // how long a request waits for its turn before it is told "busy"; 5s
}

type server struct {
	registry *deployer.Registry
	log      *slog.Logger
	version  string
}

// New is the handler of the whole API.
func New(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.MaxConcurrent == 0 {
		cfg.MaxConcurrent = 1024
	}
	if cfg.MaxWait == 0 {
		cfg.MaxWait = 5 * time.Second
	}
	s := &server{registry: cfg.Registry, log: cfg.Logger, version: cfg.Version}

	mux := http.NewServeMux()
	mux.Handle(api.PathPhoneHome, only(http.MethodPost, s.phoneHome))
	mux.Handle(api.PathNodes, only(http.MethodGet, s.nodes))
	mux.Handle(api.PathNodes+"/{id}", only(http.MethodGet, s.node))
	mux.Handle("/", http.HandlerFunc(s.notFound))

	// Health stands outside the turnstile: a busy deployer is not an ill one.
	outer := http.NewServeMux()
	outer.Handle(api.PathHealth, only(http.MethodGet, s.health))
	outer.Handle("/", turnstile(cfg.MaxConcurrent, cfg.MaxWait, mux))
	return s.recoverPanics(outer)
}

func (s *server) phoneHome(w http.ResponseWriter, r *http.Request) {
	id, report, problem := readReport(w, r)
	if problem != nil {
		s.log.DebugContext(r.Context(), "bad phone-home", "remote", r.RemoteAddr, "code", problem.Code,
			"field", problem.Field, "reason", problem.Detail)
		writeProblem(w, *problem)
		return
	}
	answer, err := s.registry.PhoneHome(r.Context(), id, report)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, api.PhoneHomeResponse{
		NodeID:                   answer.ID,
		State:                    answer.State,
		Message:                  answer.Message,
		HeartbeatIntervalSeconds: max(1, int(answer.HeartbeatInterval/time.Second)),
		ExpectedConfigHash:       answer.ConfigHash,
		Hold:                     answer.Hold,
	})
}

func (s *server) nodes(w http.ResponseWriter, r *http.Request) {
	views, err := s.registry.Nodes(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	list := api.NodeList{Nodes: make([]api.Node, len(views))}
	for i, v := range views {
		list.Nodes[i] = wireNode(v)
		list.Nodes[i].History = nil
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *server) node(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	v, err := s.registry.Node(r.Context(), id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		writeProblem(w, api.Problem{
			Status: http.StatusNotFound, Code: api.CodeNotFound, Title: "No such node",
			Detail: "the deployer knows no node " + clean(id) + "; " + api.PathNodes + " lists those that it knows",
		})
	case err != nil:
		s.fail(w, r, err)
	default:
		writeJSON(w, http.StatusOK, wireNode(v))
	}
}

func (s *server) health(w http.ResponseWriter, r *http.Request) {
	h := api.Health{Status: "ok", Version: s.version}
	status := http.StatusOK
	if err := s.registry.Health(r.Context()); err != nil {
		s.log.ErrorContext(r.Context(), "health check failed", "error", err)
		h.Status, h.Reason, status = "failing", "the store cannot be used; the deployer's log has the reason", http.StatusServiceUnavailable
	}
	writeJSON(w, status, h)
}

func (s *server) notFound(w http.ResponseWriter, r *http.Request) {
	writeProblem(w, api.Problem{
		Status: http.StatusNotFound, Code: api.CodeNotFound, Title: "No such page",
		Detail: "there is nothing at " + clean((&url.URL{Path: r.URL.Path}).EscapedPath()),
	})
}

// fail answers an error of the registry. A refusal is told as it is; what went
// wrong inside is logged whole and told in general words.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var refused *node.RefusedError
	switch {
	case errors.As(err, &refused):
		writeProblem(w, api.Problem{
			Status: refusalStatus[refused.Code], Code: refused.Code, Title: refused.Title, Detail: refused.Detail,
		})
	case r.Context().Err() != nil: // nobody reads the answer
	case errors.Is(err, store.ErrConflict):
		w.Header().Set("Retry-After", "1")
		writeProblem(w, api.Problem{
			Status: http.StatusServiceUnavailable, Code: api.CodeBusy, Title: "The node is being changed by others",
			Detail: "try again in a second",
		})
	default:
		s.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		w.Header().Set("Retry-After", "5")
		writeProblem(w, api.Problem{
			Status: http.StatusServiceUnavailable, Code: api.CodeUnavailable, Title: "The store cannot be used",
			Detail: "nothing was recorded; the deployer's log has the reason",
		})
	}
}

var refusalStatus = map[string]int{
	node.CodeUnknownNode:        http.StatusForbidden,
	node.CodeTooManyUnknown:     http.StatusForbidden,
	node.CodeDecommissioned:     http.StatusForbidden,
	node.CodeMachineConflict:    http.StatusConflict,
	node.CodeRoleMismatch:       http.StatusConflict,
	node.CodeAlreadyProvisioned: http.StatusConflict,
}

func wireNode(v deployer.View) api.Node {
	n := api.Node{
		ID: v.ID, Role: v.Role, Declared: v.Declared,
		State: v.State, Since: v.Since, Attempt: v.Attempt, Deadline: optional(v.Deadline),
		Reachability: v.Reachability, LastSeen: optional(v.LastSeen),
		Config: v.Config, ConfigHash: v.ConfigHash, ReportedHash: v.ReportedHash,
		Phase: v.Phase, Hold: v.Hold, LastError: v.LastError,
		MachineID: v.MachineID, Hostname: v.Hostname, VIPs: v.VIPs, Facts: v.Facts, History: v.History,
	}
	if v.IP.IsValid() {
		n.IP = v.IP.String()
	}
	if v.ReportedIP.IsValid() {
		n.ReportedIP = v.ReportedIP.String()
	}
	return n
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func writeJSON(w http.ResponseWriter, status int, v any) { write(w, status, "application/json", v) }

func writeProblem(w http.ResponseWriter, p api.Problem) {
	write(w, p.Status, api.ProblemContentType, p)
}

func write(w http.ResponseWriter, status int, contentType string, v any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // it is read by people too
	_ = enc.Encode(v)        // the peer went away; there is nobody to tell
}
