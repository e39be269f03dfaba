// plasmacloud-phone-home tells the deployer that this node is here: once from the
// ISO and the installer, and as a service for as long as the node runs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/pflag"

	process "github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/cmd/internal/help"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/phonehome"
)

const name = "plasmacloud-phone-home"

// exitRefused is the status after a refusal of the deployer, EX_NOPERM of
// sysexits(3): trying again does not help until somebody mends something.
const exitRefused = 77

const usage = `Usage: plasmacloud-phone-home [flags]
       plasmacloud-phone-home identify [flags]

Reports this node to the deployer named in its cluster-config.json and shows the
answer. With --heartbeat it stays and goes on reporting. identify, on the ISO,
finds out which node this machine is; it has a --help of its own.

Examples:
  # from the ISO, before the disk is touched; do not install if the status is
  # not 0
  plasmacloud-phone-home --phase installing

  # an installation that went wrong
  plasmacloud-phone-home --phase failed --error "no disk larger than 20 GB"

  # the service of an installed node
  plasmacloud-phone-home --heartbeat

  # the same on a node that announces addresses
  plasmacloud-phone-home --heartbeat --vip 203.0.113.10 --vip 2001:db8::10

  # the same where an announcer announces them
  plasmacloud-phone-home --heartbeat --service gobgpd \
    --announcer-socket /run/plasmacloud-announcer/control.sock

  # the same where the deployer wants tokens
  plasmacloud-phone-home --heartbeat \
    --join-token-file /run/keys/join --ca-file ca.pem

  # by hand, against a deployer on this machine
  plasmacloud-phone-home --config ./cluster-config.json \
    --deployer-url http://127.0.0.1:8080

Flags:
%s
Exit status:
  0   the deployer accepted the report; with --heartbeat: ended by a signal;
      with --until-retry: an operator has the node retried
  1   the deployer was not reached in the given attempts
  64  the command line is wrong
  77  the deployer refused; its reason is printed
  78  cluster-config.json or another file is wrong, or cannot be read
`

func main() {
	process.Exit(name, run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "identify" {
		return identify(args[1:], stdout, stderr)
	}
	var (
		cfg     phonehome.Config
		files   api.TLSFiles
		logs    process.LogOptions
		phase   string
		version bool
	)
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	flags.SortFlags = false
	flags.SetOutput(io.Discard)
	flags.StringVar(&cfg.ConfigPath, "config", phonehome.DefaultConfigPath, "the node's cluster-config.json, a `FILE`")
	flags.StringVar(&cfg.DeployerURL, "deployer-url", "", "the deployer's base `URL`, in place of the one in --config")
	flags.StringVar(&phase, "phase", string(node.PhaseReady), "what to report, a `PHASE`: "+phases())
	flags.StringVar(&cfg.Error, "error", "", "what went wrong, a `TEXT`; with --phase failed")
	flags.IntVar(&cfg.Attempts, "attempts", 5, "give up after `N` attempts; 0 goes on without end (with --heartbeat and --until-retry the default is 0)")
	flags.DurationVar(&cfg.Timeout, "timeout", 10*time.Second, "`TIME` for one attempt")
	flags.BoolVar(&cfg.Heartbeat, "heartbeat", false, "stay, and report at the interval that the deployer tells")
	flags.BoolVar(&cfg.UntilRetry, "until-retry", false, "with --phase failed: stay, and end once an operator has the node retried")
	flags.StringVar(&cfg.MachineID, "machine-id", "", "the `ID` of this machine, in place of the mainboard's UUID")
	flags.StringArrayVar(&cfg.VIPs, "vip", nil, "an `ADDRESS` that this node announces, to be shown with it; once for each")
	flags.StringVar(&cfg.AnnouncerSocket, "announcer-socket", "", "control `SOCKET` of this node's announcer, whose VIPs are reported as they stand")
	flags.StringArrayVar(&cfg.Services, "service", nil, "a systemd `UNIT` of this node whose state is reported; once for each")
	flags.StringVar(&cfg.JoinTokenFile, "join-token-file", "", "a `FILE` with the token by which this node may join; the secret that proves it from then on is made")
	flags.StringVar(&cfg.SecretFile, "secret-file", phonehome.DefaultSecretFile, "the `FILE` of this node's own secret; an ISO keeps it in /run")
	flags.StringVar(&files.CA, "ca-file", "", "PEM `FILE` of the CA of the deployer's certificate, in place of the system's CAs")
	flags.StringVar(&files.Cert, "cert-file", "", "PEM `FILE` of this node's own certificate, for a deployer with tls.client_ca")
	flags.StringVar(&files.Key, "key-file", "", "PEM `FILE` of the key of --cert-file")
	logs.Register(flags)
	flags.BoolVar(&version, "version", false, "print the version and exit")

	flags.Usage = func() { fmt.Fprintf(stdout, usage, help.Flags(flags)) }
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return nil
	case err != nil:
		return process.UsageError(fmt.Errorf("%w; see --help", err))
	case version:
		_, err := fmt.Fprintln(stdout, name, process.Version())
		return err
	}
	cfg.Phase = node.Phase(phase)
	if err := check(cfg, flags.Args()); err != nil {
		return process.UsageError(err)
	}
	if (cfg.Heartbeat || cfg.UntilRetry) && !flags.Changed("attempts") {
		cfg.Attempts = 0
	}
	var err error
	if cfg.Logger, err = logs.Logger(stderr); err != nil {
		return err
	}
	if cfg.Transport, err = files.Transport(); err != nil {
		return process.ConfigError(err)
	}
	cfg.Accepted = func(answer api.PhoneHomeResponse) {
		fmt.Fprintf(stdout, "%s: %s\n", answer.NodeID, answer.Message)
		// Outside systemd there is nobody to notify, and no error.
		if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
			cfg.Logger.Warn("systemd not notified", "error", err)
		}
	}
	ctx, stop := process.SignalContext(context.Background())
	defer stop()
	return status(phonehome.Run(ctx, cfg))
}

