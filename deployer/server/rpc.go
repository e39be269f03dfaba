package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
	"github.com/centra/plasmacloud/deployer/api/v1/deployerv1connect"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/tokens"
)

const (
	rpcPrefix        = "/" + deployerv1connect.DeployerServiceName + "/"
	healthPrefix     = "/grpc.health.v1.Health/"
	reflectionPrefix = "/grpc.reflection." // v1 and v1alpha
	reflectionTime   = 10 * time.Second    // of one stream
)

func isRPC(path string) bool {
	return strings.HasPrefix(path, rpcPrefix) || strings.HasPrefix(path, healthPrefix) || strings.HasPrefix(path, reflectionPrefix)
}

// rpc is the API as gRPC, gRPC-Web and Connect. A method asks the handler that REST asks,
// so that authority, limits and refusals are the same, and says its answer in protobuf.
type rpc struct {
	*server
	methods    map[string]protoreflect.MessageType // what they take, by path
	service    http.Handler
	reflection http.Handler // what grpcurl and the like learn the API from
	errors     *connect.ErrorWriter
}

// call is one request over gRPC or Connect, in the context of its method.
type call struct {
	path     string // for the metrics
	begin    time.Time
	who      *asker
	request  *http.Request
	conn     *http.ResponseController
	answered bool
	done     func() // when the answer is written; may be nil
}

type callKey struct{}

func newRPC(s *server) http.Handler {
	c := &rpc{server: s, methods: map[string]protoreflect.MessageType{}}
	options := []connect.HandlerOption{
		connect.WithCodec(strictJSON{"json"}),
		connect.WithCodec(strictJSON{"json; charset=utf-8"}),
		connect.WithReadMaxBytes(api.MaxRequestBytes), // after it is decompressed
		connect.WithCompressMinBytes(smallBody),
		connect.WithRecover(c.panicked),
	}
	c.errors = connect.NewErrorWriter(options...)
	service := http.NewServeMux()
	service.Handle(deployerv1connect.NewDeployerServiceHandler(c, options...))
	service.Handle(healthProcedure, connect.NewUnaryHandlerSimple(healthProcedure, c.checkHealth, options...))
	c.service = service
	methods := deployerv1.File_plasmacloud_deployer_v1_deployer_proto.Services().Get(0).Methods()
	for i := range methods.Len() {
		input, err := protoregistry.GlobalTypes.FindMessageByName(methods.Get(i).Input().FullName())
		if err != nil {
			panic(err) // the generated code has it
		}
		c.methods[rpcPrefix+string(methods.Get(i).Name())] = input
	}
	c.methods[healthProcedure] = (*healthpb.HealthCheckRequest)(nil).ProtoReflect().Type()
	reflector := grpcreflect.NewStaticReflector(deployerv1connect.DeployerServiceName, healthpb.Health_ServiceDesc.ServiceName)
	reflection := http.NewServeMux()
	reflection.Handle(grpcreflect.NewHandlerV1(reflector, options...))
	reflection.Handle(grpcreflect.NewHandlerV1Alpha(reflector, options...))
	c.reflection = reflection
	return c
}

// ServeHTTP reads the whole request before its method begins: there is one message in
// it, and bytes that trickle in would keep others out.
func (c *rpc) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := &call{path: "other", begin: time.Now(), conn: http.NewResponseController(w)}
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	r, call.who = c.asking(r)
	if r.Method != http.MethodPost && r.Method != http.MethodGet {
		c.refuse(w, r, call, only(http.MethodPost, nil)(w, r))
		return
	}
	leave, ok := c.calls.take(r)
	if !ok {
		c.refuse(w, r, call, busy())
		return
	}
	defer leave()
	if !c.admitted(r, call.who) {
		c.refuse(w, r, call, c.tooManyRequests(r))
		return
	}
	if strings.HasPrefix(r.URL.Path, reflectionPrefix) {
		if a := c.settled(r, call.who, answer{status: http.StatusOK}); a.status != http.StatusOK { // it looks at no token
			c.refuse(w, r, call, a)
			return
		}
		_ = call.conn.SetReadDeadline(time.Now().Add(reflectionTime))
		_ = call.conn.SetWriteDeadline(time.Now().Add(reflectionTime + c.cfg.WriteTimeout))
		c.reflection.ServeHTTP(w, r)
		return
	}
	input, known := c.methods[r.URL.Path]
	if !known {
		c.refuse(w, r, call, noMethod(r))
		return
	}
	call.path = r.URL.Path
	if !c.errors.IsSupported(r) {
		c.refuse(w, r, call, refused(api.Problem{
			Status: http.StatusUnsupportedMediaType, Code: api.CodeUnsupportedMedia, Title: "The body is no message",
			Detail: "send Content-Type: application/json or application/proto, or one of gRPC, gRPC-Web or Connect's streams",
		}))
		return
	}
	limit := int64(smallBody - 1)
	if r.URL.Path == deployerv1connect.DeployerServicePhoneHomeProcedure {
		limit = api.MaxRequestBytes
	}
	body, done, problem := c.readBytes(w, r, limit)
	defer done()
	if plain := strings.HasPrefix(r.Header.Get("Content-Type"), "application/json"); problem == nil && plain && r.Header.Get("Content-Encoding") == "" {
		// Connect would tell of a mistake without the Problem.
		if err := (strictJSON{}).Unmarshal(body, input.New().Interface()); err != nil {
			if problem = badOrder("", clean(err.Error())); r.URL.Path == deployerv1connect.DeployerServicePhoneHomeProcedure {
				problem = badRequest("", clean(err.Error()))
			}
		}
	}
	switch {
	case problem != nil && problem.Code == api.CodeBusy:
		c.refuse(w, r, call, busy())
		return
	case problem != nil:
		c.refuse(w, r, call, refused(*problem))
		return
	}
	call.request = r
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, call))
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	defer func() {
		if call.done != nil {
			call.done()
		}
	}()
	c.service.ServeHTTP(w, r)
	if !call.answered { // the message could not be read
		_ = c.settled(r, call.who, answer{status: http.StatusBadRequest})
		c.answered(call, http.StatusBadRequest)
	}
}

