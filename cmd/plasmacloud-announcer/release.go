package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/control"
	"github.com/centra/plasmacloud/bgp/release"
	"github.com/centra/plasmacloud/cmd/internal/daemon"
)

func releaseCommand(stderr io.Writer) *cobra.Command {
	var file, last, sysctls string
	var after time.Duration
	var logging daemon.LogOptions
	cmd := &cobra.Command{
		Use:   "release",
		Short: "Take down what an announcer left that runs no more",
		Long: `Withdraw every path with our mark, wait for the drain, and let go of every address
and route with our mark, also of VIPs that are not in the configuration any more; in the
order of a stop, and with its exit statuses. For an announcer that was killed and is not to
run again. One that runs is not disturbed: then this is an error.

Of the configuration it needs the speaker and where VIPs are held. Where the file has a
mistake by now, or is gone, it goes by what the last announcer has kept of its own. Where
announcers have kept that they left something at another place, with another speaker or
network namespace, it is taken down there too, after that. Where speakers share a network
namespace, the host lets go of VIPs there once every one of them has been told, and keeps
them if one was not. With --last '' only the speaker of the configuration counts.

With --after it waits first, and does nothing, which is no error, if an announcer runs or
one starts meanwhile. For ExecStopPost= of the announcer's unit, in a unit of its own.`,
		Example: `  plasmacloud-announcer release
  plasmacloud-announcer release --after 1m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := logging.Logger(stderr)
			if err != nil {
				return err
			}
			places, err := toRelease(file, last, logger)
			if err != nil {
				return err
			}
			if len(places) > 0 && after > 0 {
				runs, err := runsWithin(cmd.Context(), places[0], after)
				if err != nil {
					return err
				}
				if runs {
					logger.Info("nothing is released: an announcer runs")
					return nil
				}
			}
			errs := release.All(places, logger, func(cfg *bgp.Config, logger *slog.Logger, heldNoMore bool) {
				if heldNoMore {
					restoreSysctls(sysctls, cfg, logger)
				}
				forgetLast(last, cfg, logger)
			})
			for i, err := range errs {
				if after > 0 && errors.Is(err, bgp.ErrRuns) {
					logger.Info("nothing is released: an announcer runs")
					errs[i] = nil
				}
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().StringVar(&file, "config", defaultConfig, "read the configuration from `FILE`")
	cmd.Flags().StringVar(&last, "last", control.DefaultLast, "go by what run has kept in `FILE` too, and by that alone where the configuration has a mistake")
	cmd.Flags().StringVar(&sysctls, "sysctls", control.DefaultSysctls, "put the kernel's settings back that run has kept in `FILE`")
	cmd.Flags().DurationVar(&after, "after", 0, "wait for `TIME`, such as 1m, and do nothing if an announcer runs until then")
	logging.Register(cmd.Flags())
	return cmd
}

// runsWithin waits, and reports whether an announcer was seen. A signal ends the wait.
func runsWithin(parent context.Context, cfg *bgp.Config, wait time.Duration) (bool, error) {
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := daemon.SignalContext(parent)
	defer stop()
	over := time.NewTimer(wait)
	defer over.Stop()
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for !bgp.Runs(cfg) {
		select {
		case <-over.C:
			return false, nil
		case <-look.C:
		case <-ctx.Done():
			return false, fmt.Errorf("nothing is released: told to stop before %s were over", wait)
		}
	}
	return true, nil
}

// toRelease is where to release, the place of the configuration first: that in file, or
// where it has a mistake, what the last announcer has kept.
func toRelease(file, last string, logger *slog.Logger) ([]*bgp.Config, error) {
	cfg, err := bgp.LoadConfig(file)
	if last == "" && err == nil {
		return []*bgp.Config{cfg}, nil
	}
	places, lastErr := release.Places(last, cfg)
	switch {
	case err != nil && lastErr != nil:
		return nil, daemon.ConfigError(fmt.Errorf("%w; and what an announcer ran with last is not known either (%w)", err, lastErr))
	case err != nil && len(places) == 0:
		logger.Warn("the configuration has a mistake; no announcer has left anything", "error", err, "last", last)
	case err != nil:
		logger.Warn("the configuration has a mistake; released is what an announcer left that ran with another one", "error", err, "last", last)
	case lastErr != nil:
		logger.Warn("released is what an announcer with this configuration left; others are not known", "error", lastErr)
	}
	return places, nil
}

// keepLast keeps what release needs where the configuration is broken by then, or names
// another place; ready is whether the speaker was, so that there may be paths. It returns what announcers have left at other places. VIPs are announced
// all the same without.
func keepLast(file string, cfg *bgp.Config, ready bool, logger *slog.Logger) []*bgp.Config {
	if file == "" {
		return nil
	}
	others, err := release.Keep(file, cfg, ready)
	if err != nil {
		logger.Warn("a release will need this configuration, without mistakes", "last", file, "error", err)
	}
	return others
}

// forgetLast notes that nothing is left where an announcer ran with cfg.
func forgetLast(file string, cfg *bgp.Config, logger *slog.Logger) {
	if file == "" {
		return
	}
	if err := release.Forget(file, cfg); err != nil {
		logger.Warn("not noted that nothing is left; a release will look again", "error", err)
	}
}
