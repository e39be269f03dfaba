// Package server is the deployer's API on one port: thin layers over deployer.Registry.
// REST comes first: every answer is JSON, and every error a problem (RFC 9457) with a
// stable code. gRPC, gRPC-Web and Connect ask the same functions, and say it in protobuf.
package server

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
	"github.com/centra/plasmacloud/deployer/metrics"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server/page"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/tokens"
)

// Config is what the API needs. Zero limits mean the defaults beside them.
type Config struct {
	Registry *deployer.Registry
	Logger   *slog.Logger     // nil: slog.Default()
	Version  string           // shown by /health
	Metrics  *metrics.Metrics // shown by /metrics; nil: New makes them

	JoinTokens     *tokens.File     // by which machines join, beside those of the store; may be nil
	TokensRequired bool             // without one too; else any machine may report as any node
	Operators      *tokens.File     // nil: anybody may look
	Now            func() time.Time // for the end of tokens; nil: time.Now

	NoPage bool // no web page

	Stop <-chan struct{} // closed: streams of events end; nil: they never do for that

	Burst         int           // requests that prove nothing which an address has at once; 10000
	MaxConcurrent int           // requests at work at once; 1024
	MaxWait       time.Duration // how long a request waits for its turn before it is told "busy"; 5s
	MaxWatchers   int           // streams of events at once; 256
	Heartbeat     time.Duration // of such a stream; 15s
	BodyTimeout   time.Duration // how long the body of a report may take to arrive; 3s
	WriteTimeout  time.Duration // how long the peer may take to read its answer; 20s
}

type server struct {
	cfg       Config
	registry  *deployer.Registry
	log       *slog.Logger
	slots     chan struct{} // one for each request at work
	large     places        // one for each large body in memory
	ui        ui
	fleet     fleet
	lists     places // one for each whole list on its way
	listPages places // one for each page of nodes or VIPs in memory
	calls     places // one for each call over gRPC and Connect, and request over HTTP/2
	rpc       http.Handler
	onReport  handler            // of PathPhoneHome
	failures  deployer.LogBudget // of requests that failed
	refusals  deployer.LogBudget // of operators
	watchers  places             // one for each stream of events
	feed      feed
	memo      *memo

	// Of joining and of operators, and of reports and all else, since broken nodes must not
	// shut out who looks after them from the same address.
	joins, operators  *allowance // of guesses
	reports, requests *allowance // of what proves nothing
}

// New is the handler of the whole API.
func New(cfg Config) http.Handler {
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.New(cfg.Version)
	}
	cfg.Metrics.Watch(cfg.Registry)
	cfg.Burst = cmp.Or(cfg.Burst, 10_000)
	cfg.MaxConcurrent = cmp.Or(cfg.MaxConcurrent, 1024)
	cfg.MaxWait = cmp.Or(cfg.MaxWait, 5*time.Second)
	cfg.MaxWatchers = cmp.Or(cfg.MaxWatchers, 256)
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, 15*time.Second)
	cfg.BodyTimeout = cmp.Or(cfg.BodyTimeout, 3*time.Second)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, 20*time.Second)
	s := &server{
		cfg: cfg, registry: cfg.Registry, log: cfg.Logger,
		slots: make(chan struct{}, cfg.MaxConcurrent), large: newPlaces(largeBodies),
		joins: newGuesses(), operators: newGuesses(),
		reports:  newAllowance(cfg.Burst, burstRefill/time.Duration(cfg.Burst)),
		requests: newAllowance(cfg.Burst, burstRefill/time.Duration(cfg.Burst)),
		watchers: newPlaces(cfg.MaxWatchers), memo: newMemo(),
		lists: newPlaces(wholeListsAtOnce), listPages: newPlaces(listPagesAtOnce),
		calls: newPlaces(4 * cfg.MaxConcurrent),
	}
	s.ui.cross, s.ui.slots = http.NewCrossOriginProtection(), make(chan struct{}, pagesAtOnce)
	s.rpc = newRPC(s)
	s.onReport = only(http.MethodPost, s.phoneHome)
	return s.recoverPanics(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isRPC(r.URL.Path) {
			s.rpc.ServeHTTP(w, r)
			return
		}
		if r.ProtoMajor > 1 { // a connection has many requests, so that their number is no bound
			leave, ok := s.calls.take(r)
			if !ok {
				s.write(w, busy())
				return
			}
			defer leave()
		}
		begin := time.Now()
		path, handle := s.route(r.URL.Path)
		r, who := s.asking(r)
		var a answer
		if s.admitted(r, who) {
			a = s.settled(r, who, handle(w, r))
		} else {
			a = s.tooManyRequests(r)
		}
		if a.status != 0 {
			s.cfg.Metrics.Request(path, a.status, time.Since(begin))
		}
		s.write(w, a)
	}))
}

