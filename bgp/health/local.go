package health

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// ErrNotAsked is in the error of a probe that this host could not make, for want of open
// files or of memory: it says nothing of what was to be asked. Test with errors.Is.
var ErrNotAsked = errors.New("cannot be asked")

// exhausted are the errors of a host that has too little of something (errno(3)).
var exhausted = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS}

// asLocal marks an error that is this host's own.
func asLocal(err error) error {
	if err == nil {
		return nil
	}
	var name *net.DNSError // keeps the text alone
	isName := errors.As(err, &name)
	for _, want := range exhausted {
		if errors.Is(err, want) || isName && strings.Contains(name.Err, want.Error()) {
			return fmt.Errorf("%w: %w", ErrNotAsked, err)
		}
	}
	return err
}
