package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// failure is what went wrong in an operator's words. It hides the errors of context,
// which here are about our deadline and not the caller's.
type failure struct{ text string }

func (f *failure) Error() string { return f.text }

func failuref(format string, args ...any) error { return &failure{fmt.Sprintf(format, args...)} }

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
		text := fmt.Sprintf("%s did not answer within %s", where, s.cfg.Timeout)
		if _, why, ok := strings.Cut(reason, "latest balancer error: "); ok {
			text += ": " + why
		}
		return &failure{text}
	case code == codes.PermissionDenied:
		return failuref("%s does not permit it (%s): give the user %q a role with readwrite on the prefix %s", where, reason, s.cfg.Username, s.cfg.Prefix)
	case code == codes.Unauthenticated, code == codes.InvalidArgument && strings.Contains(reason, "auth"):
		return failuref("%s refuses the login (%s): see store.username and store.password_file", where, reason)
	default:
		return failuref("%s: %s", where, reason)
	}
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