// answer is made whole before a byte of it is written, so that a peer that is slow
// to read holds nothing but its connection and its answer.
type answer struct {
	status     int // 0: nobody reads it
	body       any // json.RawMessage and metricsText go out as they are
	allow      string
	retryAfter string // seconds
	header     http.Header
	written    func() // may be nil

	stream func(http.ResponseWriter) // writes the body as it comes, in place of body
}

// handler makes an answer. It uses w for nothing but the body of the request.
type handler func(w http.ResponseWriter, r *http.Request) answer

// metricsText is Prometheus' text format.
type metricsText []byte

// route does without http.ServeMux, which answers a path that is not clean with a
// redirect in HTML. It also gives the path a name, one of few, for the metrics.
func (s *server) route(path string) (name string, h handler) {
	id, oneNode := strings.CutPrefix(path, api.PathNodes+"/")
	switch {
	case path == api.PathHealth: // no turnstile: a busy deployer is not an ill one
		return path, only(http.MethodGet, s.health)
	case path == api.PathMetrics: // nor here: what a busy one does is worth knowing
		return path, only(http.MethodGet, s.operator(tokens.Viewer, s.metrics))
	case path == api.PathEvents:
		return path, only(http.MethodGet, s.operator(tokens.Viewer, s.events))
	case path == api.PathStatus:
		return path, only(http.MethodGet, s.operator(tokens.Viewer, s.status))
	case path == api.PathVIPs:
		return path, only(http.MethodGet, s.operator(tokens.Viewer, s.listVIPs))
	case path == api.PathTokens:
		return path, either(http.MethodGet, s.tokens, http.MethodPost, s.createToken)
	case strings.HasPrefix(path, api.PathTokens+"/"):
		return api.PathTokens + "/NAME", only(http.MethodDelete, func(_ http.ResponseWriter, r *http.Request) answer {
			return s.revokeToken(r, strings.TrimPrefix(path, api.PathTokens+"/"))
		})
	case path == api.PathAudit:
		return path, only(http.MethodGet, s.audit)
	case path == api.PathOpenAPI: // it is the same for all, and tells of no node
		return path, only(http.MethodGet, openAPI)
	case path == api.PathPhoneHome:
		return path, s.onReport
	case path == api.PathNodes:
		return path, only(http.MethodGet, s.operator(tokens.Viewer, s.nodes))
	case oneNode && strings.Contains(id, "/"):
		return s.verbRoute(id)
	case oneNode && id != "":
		return api.PathNodes + "/ID", only(http.MethodGet, s.operator(tokens.Viewer, func(_ http.ResponseWriter, r *http.Request) answer {
			return s.turnstile(r, func() answer { return s.node(r, id) })
		}))
	}
	if !s.cfg.NoPage {
		if name, h, ok := s.uiRoute(path); ok {
			return name, h
		}
	}
	return "other", notFound
}

// metrics reads nothing from the store.
func (s *server) metrics(_ http.ResponseWriter, r *http.Request) answer {
	text, err := s.cfg.Metrics.Text()
	if err != nil {
		return s.fail(r, err)
	}
	return answer{status: http.StatusOK, body: metricsText(text)}
}

// phoneHome takes its turn only when it has the report: bytes that trickle in
// would keep others out.
func (s *server) phoneHome(w http.ResponseWriter, r *http.Request) answer {
	body, done, problem := s.readBody(w, r)
	defer done()
	var id string
	var report node.Report
	known := false
	if problem == nil {
		if id, report, known = s.memo.find(body); !known {
			id, report, problem = readReport(body)
		}
	}
	a := s.report(r, id, report, problem)
	if a.status == http.StatusOK && !known {
		s.memo.keep(body, id, report)
	}
	return a
}