// refuse answers a request that gets to no method.
func (c *rpc) refuse(w http.ResponseWriter, r *http.Request, call *call, a answer) {
	if a.status != http.StatusTooManyRequests {
		a = c.settled(r, call.who, a)
	}
	c.answered(call, a.status)
	if !c.errors.IsSupported(r) { // no client of ours
		c.write(w, a)
		return
	}
	if err := c.errors.Write(w, r, rpcError(r.Context(), a)); err != nil {
		c.log.DebugContext(r.Context(), "refusal not written", "remote", r.RemoteAddr, "error", err)
	}
}

func noMethod(r *http.Request) answer {
	return refused(api.Problem{
		Status: http.StatusNotImplemented, Code: api.CodeUnknownMethod, Title: "No such method",
		Detail: "this version of the deployer has no method " + clean(strings.TrimPrefix(r.URL.Path, "/")),
	})
}

func (c *rpc) answered(call *call, status int) {
	call.answered = true
	if status != 0 {
		c.cfg.Metrics.Request(call.path, status, time.Since(call.begin))
	}
	_ = call.conn.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout))
}

func (c *rpc) panicked(ctx context.Context, spec connect.Spec, _ http.Header, v any) error {
	c.log.ErrorContext(ctx, "request panicked", "method", "POST", "path", spec.Procedure,
		"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	a := internalError()
	if call, ok := ctx.Value(callKey{}).(*call); ok {
		c.answered(call, a.status)
	}
	return rpcError(ctx, a)
}

// ask is the answer of h to the call that ctx is of.
func (c *rpc) ask(ctx context.Context, h handler) (*call, answer) {
	call := ctx.Value(callKey{}).(*call)
	r := call.request.WithContext(ctx) // with the deadline that the client set
	a := c.settled(r, call.who, h(nil, r))
	call.done = a.written
	c.answered(call, a.status)
	return call, a
}

// reply makes a message of the body that h answers with, or an error of its problem.
func reply[Body, Message any](ctx context.Context, c *rpc, h handler, message func(Body) Message) (Message, error) {
	_, a := c.ask(ctx, h)
	if body, ok := a.body.(Body); ok {
		return message(body), nil
	}
	var none Message
	return none, rpcError(ctx, a)
}

// rpcError says the problem of a as an error, with the Problem as a detail.
func rpcError(ctx context.Context, a answer) error {
	p, ok := a.body.(api.Problem)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded): // also of who waited in vain until then
		return connect.NewError(connect.CodeDeadlineExceeded, ctx.Err())
	case ok:
	default: // the client has gone
		return connect.NewError(connect.CodeCanceled, context.Canceled)
	}
	err := connect.NewError(rpcCode(p.Status), errors.New(p.Title+": "+p.Detail))
	details := []proto.Message{protoProblem(p)}
	if seconds, parsed := strconv.Atoi(a.retryAfter); parsed == nil {
		err.Meta().Set("Retry-After", a.retryAfter)
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Duration(seconds) * time.Second)})
	}
	for _, message := range details {
		detail, made := connect.NewErrorDetail(message)
		if made != nil {
			panic(made) // a message that cannot be encoded
		}
		err.AddDetail(detail)
	}
	return err
}

// rpcCode is the code of gRPC for a status of HTTP.
func rpcCode(status int) connect.Code {
	switch status {
	case http.StatusBadRequest, http.StatusUnsupportedMediaType:
		return connect.CodeInvalidArgument
	case http.StatusUnauthorized:
		return connect.CodeUnauthenticated
	case http.StatusForbidden:
		return connect.CodePermissionDenied
	case http.StatusNotFound:
		return connect.CodeNotFound
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return connect.CodeUnimplemented
	case http.StatusRequestTimeout:
		return connect.CodeDeadlineExceeded
	case http.StatusConflict:
		return connect.CodeFailedPrecondition
	case http.StatusGone:
		return connect.CodeOutOfRange
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return connect.CodeResourceExhausted
	case http.StatusServiceUnavailable:
		return connect.CodeUnavailable
	default:
		return connect.CodeInternal
	}
}

