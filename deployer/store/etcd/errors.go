package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// failure is what went wrong in an operator's words. It hides the errors of context,
// which here are about our deadline and not the caller's.
type failure struct {
	text string
	away bool // no answer came
}

func (f *failure) Error() string { return f.text }

func failuref(format string, args ...any) error { return &failure{text: fmt.Sprintf(format, args...)} }

// failed says what etcd answered, or that it did not.
func (s *Store) failed(err error) error {
	var already *failure
	if errors.As(err, &already) {
		return already
	}
	where := "etcd at " + strings.Join(s.cfg.Endpoints, ", ")
	code, reason := answered(err)
	switch {
	case errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace):
		return failuref("%s is out of space: compact and defragment it or raise its --quota-backend-bytes, then etcdctl alarm disarm", where)
	case code == codes.DeadlineExceeded:
		return &failure{text: fmt.Sprintf("%s did not answer within %s", where, s.cfg.Timeout), away: true}
	case code == codes.PermissionDenied:
		user := "that the certificate names"
		if s.cfg.Username != "" {
			user = strconv.Quote(s.cfg.Username)
		}
		return failuref("%s does not permit it (%s): give the user %s a role with readwrite on the prefix %s", where, reason, user, s.cfg.Prefix)
	case code == codes.Unauthenticated, code == codes.InvalidArgument && strings.Contains(reason, "auth"):
		return failuref("%s refuses the login (%s): see store.username and store.password_file", where, reason)
	default:
		return &failure{text: where + ": " + reason, away: code == codes.Unavailable}
	}
}

// unopened adds to err why no endpoint answers, where that can be found out: a client
// of gRPC tries again and again, and tells only that its time is over.
func (s *Store) unopened(ctx context.Context, err error) error {
	failed := s.failed(err)
	var f *failure
	if errors.As(failed, &f) && f.away {
		for _, endpoint := range s.cfg.Endpoints {
			if err := s.reach(ctx, endpoint); err != nil {
				return fmt.Errorf("store: %w: %s: %w", failed, endpoint, err)
			}
		}
	}
	return fmt.Errorf("store: %w", failed)
}

// reach connects to an endpoint and waits a moment for it to complain.
func (s *Store) reach(ctx context.Context, endpoint string) error {
	const moment = 500 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, moment)
	defer cancel()
	scheme, address, _ := strings.Cut(endpoint, "://")
	var dial interface {
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	} = new(net.Dialer)
	if scheme == "https" {
		dial = &tls.Dialer{Config: s.cfg.TLS}
	}
	conn, err := dial.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(moment))
	// With TLS 1.3 a client hears only now that its certificate is not wanted.
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// answered is the code and the message of an error of the client.
func answered(err error) (codes.Code, string) {
	var coded rpctypes.EtcdError
	switch {
	case errors.As(err, &coded):
		return coded.Code(), coded.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded, err.Error()
	default:
		s := status.Convert(err)
		return s.Code(), s.Message()
	}
}
