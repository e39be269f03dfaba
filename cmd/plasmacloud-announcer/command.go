package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/control"
	"github.com/centra/plasmacloud/bgp/metrics"
	"github.com/centra/plasmacloud/bgp/restart"
	"github.com/centra/plasmacloud/bgp/sysctl"
	"github.com/centra/plasmacloud/cmd/internal/command"
	"github.com/centra/plasmacloud/cmd/internal/daemon"
)

const defaultConfig = "/etc/plasmacloud/announcer.json"

const long = `plasmacloud-announcer runs beside a BGP daemon (gobgpd 3.x or 4.x) and keeps
the VIPs of this host announced.

A VIP of whose health checks enough are up, by default all, is first held by the
host, as an address on an interface or as a local route, and then announced. One with
too many checks down, or that left the configuration, is first withdrawn; once its
path is out of the daemon's table and of what that offers its peers, and a router has a
session with the daemon, the drain delay begins, and only after it the host lets go of it.
With graceful_shutdown, routers are asked to prefer other paths, by a community or by
the MED, before a withdraw that is planned. The drain delay has to cover the withdraw's way to the routers: how far it has come, the
daemon does not say. What the daemon announces and what the host holds is read anew
in every pass, so a crash of either side is mended, and nothing of it is kept on disk:
only operators' orders to drain (plasmactl vip drain), and where to release.
What others made is reported and left alone. A second announcer with the same daemon,
or in the same network namespace, is refused.

Signals:
  SIGHUP            read the configuration again; what did not change is not
                    touched, and a file with a mistake changes nothing
  SIGTERM, SIGINT   withdraw all VIPs, wait for the drain, release them, end;
                    a second one ends at once and leaves everything as it is.
                    Where systemd says that it restarts the unit, the announcer
                    ends at once: all stays as it is for the next one

A stop is clean when it is known that routers were told. While the daemon is not
running, not configured, does not answer, or has routers and a session with none of
them, a router may go on sending (graceful restart): the announcer waits for up to
the drain delay and five times the daemon's timeout, leaves the addresses held, and
exits 1. The next announcer takes them over.

systemd (Type=notify, notify-reload):
  READY=1   the host was read, and what is wanted is being done; this waits
            neither for the daemon nor for health checks
  STATUS=   one line: how many healthy VIPs are announced, the daemon's state,
            and whether the last reload was refused
  WATCHDOG=1   with WatchdogSec=: passes end; one that hangs is not pinged for

Exit statuses:
  0    done; nothing of ours is announced or held, or all of it is left for the
       next one, since systemd restarts the unit
  1    the work failed, or stopping left VIPs that routers may still send to
  64   the command line is wrong
  78   the configuration file is wrong

Files:
  ` + defaultConfig + `   what to announce; see "check"
  ` + control.DefaultSocket + `
                                      where plasmactl vip asks, orders and
                                      follows what happens, as root
  ` + control.DefaultState + `
                                      orders to drain that stand
  ` + control.DefaultLast + `
                                      what "release" needs where the
                                      configuration has a mistake by then,
                                      or names another place

The daemon's address need not answer at the start: the announcer waits for it.
It needs CAP_NET_ADMIN, Linux 5.18, and a daemon that holds its own configuration.`

func newCommand(stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "plasmacloud-announcer",
		Short: "Keep the VIPs of this host announced over BGP",
		Long:  long,
	}
	root.SetErr(stderr)
	root.AddCommand(runCommand(stderr), checkCommand(), releaseCommand(stderr))
	return command.Prepare(root)
}

