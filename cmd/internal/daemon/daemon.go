// Package daemon holds what the main packages of the services share: version,
// logger, signals and exit status. It has no flags of a single service and no logic.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"
)

// Exit statuses that every binary uses; sysexits(3) is the model for 64 and 78.
const (
	ExitOK      = 0  // done
	ExitFailure = 1  // the work failed
	ExitUsage   = 64 // the command line is wrong
	ExitConfig  = 78 // a configuration file is wrong

	exitUnread = 128 + int(syscall.SIGPIPE) // nobody reads our output any more: what a shell says of who ends by that
)

// ExitError carries the exit status with which a binary should end.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }
func (e *ExitError) Unwrap() error { return e.Err }

// ConfigError marks err as a mistake in a configuration file (exit status 78).
func ConfigError(err error) error { return &ExitError{ExitConfig, err} }

// UsageError marks err as a mistake on the command line (exit status 64).
func UsageError(err error) error { return &ExitError{ExitUsage, err} }

// Exit prints err as one line on stderr, prefixed by the binary's name, and ends
// the process with the status that belongs to it. A nil error ends it with 0.
func Exit(name string, err error) {
	if err != nil && !unread(err) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	}
	os.Exit(status(err))
}

func status(err error) int {
	var coded *ExitError
	switch {
	case err == nil:
		return ExitOK
	case unread(err):
		return exitUnread
	case errors.As(err, &coded):
		return coded.Code
	default:
		return ExitFailure
	}
}

// unread says that whoever reads our output has enough of it, as head(1) does.
func unread(err error) bool {
	var write *fs.PathError
	return errors.As(err, &write) && write.Path == os.Stdout.Name() && errors.Is(write, syscall.EPIPE)
}

// version is set by the Nix package and the Makefile with -ldflags -X.
var version string

// Version is the released version, or the VCS revision that the binary was built from.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// LogOptions are the logging flags that every service has.
type LogOptions struct {
	Level  string // debug, info, warn, error
	Format string // text, json
}

// Register adds --log-level and --log-format to flags.
func (o *LogOptions) Register(flags *pflag.FlagSet) {
	flags.StringVar(&o.Level, "log-level", "info", "least severe `LEVEL` to log: debug, info, warn or error")
	flags.StringVar(&o.Format, "log-format", "text", "log `FORMAT`: text (key=value) or json, one record a line")
}

// Logger builds the service's logger, which writes to w.
func (o *LogOptions) Logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.Level)); err != nil {
		return nil, UsageError(fmt.Errorf("--log-level %q: want debug, info, warn or error", o.Level))
	}
	opts := &slog.HandlerOptions{Level: level}
	switch o.Format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	default:
		return nil, UsageError(fmt.Errorf("--log-format %q: want text or json", o.Format))
	}
}

// SignalContext is cancelled by SIGINT and SIGTERM. A second signal ends the
// process at once, so that an operator is never left waiting for a drain. From then
// on a log that nobody reads any more does not end the process either: writing to it
// fails. (Notify, not Ignore, which processes that we start would inherit.)
func SignalContext(parent context.Context) (context.Context, context.CancelFunc) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
