package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

const (
	// maxReason is how much is kept of what others say, in bytes.
	maxReason = 200
	// killed is how long a killed program may take to be gone.
	killed = time.Second
	// maxStuck is how many may be left behind that are not: each waits for the kernel.
	maxStuck = 16
)

var stuck atomic.Int32

// probeExec runs a program, in a process group of its own that is gone when it
// returns, but for what the kernel does not let go of.
func probeExec(ctx context.Context, argv []string) error {
	if len(argv) == 0 {
		return errors.New("no command")
	}
	if stuck.Load() >= maxStuck {
		return fmt.Errorf("%w: %d programs of exec checks cannot be killed, so none is started", ErrNotAsked, maxStuck)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var said firstLine
	// Not our environment: it has what systemd tells this process alone.
	cmd := &exec.Cmd{Path: argv[0], Args: argv, Dir: "/", Env: []string{"PATH=" + os.Getenv("PATH")},
		Stdout: &said, Stderr: &said, SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
		// One that left the group may keep the pipe open.
		WaitDelay: 100 * time.Millisecond}
	if err := startWithoutCapabilities(cmd); err != nil {
		return err
	}
	exited, reaped := make(chan struct{}), make(chan struct{})
	go func() {
		waitForExit(cmd.Process.Pid)
		close(exited)
	}()
	var err error
	go func() {
		select {
		case <-exited:
		case <-ctx.Done():
		}
		// Before the program is reaped, since the number is its group's until then.
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		<-exited
		err = cmd.Wait()
		close(reaped)
	}()
	select {
	case <-reaped:
	case <-ctx.Done():
		select {
		case <-reaped:
		case <-time.After(killed):
			stuck.Add(1)
			go func() {
				<-reaped
				stuck.Add(-1)
			}()
		}
		return ctx.Err()
	}
	var exit *exec.ExitError
	if err == nil || !errors.As(err, &exit) && errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if line := said.String(); line != "" {
		return fmt.Errorf("%w: %s", err, line)
	}
	return err
}

// startWithoutCapabilities keeps the program from inheriting the announcer's right to
// change the network (capabilities(7), ambient set). The set belongs to the thread, and
// nothing else here needs it.
func startWithoutCapabilities(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	err := cmd.Start()
	if errors.Is(err, unix.EAGAIN) { // too many processes
		err = fmt.Errorf("%w: %w", ErrNotAsked, err)
	}
	return err
}

// waitForExit leaves the child to be reaped.
func waitForExit(pid int) {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// firstLine keeps the start of what is written, and takes the rest.
type firstLine struct{ kept bytes.Buffer }

func (f *firstLine) Write(p []byte) (int, error) {
	f.kept.Write(p[:min(len(p), 4*maxReason-f.kept.Len())])
	return len(p), nil
}

func (f *firstLine) String() string {
	line, _, _ := strings.Cut(strings.TrimSpace(f.kept.String()), "\n")
	return printable(line)
}

// printable is s for logs and terminals: cut, and without what these might act on.
func printable(s string) string { return shorten(s, maxReason) }

func shorten(s string, most int) string {
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}
