package bgp

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Two announcers with one speaker, or in one network namespace, would each take down what
// the other one put up: both use the same mark. So each claims a name for both
// among the abstract sockets of its network namespace (unix(7)), which the kernel
// frees however the process ends.

// locks is what an announcer has claimed.
type locks []io.Closer

// ErrRuns is in the error of Open where another announcer has the speaker, or the network
// namespace.
var ErrRuns = errors.New("another announcer runs here")

// claims are what an announcer with cfg claims, for people, and the names for that.
func claims(cfg *Config) (what, names []string) {
	hold := "VIPs in this network namespace"
	if cfg.Hold.NetNS != "" {
		hold = "VIPs in network namespace " + filepath.Clean(cfg.Hold.NetNS)
	}
	what = []string{"speaker " + cfg.Speaker.Address, hold}
	for _, w := range what {
		// The kernel takes at most 107 bytes of a name.
		names = append(names, fmt.Sprintf("@plasmacloud-announcer/%x", sha256.Sum256([]byte(w))))
	}
	return what, names
}

// Runs reports whether an announcer runs that keeps one with cfg from running.
func Runs(cfg *Config) bool {
	_, names := claims(cfg)
	return slices.ContainsFunc(names, func(name string) bool {
		conn, err := net.Dial("unix", name)
		if err != nil {
			return !errors.Is(err, syscall.ECONNREFUSED)
		}
		conn.Close()
		return true
	})
}

// lock claims what cfg names, or says that another announcer has it.
func lock(cfg *Config) (locks, error) {
	var l locks
	what, names := claims(cfg)
	for i, name := range names {
		claim, err := net.Listen("unix", name)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%w, with %s; stop it first%s", ErrRuns, what[i], holder(name))
		}
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l = append(l, claim)
	}
	return l, nil
}

// holder says who has claimed name. Any user can: where it is nobody who would run an
// announcer, whoever reads this should know.
func holder(name string) string {
	conn, err := net.Dial("unix", name)
	if err != nil {
		return ""
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return ""
	}
	var text string
	_ = raw.Control(func(fd uintptr) {
		if c, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			text = fmt.Sprintf(" (process %d of uid %d)", c.Pid, c.Uid)
		}
	})
	return text
}

// Close frees what was claimed.
func (l locks) Close() error {
	var errs []error
	for _, claim := range l {
		errs = append(errs, claim.Close())
	}
	return errors.Join(errs...)
}
