package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestStatus(t *testing.T) {
	for _, test := range []struct {
		err    error
		want   int
		silent bool
	}{
		{nil, 0, false},
		{errors.New("no deployer"), 1, false},
		{fmt.Errorf("token: %w", ConfigError(errors.New("torn"))), 78, false},
		{&fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}, 1, false},
		{&fs.PathError{Op: "write", Path: "/run/pipe", Err: syscall.EPIPE}, 1, false},
		{fmt.Errorf("write the events: %w", &fs.PathError{Op: "write", Path: os.Stdout.Name(), Err: syscall.EPIPE}), 141, true},
	} {
		assert.Equal(t, test.want, status(test.err), test.err)
		assert.Equal(t, test.silent, unread(test.err), test.err)
	}
}