// report answers a report, or what is wrong with it already. r has its credentials.
func (s *server) report(r *http.Request, id string, report node.Report, problem *api.Problem) (a answer) {
	defer func() {
		if p, no := a.body.(api.Problem); no {
			s.cfg.Metrics.PhoneHome(report.Phase, p.Code)
		} else if a.status != 0 { // else the node has gone
			s.cfg.Metrics.PhoneHome(report.Phase, "")
		}
	}()
	// From an exhausted address no token counts. A right secret does, or one broken node
	// would shut out all those behind its NAT.
	exhausted := s.wantsTokens() && s.joins.exhausted(r, s.cfg.Now())
	if problem == nil {
		report.Credentials, problem = s.credentials(r, !exhausted)
	}
	if problem != nil {
		s.log.DebugContext(r.Context(), "bad phone-home", "remote", r.RemoteAddr, "code", problem.Code,
			"field", problem.Field, "reason", problem.Detail)
		if problem.Code == api.CodeBusy {
			return busy()
		}
		return refused(*problem)
	}
	return s.turnstile(r, func() answer {
		told, err := s.registry.PhoneHome(r.Context(), id, report)
		if err != nil {
			var no *node.RefusedError
			switch {
			case !errors.As(err, &no):
			case exhausted && refusalStatus[no.Code] == http.StatusUnauthorized:
				return tooManyAttempts()
			case guessed(no.Code):
				s.joins.failed(r, s.cfg.Now())
			}
			return s.fail(r, err)
		}
		return answer{status: http.StatusOK, body: api.PhoneHomeResponse{
			NodeID:                   told.ID,
			State:                    told.State,
			Message:                  told.Message,
			HeartbeatIntervalSeconds: max(1, int(told.HeartbeatInterval/time.Second)),
			ExpectedConfigHash:       told.ConfigHash,
			Hold:                     told.Hold,
		}}
	})
}

func openAPI(http.ResponseWriter, *http.Request) answer {
	return answer{status: http.StatusOK, body: deployerv1.OpenAPI}
}

func (s *server) node(r *http.Request, id string) answer {
	v, err := s.registry.Node(r.Context(), id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return noNode(id)
	case err != nil:
		return s.fail(r, err)
	default:
		return answer{status: http.StatusOK, body: wireNode(v)}
	}
}

func (s *server) health(_ http.ResponseWriter, r *http.Request) answer {
	h := api.Health{Status: "ok", Version: s.cfg.Version}
	status := http.StatusOK
	if err := s.registry.Health(r.Context()); err != nil {
		s.logFailure(r, err)
		h.Status, h.Reason, status = "failing", "the store cannot be used; the deployer's log has the reason", http.StatusServiceUnavailable
	} else if ids := s.registry.Unreadable(); len(ids) > 0 {
		h.Status = "degraded"
		names := " (" + clean(strings.Join(ids, ", ")) + ")"
		if s.cfg.Operators != nil { // which nodes there are is for them
			names = ""
		}
		h.Reason = fmt.Sprintf("unreadable records: %d%s; rewrite each with plasmactl node reset", len(ids), names)
	}
	return answer{status: status, body: h}
}

func notFound(_ http.ResponseWriter, r *http.Request) answer {
	return refused(api.Problem{
		Status: http.StatusNotFound, Code: api.CodeNotFound, Title: "No such page",
		Detail: "there is nothing at " + clean((&url.URL{Path: r.URL.Path}).EscapedPath()),
	})
}

// fail answers an error of the registry. A refusal is told as it is; what went
// wrong inside is logged whole and told in general words.
func (s *server) fail(r *http.Request, err error) answer {
	var no *node.RefusedError
	switch {
	case errors.As(err, &no):
		return refused(api.Problem{Status: refusalStatus[no.Code], Code: no.Code, Title: no.Title, Detail: no.Detail})
	case r.Context().Err() != nil:
		return answer{}
	}
	s.logFailure(r, err)
	p := api.Problem{
		Status: http.StatusServiceUnavailable, Code: api.CodeUnavailable, Title: "The store cannot be used",
		Detail: "nothing was acknowledged; the deployer's log has the reason",
	}
	var corrupt *store.CorruptError
	switch {
	case !errors.As(err, &corrupt):
	case corrupt.Token != "":
		p.Title = "The token's record cannot be read"
		p.Detail = "nothing was recorded; take another token, and this one away with plasmactl token revoke " + clean(corrupt.Token)
	default:
		p.Title = "The node's record cannot be read"
		p.Detail = "nothing was recorded; rewrite the record with plasmactl node reset " + clean(corrupt.ID)
	}
	a := refused(p)
	a.retryAfter = "5"
	return a
}

