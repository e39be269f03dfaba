package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labrun"
)

// readyVariable tells a lab that was started in the background that readyFile is
// where its starter waits for it.
const (
	readyVariable = "PLASMACLOUD_LAB_READY"
	readyFile     = 3
)

func labUpCommand() *cobra.Command {
	var flags labFlags
	var format outputFormat
	var foreground bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build a cluster's lab, check it, and leave it standing",
		Long: `Evaluates the cluster, builds its lab and checks it, as "lab run" does, and leaves
it standing in the background, also if a check fails. There is one lab of a name
at a time; several with names of their own stand side by side.
` + exitStatuses,
		Example: `  plasmactl lab up --flake ./my-cluster
  plasmactl lab status
  plasmactl lab exec node01 -- gobgp neighbor
  plasmactl lab down`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			console := newConsole(cmd)
			defer console.Close()
			cfg, err := flags.config(cmd, console)
			if err != nil {
				return err
			}
			inside, err := labAsRoot(cmd.Context(), cmd, cfg)
			if err != nil {
				return err
			}
			if !foreground && os.Getenv(readyVariable) == "" {
				return inBackground()
			}
			if os.Getenv(readyVariable) != "" {
				syscall.CloseOnExec(readyFile) // no daemon is to keep our starter waiting
			}
			out := cmd.OutOrStdout()
			if format == outputJSON {
				out = io.Discard
				cfg.Say = func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
			}
			runner, err := labrun.New(cmd.Context(), cfg)
			if err != nil {
				return unavailable(err)
			}
			for _, warning := range runner.Warnings() {
				cfg.Eval.Warn(warning)
			}
			return unavailable(runner.Stand(cmd.Context(), inside, func(report *labrun.Report, state *labrun.State) error {
				report.PrintHead(out)
				fmt.Fprintln(out)
				report.PrintChecks(out)
				fmt.Fprintf(out, "\nThe lab %s stands: plasmactl lab status, exec, capture, and down.\n", state.Name)
				if format == outputJSON {
					if err := printJSON(cmd.OutOrStdout(), report); err != nil {
						return err
					}
				}
				console.Close()
				return tellStarter(report.OK())
			}))
		},
	}
	flags.register(cmd)
	format.register(cmd)
	cmd.Flags().BoolVar(&foreground, "foreground", false, "stay, and take it down at Ctrl-C or SIGTERM")
	return cmd
}

// inBackground starts the same command in a session of its own, and stays until it
// says that the lab stands.
func inBackground() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	// Not bound to our context: it outlives us.
	child := exec.Command(self, os.Args[1:]...)
	child.Env = append(os.Environ(), readyVariable+"=3")
	child.ExtraFiles = []*os.File{theirs}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		return errors.Join(err, theirs.Close())
	}
	if err := theirs.Close(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for s := range signals {
			_ = child.Process.Signal(s)
		}
	}()
	verdict, err := io.ReadAll(ready)
	if err != nil {
		return err
	}
	switch string(verdict) {
	case "ok":
		return nil
	case "failed":
		return errNotAsDeclared
	}
	err = child.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) { // it has said why
		os.Exit(exit.ExitCode())
	}
	return errors.Join(err, errors.New("the lab ended before it stood"))
}

