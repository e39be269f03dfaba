package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/centra/plasmacloud/deployer"
)

// watchdog pings systemd (WatchdogSec=, sd_notify(3)) until ctx ends, each time that
// the registry has answered, be it with an error: a store that fails is not mended
// by another process, one that hangs may be.
func watchdog(ctx context.Context, registry *deployer.Registry, log *slog.Logger) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog is not pinged", "error", err)
	}
	if err != nil || within == 0 {
		return
	}
	ticker := time.NewTicker(within / 3)
	defer ticker.Stop()
	for {
		asked, cancel := context.WithTimeout(ctx, within/3)
		_ = registry.Health(asked) // GET /health shows it
		cancel()
		notify(log, daemon.SdNotifyWatchdog)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