// logFailure logs what went wrong inside. While the store is away that is every
// request of thousands of nodes.
func (s *server) logFailure(r *http.Request, err error) {
	ok, unlogged := s.failures.Take(s.cfg.Now())
	if unlogged > 0 {
		s.log.ErrorContext(r.Context(), "more requests failed than logged", "count", unlogged)
	}
	if ok {
		s.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
}

func refused(p api.Problem) answer { return answer{status: p.Status, body: p} }

func busy() answer {
	a := refused(api.Problem{
		Status: http.StatusServiceUnavailable, Code: api.CodeBusy, Title: "The deployer is busy",
		Detail: "too many requests are under way; try again in two seconds",
	})
	a.retryAfter = "2"
	return a
}

var refusalStatus = map[string]int{
	node.CodeUnknownNode:        http.StatusForbidden,
	node.CodeTooManyUnknown:     http.StatusForbidden,
	node.CodeDecommissioned:     http.StatusForbidden,
	node.CodeMachineConflict:    http.StatusConflict,
	node.CodeRoleMismatch:       http.StatusConflict,
	node.CodeIdentityMismatch:   http.StatusConflict,
	node.CodeAlreadyProvisioned: http.StatusConflict,
	node.CodeJoinTokenRequired:  http.StatusUnauthorized,
	node.CodeJoinTokenWrong:     http.StatusUnauthorized,
	node.CodeJoinTokenExpired:   http.StatusUnauthorized,
	node.CodeJoinTokenScope:     http.StatusForbidden,
	node.CodeJoinTokenUsedUp:    http.StatusForbidden,
	node.CodeNodeSecretRequired: http.StatusUnauthorized,
	node.CodeNodeSecretWrong:    http.StatusUnauthorized,
	node.CodeHeld:               http.StatusConflict,
	node.CodeApprovalRequired:   http.StatusForbidden,
	node.CodeWrongState:         http.StatusConflict,
	node.CodeWrongMachine:       http.StatusConflict,
}

func wireNode(v deployer.View) api.Node {
	n := api.Node{
		ID: v.ID, Role: v.Role, Declared: v.Declared,
		State: v.State, Since: v.Since, Attempt: v.Attempt, Deadline: optional(v.Deadline),
		Reachability: v.Reachability, LastSeen: optional(v.LastSeen),
		Config: v.Config, ConfigHash: v.ConfigHash, ReportedHash: v.ReportedHash,
		Phase: v.Phase, Hold: v.Hold, LastError: v.LastError,
		Labels: v.Labels, Held: v.Held, Waiting: v.Waiting, Approved: v.Approved, Reinstall: v.Reinstall,
		Acknowledged: optional(v.Acknowledged),
		MachineID:    v.MachineID, Hostname: v.Hostname, VIPs: v.VIPs, VIPStates: v.VIPStates, VIPsLeftOut: v.VIPsLeftOut, Services: v.Services, Facts: v.Facts, History: v.History,
	}
	if v.IP.IsValid() {
		n.IP = v.IP.String()
	}
	if v.Phase != "" {
		n.Machine = v.MachineName()
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

// Values of headers that every answer has: nobody changes them.
var noStore, noSniff = []string{"no-store"}, []string{"nosniff"}

// write gives the peer WriteTimeout to read a. If it went away, there is nobody
// to tell.
func (s *server) write(w http.ResponseWriter, a answer) {
	if a.status == 0 {
		return
	}
	if a.written != nil {
		defer a.written()
	}
	var body []byte
	media := "application/json"
	switch made := a.body.(type) {
	case json.RawMessage:
		body = made
	case metricsText:
		body, media = made, metrics.ContentType
	case api.Problem:
		body, media = encode(made), api.ProblemContentType
	case document:
		body, media = made, "text/html; charset=utf-8"
	case asset:
		body, media = made.Body, made.Media
	default:
		body = encode(made)
	}
	header := w.Header()
	if a.stream != nil {
		media = api.EventStreamType
	} else {
		header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	header.Set("Content-Type", media)
	header["Cache-Control"], header["X-Content-Type-Options"] = noStore, noSniff
	switch a.body.(type) {
	case document:
		header.Set("Content-Security-Policy", page.Policy)
		header.Set("Referrer-Policy", "same-origin") // with less, our own forms look like another site's
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
	case asset:
		header.Set("Cache-Control", "public, max-age=31536000, immutable") // another version has another address
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
	}
	maps.Copy(header, a.header)
	if a.allow != "" {
		header.Set("Allow", a.allow)
	}
	if a.status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "Bearer")
	}
	if a.retryAfter != "" {
		header.Set("Retry-After", a.retryAfter)
	}
	// A recorder in a test has no deadlines.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout))
	w.WriteHeader(a.status)
	if a.stream != nil {
		a.stream(w)
		return
	}
	_, _ = w.Write(body)
}

func encode(v any) json.RawMessage {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // it is read by people too
	if err := enc.Encode(v); err != nil {
		panic(err) // a type that JSON does not have
	}
	return text.Bytes()
}