// tellStarter lets the starter of a lab in the background go on, and lets go of its terminal.
func tellStarter(ok bool) error {
	if os.Getenv(readyVariable) == "" {
		return nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for fd := range 3 {
		if err := syscall.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	ready := os.NewFile(readyFile, "ready")
	word := "failed"
	if ok {
		word = "ok"
	}
	_, err = ready.WriteString(word)
	return errors.Join(err, ready.Close())
}

// nameFlag is the --name of a standing lab.
func nameFlag(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", "", "the lab's `NAME` (default: the only one that stands)")
	_ = cmd.RegisterFlagCompletionFunc("name", completeLabs)
}

func labStatusCommand() *cobra.Command {
	var name string
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Compare a standing lab with its definition, now",
		Long: `Shows the hosts of a standing lab, and checks again all that "lab up" has checked.
` + exitStatuses,
		RunE: func(cmd *cobra.Command, _ []string) error {
			console := newConsole(cmd)
			defer console.Close()
			state, report, err := labrun.Status(cmd.Context(), name)
			if err != nil {
				return err
			}
			if format == outputJSON {
				if err := printJSON(cmd.OutOrStdout(), struct {
					Lab    *labrun.State  `json:"lab"`
					Report *labrun.Report `json:"report"`
				}{state, report}); err != nil {
					return err
				}
			} else {
				out := cmd.OutOrStdout()
				fmt.Fprintf(out, "lab %s of cluster %s, since %s, process %d\n", state.Name, state.Cluster, state.Since.Format(time.RFC3339), state.PID)
				if state.Enter != "" {
					fmt.Fprintf(out, "in a user namespace: %s\n", state.Enter)
				}
				var rows [][]any
				for _, host := range slices.Sorted(maps.Keys(state.Hosts)) {
					place := state.Hosts[host]
					rows = append(rows, []any{host, place.Kind, place.Namespace, place.Dir})
				}
				fmt.Fprintln(out)
				if err := printTable(out, "HOST\tIS\tNAMESPACE\tFILES", rows); err != nil {
					return err
				}
				fmt.Fprintln(out)
				report.PrintLines(out)
			}
			if !report.OK() {
				return errNotAsDeclared
			}
			return nil
		},
	}
	nameFlag(cmd, &name)
	format.register(cmd)
	return cmd
}

func labDownCommand() *cobra.Command {
	var name string
	var all bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take a lab down, also one that was killed",
		Long: `Ends all that runs in a lab, and removes its namespaces and files. What a lab has
left that was killed goes in the same way. Where there is nothing, that is fine.

Exit status: 0 nothing is left; 1 something is; 64 the command line is wrong.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all && name != "" {
				return daemon.UsageError(errors.New("--all and --name exclude each other"))
			}
			if name != "" && !lab.Name.MatchString(name) {
				return daemon.UsageError(fmt.Errorf("--name %q: want at most 24 small letters, digits and -", name))
			}
			names := []string{name}
			if all {
				var err error
				if names, err = lab.Claims(); err != nil {
					return err
				}
			}
			if os.Geteuid() != 0 {
				for _, name := range names {
					if err := labrun.KillLeft(cmd.Context(), name); err != nil {
						return err
					}
				}
			}
			if _, err := asRoot(cmd.Context(), cmd, "the end of the lab", nixeval.Config{}, nil); err != nil {
				return err
			}
			for _, name := range names {
				name, was, err := labrun.Down(name)
				if err != nil {
					return err
				}
				if was {
					fmt.Fprintf(cmd.OutOrStdout(), "lab %s is down\n", name)
				} else {
					fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSpace("there is no lab "+name))
				}
			}
			return nil
		},
	}
	nameFlag(cmd, &name)
	cmd.Flags().BoolVar(&all, "all", false, "all labs")
	return cmd
}

// completeHosts completes the hosts of a standing lab.
func completeHosts(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	name, _ := cmd.Flags().GetString("name")
	state, err := labrun.Read(name)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.Sorted(maps.Keys(state.Hosts)), cobra.ShellCompDirectiveNoFileComp
}

// hostOf finds a host of a standing lab.
func hostOf(lab, host string) (*labrun.State, labrun.Place, error) {
	state, err := labrun.Read(lab)
	if err != nil {
		return nil, labrun.Place{}, err
	}
	place, has := state.Hosts[host]
	if !has {
		return nil, place, daemon.UsageError(fmt.Errorf("the lab %s has no host %s; it has %s", state.Name, host, strings.Join(slices.Sorted(maps.Keys(state.Hosts)), ", ")))
	}
	return state, place, nil
}

func labExecCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "exec HOST -- COMMAND [ARGUMENT...]",
		Short: "Run a command on a host of a standing lab",
		Long: `Runs a command in the network namespace of a node, a router, the deployer, the
client or a switch, and ends with its status.

In the command's environment LAB_DIR is the folder with the host's files,
PLASMACLOUD_ANNOUNCER_SOCKET leads plasmactl vip to a node's announcer, and
PLASMACLOUD_DEPLOYER_URL leads plasmactl node to the deployer. What is beside
plasmactl comes first in its PATH.`,
		Example: `  plasmactl lab exec node01 -- gobgp neighbor
  plasmactl lab exec node01 -- plasmactl vip drain 203.0.113.10 --reason try
  plasmactl lab exec router1 -- sh -c 'birdc -s $LAB_DIR/bird.ctl show route'
  plasmactl lab exec frr2 -- sh -c 'vtysh --vty_socket $LAB_DIR -c "show bgp"'
  plasmactl lab exec deployer -- plasmactl node list`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeHosts,
		RunE: func(_ *cobra.Command, args []string) error {
			state, place, err := hostOf(name, args[0])
			if err != nil {
				return err
			}
			command := append(entering(state), append([]string{"ip", "netns", "exec", place.Namespace}, args[1:]...)...)
			self, err := os.Executable()
			if err != nil {
				return err
			}
			if err := os.Setenv("PATH", filepath.Dir(self)+":"+os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
				return err
			}
			program, err := exec.LookPath(command[0])
			if err != nil {
				return err
			}
			env := append(os.Environ(), "LAB_DIR="+place.Dir, "PLASMACLOUD_DEPLOYER_URL="+state.Deployer)
			if place.Kind == "node" {
				env = append(env, "PLASMACLOUD_ANNOUNCER_SOCKET="+place.Dir+"/control.sock")
			}
			return syscall.Exec(program, command, env)
		},
	}
	nameFlag(cmd, &name)
	return cmd
}

// entering is the command that gets to where a lab is: none for one of root's.
func entering(state *labrun.State) []string {
	if os.Geteuid() == 0 {
		return nil
	}
	return append(strings.Fields(state.Enter), "--wd=.") // or it begins in the root folder
}

func labCaptureCommand() *cobra.Command {
	var name, write string
	var bgp bool
	var long time.Duration
	cmd := &cobra.Command{
		Use:   "capture HOST[:INTERFACE]",
		Short: "Write the packets of a host of a standing lab to a file, as pcap",
		Long: `Writes the packets of a host, on one interface or on all, to a file in the format of
pcap, which tcpdump and Wireshark read, until Ctrl-C or for as long as told.

A node's interface to routers and other nodes is eth0, that to the deployer is mgmt.`,
		Example: `  plasmactl lab capture node01 --write node01.pcap
  plasmactl lab capture router1:eth0 --bgp --for 30s --write bgp.pcap
  plasmactl lab capture node01 --write - | tcpdump -nr -`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeHosts,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			host, iface, _ := strings.Cut(args[0], ":")
			state, place, err := hostOf(name, host)
			if err != nil {
				return err
			}
			if bgp && iface != "" {
				return daemon.UsageError(errors.New("--bgp looks at all interfaces; leave the interface out"))
			}
			if os.Geteuid() != 0 {
				self, err := os.Executable()
				if err != nil {
					return err
				}
				enter := entering(state)
				if len(enter) == 0 {
					return errors.New("this lab is root's: capture as root")
				}
				program, err := exec.LookPath(enter[0])
				if err != nil {
					return err
				}
				return syscall.Exec(program, append(append(enter, self), os.Args[1:]...), os.Environ())
			}
			var out io.WriteCloser = os.Stdout
			if write != "-" {
				if out, err = os.Create(write); err != nil {
					return err
				}
				defer func() { err = errors.Join(err, out.Close()) }()
			}
			at := lab.HostAt(host, place.Namespace)
			var capture *lab.Capture
			if bgp {
				capture, err = at.CaptureBGP(out)
			} else {
				capture, err = at.Capture(out, iface)
			}
			if err != nil {
				return err
			}
			var end <-chan time.Time
			if long > 0 {
				end = time.After(long)
			}
			select {
			case <-cmd.Context().Done():
			case <-end:
			}
			return capture.Close()
		},
	}
	nameFlag(cmd, &name)
	cmd.Flags().StringVarP(&write, "write", "w", "lab.pcap", "write to `FILE`; - is stdout")
	cmd.Flags().BoolVar(&bgp, "bgp", false, "BGP only, TCP port 179")
	cmd.Flags().DurationVar(&long, "for", 0, "end after this `DURATION`")
	return cmd
}