func runCommand(stderr io.Writer) *cobra.Command {
	var f files
	var logging daemon.LogOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Announce the VIPs until told to stop",
		Long:  "Announce the VIPs of the configuration until SIGTERM; see the signals and exit statuses of plasmacloud-announcer --help.",
		Example: `  plasmacloud-announcer run
  plasmacloud-announcer run --config ./announcer.json --log-level debug`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := logging.Logger(stderr)
			if err != nil {
				return err
			}
			return run(cmd.Context(), f, logger)
		},
	}
	cmd.Flags().StringVar(&f.config, "config", defaultConfig, "read the configuration from `FILE`")
	cmd.Flags().StringVar(&f.control, "control", control.DefaultSocket, "answer operators (plasmactl vip) at `SOCKET`; empty: nowhere")
	cmd.Flags().StringVar(&f.group, "control-group", "", "let the `GROUP` open that socket too; orders are root's all the same")
	cmd.Flags().StringVar(&f.drains, "drains", control.DefaultState, "keep operators' orders to drain in `FILE`")
	cmd.Flags().StringVar(&f.last, "last", control.DefaultLast, "keep in `FILE` what release needs where the configuration is broken by then; empty: nowhere")
	cmd.Flags().StringVar(&f.sysctls, "sysctls", control.DefaultSysctls, "with hold.sysctls, keep in `FILE` what the kernel's settings were before")
	logging.Register(cmd.Flags())
	return cmd
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether a configuration file is right",
		Long: `Read FILE as "run" would, and say what is wrong with it: the place, as in
vips[2].checks[0].interval, and the mend. Nothing else is touched or asked.

Exit status: 0 the file is right; 64 the command line is wrong; 78 the file is
wrong, or cannot be read.`,
		Example: "  plasmacloud-announcer check " + defaultConfig,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := bgp.LoadConfig(args[0])
			if err != nil {
				return daemon.ConfigError(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: right; node %s, AS %d, %d VIPs\n", args[0], cfg.NodeID, cfg.ASN, len(cfg.VIPs))
			return nil
		},
	}
}

// handsOver reports whether this stop is the first half of a restart, so that all may stay
// as it is for the announcer that starts next.
func handsOver(ctx context.Context, announcer *bgp.Announcer, file string, logger *slog.Logger) bool {
	asked, err := restart.Asked(ctx)
	if err != nil {
		logger.Warn("not known whether this is a restart; taken for a stop", "error", err)
		return false
	}
	if !asked {
		return false
	}
	next, err := bgp.LoadConfig(file)
	if err == nil {
		err = announcer.Inherits(next)
	}
	if err != nil {
		logger.Warn("a restart, and the next announcer could not take over; taken for a stop", "error", err)
	}
	return err == nil
}

// files are where run reads and listens.
type files struct{ config, control, group, drains, last, sysctls string }

// gcPercent is how much the heap grows until what is not used any more is collected, of
// what is used; Go's own is 100. A pass over many VIPs makes much that is soon not used, and
// gobgpd and the services are to have the memory. GOGC says otherwise.
const gcPercent = 50

// run wires signals to an announcer.
func run(parent context.Context, f files, logger *slog.Logger) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// From here on a reload that comes early waits instead of ending the process.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	// A stop that comes early is one that takes down what a predecessor left.
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := daemon.SignalContext(parent)
	defer stop()

	cfg, err := bgp.LoadConfig(f.config)
	if err != nil {
		return daemon.ConfigError(err)
	}
	orders, err := control.Load(f.drains)
	if err != nil {
		return fmt.Errorf("orders to drain: %w", err)
	}
	logger = logger.With("node", cfg.NodeID)
	announcer, err := bgp.Open(cfg, logger)
	if err != nil {
		return err
	}
	defer announcer.Close()
	for _, left := range keepLast(f.last, cfg, false, logger) {
		logger.Warn("an announcer left something at another place; stop this one and call release", "speaker", left.Speaker.Address, "netns", left.Hold.NetNS)
	}
	if cfg.Hold.Sysctls {
		if err := sysctl.Set(f.sysctls, cfg.Hold.NetNS); err != nil {
			return fmt.Errorf("hold.sysctls: %w; set them by sysctl.d, or let the unit write them (ProtectKernelTunables=no)", err)
		}
	} else {
		restoreSysctls(f.sysctls, cfg, logger) // of an announcer that was to set them
	}

	n := &notifier{logger: logger}
	announcer.OnPass(n.pass)
	announcer.OnReady(func(cfg *bgp.Config) { keepLast(f.last, cfg, true, logger) })
	if err := n.watch(announcer); err != nil {
		return err
	}
	handedOver := false
	announcer.OnStop(func(ctx context.Context) bool {
		handedOver = handsOver(ctx, announcer, f.config, logger)
		return handedOver
	})
	server := metrics.New(announcer, cfg.NodeID, daemon.Version(), logger)
	server.Listen(cfg.Metrics.Listen)
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	go server.Run(serving)

	announcer.SetDrainOrders(orders)
	if f.control != "" {
		// VIPs are announced all the same.
		controlled, err := control.Listen(f.control, f.drains, announcer, server.Status, logger)
		if err != nil {
			logger.Warn("operators cannot reach the announcer", "error", err)
		} else {
			defer controlled.Close()
			if f.group != "" {
				if err := control.Share(f.control, f.group); err != nil {
					logger.Warn("the socket is not the group's", "error", err)
				}
			}
		}
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				n.reload(announcer, server, f)
			}
		}
	}()
	context.AfterFunc(ctx, func() { notify(logger, sd.SdNotifyStopping) })
	err = announcer.Run(ctx)
	if err == nil && !handedOver { // else VIPs are still held
		restoreSysctls(f.sysctls, cfg, logger)
		forgetLast(f.last, cfg, logger)
	}
	return err
}