func check(cfg phonehome.Config, rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q; see --help", rest[0])
	case !cfg.Phase.Valid():
		return fmt.Errorf("--phase %q: want one of %s", cfg.Phase, phases())
	case cfg.Phase == node.PhaseFailed && cfg.Error == "":
		return errors.New("--phase failed needs --error TEXT: the reason is what an operator looks for")
	case cfg.Phase != node.PhaseFailed && cfg.Error != "":
		return errors.New("--error goes only with --phase failed")
	case cfg.UntilRetry && (cfg.Phase != node.PhaseFailed || cfg.Heartbeat):
		return errors.New("--until-retry goes only with --phase failed, and in place of --heartbeat")
	case cfg.Attempts < 0:
		return fmt.Errorf("--attempts %d: want 0 or more", cfg.Attempts)
	case cfg.Timeout <= 0:
		return fmt.Errorf("--timeout %s: want more than 0", cfg.Timeout)
	case len(cfg.VIPs) > api.MaxVIPs:
		return fmt.Errorf("--vip: want at most %d", api.MaxVIPs)
	case len(cfg.Services) > api.MaxServices:
		return fmt.Errorf("--service: want at most %d", api.MaxServices)
	}
	for _, unit := range cfg.Services {
		if !node.ValidUnit(unit) {
			return fmt.Errorf("--service %q: want the name of a unit, such as gobgpd.service", unit)
		}
	}
	for _, vip := range cfg.VIPs {
		if _, ok := node.CanonicalVIP(vip); !ok {
			return fmt.Errorf("--vip %q: want an address, or a prefix of one address such as 203.0.113.10/32", vip)
		}
	}
	return nil
}

// status gives err the exit status that --help promises.
func status(err error) error {
	var config *phonehome.ConfigError
	var answered *api.Error
	switch {
	case errors.As(err, &config):
		return process.ConfigError(err)
	case errors.As(err, &answered) && !answered.Temporary():
		return &process.ExitError{Code: exitRefused, Err: err}
	default:
		return err
	}
}

func phases() string {
	names := make([]string, len(node.Phases))
	for i, p := range node.Phases {
		names[i] = string(p)
	}
	return strings.Join(names, ", ")
}
