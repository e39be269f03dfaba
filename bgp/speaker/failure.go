package speaker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// lost reports whether the daemon, not the request, is the trouble.
func lost(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unimplemented:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// tooLong is the error of a request that was given up.
type tooLong time.Duration

func (t tooLong) Error() string { return fmt.Sprintf("took longer than %s", time.Duration(t)) }

func (tooLong) Is(target error) bool { return target == context.DeadlineExceeded }

// isLate reports whether a request was given up for its own deadline.
func isLate(err error) bool {
	return status.Code(err) == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
}

// explain turns a gRPC error into one of the sentinels, with its detail; nil stays
// nil. ctx is the caller's, without the request's own deadline.
func (g *GoBGP) explain(ctx context.Context, do string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	code := status.Code(err)
	switch {
	case code == codes.Unimplemented:
		return fmt.Errorf("%w: %s knows neither api.GoBgpService (gobgpd 4.x) nor apipb.GobgpApi (gobgpd 3.x): %s",
			ErrWrongAPI, g.cfg.Address, status.Convert(err).Message())
	case isLate(err):
		late := tooLong(g.cfg.Timeout)
		errors.As(err, &late)
		return fmt.Errorf("%w: %s: %s %w", ErrNoAnswer, g.cfg.Address, do, late)
	case code == codes.Unavailable:
		// gRPC says the same of a daemon that is dead and of one that hangs. The
		// difference decides whether its routes can still be out, so look closer.
		if refused := g.refused(ctx); refused != nil {
			return fmt.Errorf("%w: %w", ErrGone, refused)
		}
		if untrusted := g.untrusted(); untrusted != nil {
			return fmt.Errorf("%w: %s: %w", ErrTLS, g.cfg.Address, untrusted)
		}
		text := status.Convert(err).Message()
		if !g.cfg.TLS.Use && (strings.Contains(text, `server preface: EOF"`) || strings.Contains(text, "server preface: http2")) {
			text += "; does it want TLS (speaker.tls), or is it no gobgpd?"
		}
		return fmt.Errorf("%w: %s: %s: %s", ErrNoAnswer, g.cfg.Address, do, text)
	}
	if s, ok := status.FromError(err); ok {
		return fmt.Errorf("speaker %s: %s: %s", g.cfg.Address, do, s.Message())
	}
	return fmt.Errorf("speaker %s: %s: %w", g.cfg.Address, do, err)
}

// refused is not nil when nothing listens at the daemon's address. A process that
// dies closes its connections before its listener, or after: so look again.
func (g *GoBGP) refused(ctx context.Context) error {
	network, address := "tcp", g.cfg.Address
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, address = "unix", path
	}
	dialer := net.Dialer{Timeout: g.cfg.Timeout}
	for range 3 {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil && isNobodyListening(err) {
			return err
		}
		if err != nil {
			return nil
		}
		conn.Close()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// isNobodyListening reports whether a dial failed because there is no listener.
func isNobodyListening(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}
