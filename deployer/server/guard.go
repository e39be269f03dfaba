package server

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/centra/plasmacloud/deployer/api"
)

// maxConnections bounds open connections, idle ones included.
const maxConnections = 16384

// NewHTTP is the http.Server around h with the limits that a service on an open
// network needs.
//
// Without TLS it takes HTTP/2 of those who begin with it (RFC 9113 section 3.3), as gRPC
// does. A connection of it has many requests at once, which the limits on it keep few and
// small; Config.MaxConcurrent bounds them over all connections.
//
// Once half of the connections that LimitListener lets in are open, each ends with its next
// answer: a node reports more often than a connection may be idle, so that the first nodes
// of a large fleet would keep theirs for ever, and the others never be heard.
func NewHTTP(h http.Handler) *http.Server { return newHTTP(h, maxConnections) }

func newHTTP(h http.Handler, connections int) *http.Server {
	var open atomic.Int64
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          100,
			MaxReceiveBufferPerConnection: 128 << 10,
			MaxReceiveBufferPerStream:     api.MaxRequestBytes,
			SendPingTimeout:               30 * time.Second, // to a peer that says nothing
			PingTimeout:                   15 * time.Second,
			WriteByteTimeout:              30 * time.Second,
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if open.Load() > int64(connections/2) {
				w.Header().Set("Connection", "close")
			}
			h.ServeHTTP(w, r)
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed, http.StateHijacked:
				open.Add(-1)
			}
		},
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      60 * time.Second, // an outer bound; each answer sets a shorter one
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    16 << 10,

		DisableGeneralOptionsHandler: true, // "OPTIONS *" gets an answer in JSON too
	}
}

// LimitListener lets no more connections in than the server should hold; more
// wait in the kernel's queue. Those over the share of their address are closed.
func LimitListener(l net.Listener) net.Listener { return limitListener(l, maxConnections) }

func limitListener(l net.Listener, all int) net.Listener {
	return &sharedListener{netutil.LimitListener(l, all), shareOf(all)}
}

// only answers any other method with the one that is allowed.
func only(method string, h handler) handler {
	allow := method
	if method == http.MethodGet {
		allow = "GET, HEAD"
	}
	return func(w http.ResponseWriter, r *http.Request) answer {
		if r.Method == method || method == http.MethodGet && r.Method == http.MethodHead {
			return h(w, r)
		}
		a := refused(api.Problem{
			Status: http.StatusMethodNotAllowed, Code: api.CodeMethodNotAllowed, Title: "Method not allowed",
			Detail: fmt.Sprintf("%s takes %s", r.URL.Path, allow),
		})
		a.allow = allow
		return a
	}
}

// either answers with the handler of the method, or with those that are allowed.
func either(one string, h handler, other string, otherH handler) handler {
	return func(w http.ResponseWriter, r *http.Request) answer {
		switch {
		case r.Method == other:
			return otherH(w, r)
		case r.Method == one, one == http.MethodGet && r.Method == http.MethodHead:
			return h(w, r)
		}
		a := only(one, h)(w, r)
		if p, ok := a.body.(api.Problem); ok {
			p.Detail += ", " + other
			a.body = p
		}
		a.allow += ", " + other
		return a
	}
}

// turnstile lets at most MaxConcurrent requests work at once. The others queue for
// MaxWait and are then told to come again, so that a storm is served late and not lost.
func (s *server) turnstile(r *http.Request, work func() answer) answer {
	if !s.enter(r, s.slots) {
		return busy()
	}
	defer func() { <-s.slots }()
	return work()
}

// enter waits for a place in each of slots, and says whether it got them all.
func (s *server) enter(r *http.Request, slots ...chan struct{}) bool {
	var timer *time.Timer
	for i, c := range slots {
		select {
		case c <- struct{}{}:
			continue
		default:
		}
		if timer == nil {
			timer = time.NewTimer(s.cfg.MaxWait)
			defer timer.Stop()
		}
		select {
		case c <- struct{}{}:
			continue
		case <-timer.C:
		case <-r.Context().Done():
		}
		for _, got := range slots[:i] {
			<-got
		}
		return false
	}
	return true
}