// restoreSysctls puts back what an announcer has set.
func restoreSysctls(file string, cfg *bgp.Config, logger *slog.Logger) {
	if err := sysctl.Restore(file, cfg.Hold.NetNS); err != nil {
		logger.Warn("the kernel's settings are not put back", "error", err)
	}
}

// notifier keeps systemd informed.
type notifier struct {
	logger *slog.Logger

	mu      sync.Mutex
	ready   bool   // systemd knows
	state   string // of the last pass
	refused string // why the last reload was refused; "" if it was not
	told    string // the last STATUS

	watchdog time.Duration // within which systemd wants to hear of us; 0: it does not
	pinged   time.Time
}

// watch pings systemd's watchdog (WatchdogSec=, sd_notify(3)) for passes that end, and
// for nothing else: one that hangs is not pinged for.
func (n *notifier) watch(announcer *bgp.Announcer) (err error) {
	if n.watchdog, err = sd.SdWatchdogEnabled(false); err != nil {
		return fmt.Errorf("WATCHDOG_USEC: %w", err)
	}
	announcer.PassEvery(n.watchdog / 3)
	return nil
}

// pass tells of a pass; the first one that has read the host makes us ready.
func (n *notifier) pass(s bgp.Status) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state = s.String()
	if now := time.Now(); n.watchdog > 0 && now.Sub(n.pinged) > n.watchdog/6 {
		n.pinged = now
		notify(n.logger, sd.SdNotifyWatchdog)
	}
	first := !n.ready && s.HostRead
	n.ready = n.ready || first
	n.tell(first)
}

// tell sends the STATUS if it has changed, and READY. n.mu is held.
func (n *notifier) tell(ready bool) {
	status := n.state
	if n.refused != "" {
		status = "reload refused: " + n.refused + "; " + status
	}
	var lines []string
	if ready {
		lines = append(lines, sd.SdNotifyReady)
	}
	if status != n.told {
		n.told = status
		lines = append(lines, "STATUS="+strings.ReplaceAll(status, "\n", " "))
	}
	if len(lines) > 0 {
		notify(n.logger, strings.Join(lines, "\n"))
	}
}

// reload keeps no pass waiting for the files that it reads and writes.
func (n *notifier) reload(announcer *bgp.Announcer, server *metrics.Server, f files) {
	n.mu.Lock()
	ready := n.ready
	n.mu.Unlock()
	if ready {
		// MONOTONIC_USEC is part of systemd's Type=notify-reload; see sd_notify(3).
		var now unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		notify(n.logger, fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sd.SdNotifyReloading, now.Nano()/int64(time.Microsecond)))
	}
	cfg, err := bgp.LoadConfig(f.config)
	if err == nil {
		err = announcer.Reload(cfg)
	}
	refused := ""
	if err != nil {
		refused = err.Error()
		announcer.Refuse(err)
	} else {
		server.Listen(cfg.Metrics.Listen)
		keepLast(f.last, cfg, false, n.logger) // as ready as it was before
		announcer.Note(slog.LevelInfo, "reloaded", bgp.Event{Kind: bgp.EventReloaded, Reason: fmt.Sprintf("%d VIPs are configured", len(cfg.VIPs))}, "vips", len(cfg.VIPs))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused = refused
	n.tell(ready)
}

// notify tells systemd, where systemd started us; see sd_notify(3).
func notify(logger *slog.Logger, state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		logger.Warn("sd_notify failed", "state", strings.TrimSpace(state), "error", err)
	}
}