// viewer is h for operators who may look, without the response that it does not write.
func (c *rpc) viewer(h func(*http.Request) answer) handler {
	return c.operator(tokens.Viewer, func(_ http.ResponseWriter, r *http.Request) answer { return h(r) })
}

// PhoneHome takes a report.
func (c *rpc) PhoneHome(ctx context.Context, m *deployerv1.PhoneHomeRequest) (*deployerv1.PhoneHomeResponse, error) {
	return reply(ctx, c, func(_ http.ResponseWriter, r *http.Request) answer {
		id, report, problem := readRequest(reportOf(m))
		return c.report(r, id, report, problem)
	}, protoPhoneHome)
}

// ListNodes answers with a page of nodes.
func (c *rpc) ListNodes(ctx context.Context, m *deployerv1.ListNodesRequest) (*deployerv1.ListNodesResponse, error) {
	return reply(ctx, c, c.viewer(func(r *http.Request) answer { return c.nodesAfter(r, m.After, int(m.Limit)) }), protoNodes)
}

// GetNode answers with one node.
func (c *rpc) GetNode(ctx context.Context, m *deployerv1.GetNodeRequest) (*deployerv1.Node, error) {
	return reply(ctx, c, c.viewer(func(r *http.Request) answer {
		if !node.ValidID(m.NodeId) {
			return noNode(m.NodeId)
		}
		return c.turnstile(r, func() answer { return c.node(r, m.NodeId) })
	}), protoNode)
}

// GetStatus answers with the fleet at a glance.
func (c *rpc) GetStatus(ctx context.Context, _ *deployerv1.GetStatusRequest) (*deployerv1.Status, error) {
	return reply(ctx, c, c.operator(tokens.Viewer, c.status), protoStatus)
}

// ListVips answers with a page of VIPs.
func (c *rpc) ListVips(ctx context.Context, m *deployerv1.ListVipsRequest) (*deployerv1.ListVipsResponse, error) {
	return reply(ctx, c, c.viewer(func(r *http.Request) answer { return c.vipsAfter(r, m.After, int(m.Limit)) }), protoVIPs)
}

// ListEvents answers with a page of events.
func (c *rpc) ListEvents(ctx context.Context, m *deployerv1.ListEventsRequest) (*deployerv1.ListEventsResponse, error) {
	return reply(ctx, c, c.viewer(func(r *http.Request) answer {
		if m.Limit < 0 || m.Limit > api.MaxList {
			return refused(*badLimit())
		}
		return c.eventList(r, m.After, int(m.Limit))
	}), protoEvents)
}

// GetHealth says how the deployer does.
func (c *rpc) GetHealth(ctx context.Context, _ *deployerv1.GetHealthRequest) (*deployerv1.Health, error) {
	return reply(ctx, c, c.health, protoHealth)
}

// WatchEvents is a stream of events.
func (c *rpc) WatchEvents(ctx context.Context, m *deployerv1.WatchEventsRequest, stream *connect.ServerStream[deployerv1.WatchEventsResponse]) error {
	var page store.Page
	var unwatch func()
	call, a := c.ask(ctx, c.viewer(func(r *http.Request) (a answer) {
		page, unwatch, a = c.watchEvents(r, m.After)
		return a
	}))
	if a.status != http.StatusOK {
		return rpcError(ctx, a)
	}
	defer unwatch()
	_ = call.conn.SetReadDeadline(time.Time{}) // one that passes would look like a peer that left
	return c.ended(ctx, c.follow(call.request.WithContext(ctx), page, func(events []api.Event, cursor string) bool {
		_ = call.conn.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout))
		return stream.Send(&deployerv1.WatchEventsResponse{Events: each(events, protoEvent), Cursor: cursor}) == nil
	}))
}

// WatchNodes is a stream of nodes.
func (c *rpc) WatchNodes(ctx context.Context, m *deployerv1.WatchNodesRequest, stream *connect.ServerStream[deployerv1.WatchNodesResponse]) error {
	var has digest
	var unwatch func()
	call, a := c.ask(ctx, c.viewer(func(r *http.Request) (a answer) {
		var ok bool
		if m.After != "" {
			if has, ok = readDigest(m.After); !ok {
				return refused(*badQuery("after", "not a cursor of WatchNodes; take it from one of its messages"))
			}
		}
		unwatch, a = c.watch(r)
		return a
	}))
	if a.status != http.StatusOK {
		return rpcError(ctx, a)
	}
	defer unwatch()
	_ = call.conn.SetReadDeadline(time.Time{})
	return c.ended(ctx, c.followNodes(call.request.WithContext(ctx), has, func(nodes []api.Node, cursor string, deadline time.Time) bool {
		_ = call.conn.SetWriteDeadline(deadline)
		return stream.Send(&deployerv1.WatchNodesResponse{Nodes: each(nodes, protoNode), Cursor: cursor}) == nil
	}))
}

// ended is how a stream ends: well, but for the problem of a and a client that is gone.
func (c *rpc) ended(ctx context.Context, a answer) error {
	if a.status == 0 && ctx.Err() == nil {
		return nil
	}
	return rpcError(ctx, a)
}