// await waits for one of the places, of which each address has a share.
func (s *server) await(r *http.Request, p places) (leave func(), ok bool) {
	from := network(r.RemoteAddr)
	if !s.enter(r, p.share.join(from), p.all) {
		p.share.part(from)
		return nil, false
	}
	return func() { p.leave(from) }, true
}

// Nearly every report is small, and any number of connections may bring one. A
// larger one needs a place among largeBodies, which bounds their memory.
const (
	smallBody   = 4 << 10
	largeBodies = 256
)

// readBody reads a body of JSON, at most api.MaxRequestBytes within BodyTimeout. The
// caller is done with it when it calls done.
func (s *server) readBody(w http.ResponseWriter, r *http.Request) (body []byte, done func(), problem *api.Problem) {
	if problem := checkMedia(r.Header); problem != nil {
		return nil, func() {}, problem
	}
	return s.readBytes(w, r, api.MaxRequestBytes)
}

// readBytes is readBody of any kind of body, with a limit of its own.
func (s *server) readBytes(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, done func(), problem *api.Problem) {
	done = func() {}
	conn := http.NewResponseController(w)
	within := func(d time.Duration) { // a recorder in a test has no deadlines
		_ = conn.SetReadDeadline(time.Now().Add(d))
	}
	within(s.cfg.BodyTimeout)
	in := http.MaxBytesReader(w, r.Body, limit)
	body, err := readSmall(in, r.ContentLength)
	if err == nil && len(body) == smallBody {
		leave, ok := s.await(r, s.large)
		if !ok {
			return nil, done, &api.Problem{Code: api.CodeBusy}
		}
		done = leave
		within(s.cfg.BodyTimeout)
		var rest []byte
		rest, err = io.ReadAll(in)
		body = append(body, rest...)
	}
	if err != nil {
		return nil, done, s.unread(err)
	}
	// The server goes on reading to hear when the peer leaves, and a deadline
	// that passes would look like that.
	_ = conn.SetReadDeadline(time.Time{})
	return body, done, nil
}

// unread is the problem of a body that could not be read.
func (s *server) unread(err error) *api.Problem {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return &api.Problem{
			Status: http.StatusRequestEntityTooLarge, Code: api.CodeBodyTooLarge, Title: "The body is too large",
			Detail: fmt.Sprintf("it has at most %d bytes; in a report, send fewer facts or vips", tooLarge.Limit),
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &api.Problem{
			Status: http.StatusRequestTimeout, Code: api.CodeBodyTooSlow, Title: "The body is too slow",
			Detail: fmt.Sprintf("all of it must arrive within %s; try again", s.cfg.BodyTimeout),
		}
	default:
		return badRequest("", "the body ended before its announced length")
	}
}

// readSmall reads up to smallBody bytes of a body that says to have length, which is
// no more than a hint.
func readSmall(in io.Reader, length int64) ([]byte, error) {
	if length < 0 || length > smallBody {
		length = smallBody
	}
	body := make([]byte, 0, length+1) // with room to find its end
	for {
		n, err := in.Read(body[len(body):min(cap(body), smallBody)])
		body = body[:len(body)+n]
		switch {
		case errors.Is(err, io.EOF), err == nil && len(body) == smallBody:
			return body, nil
		case err != nil:
			return body, err
		case len(body) == cap(body): // longer than announced
			body = append(body, 0)[:len(body)]
		}
	}
}

func checkMedia(header http.Header) *api.Problem {
	if header.Get("Content-Type") == "application/json" && header["Content-Encoding"] == nil { // nearly always
		return nil
	}
	media, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	charset := params["charset"]
	if err == nil && media == "application/json" && (charset == "" || strings.EqualFold(charset, "utf-8")) && header.Get("Content-Encoding") == "" {
		return nil
	}
	return &api.Problem{
		Status: http.StatusUnsupportedMediaType, Code: api.CodeUnsupportedMedia, Title: "The body is not plain JSON",
		Detail: "send Content-Type: application/json, in UTF-8 and without Content-Encoding",
	}
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
				s.write(w, internalError())
			}
		}()
		h.ServeHTTP(w, r)
	})
}

func internalError() answer {
	return refused(api.Problem{
		Status: http.StatusInternalServerError, Code: api.CodeInternal, Title: "Internal error",
		Detail: "the deployer's log has the reason",
	})
}
