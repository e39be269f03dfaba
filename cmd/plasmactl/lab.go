package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
	"github.com/centra/plasmacloud/vmtests/labrun"
	"github.com/centra/plasmacloud/vmtests/scenario"
)

// exitUnavailable is the status where a lab cannot be built here, EX_UNAVAILABLE of sysexits(3).
const exitUnavailable = 69

func labCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run a cluster on this machine, and check that it does what its definition says",
		Long: `Runs a cluster on this machine, in network namespaces: one for each node, with
the BGP daemon, the announcer and phone-home in the very configuration that Nix
makes for it, one for each router, one for the deployer, and one for a client
behind the routers.

  plasmactl lab run         builds it, checks it, plays scenarios, takes it down
  plasmactl lab up          leaves it standing, for status, exec and capture
  plasmactl lab scenarios   what can be played
  plasmactl lab commands    what scenarios of your own may say

Root is needed. For anybody else it runs in a user namespace, where the kernel
gives one; FRR then needs Debian's package uidmap.`,
	}
	cmd.AddCommand(labRunCommand(), labUpCommand(), labStatusCommand(), labExecCommand(), labCaptureCommand(), labDownCommand(), labScenariosCommand(), labCommandsCommand())
	return cmd
}

// labFlags are the flags of every command that builds a lab.
type labFlags struct {
	eval     evalFlags
	file     string
	name     string
	gobgpd   string
	routers  []string
	patience time.Duration
}

func (f *labFlags) register(cmd *cobra.Command) {
	f.eval.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.file, "evaluated", "", "take what was evaluated before from `FILE`, in place of --flake; lib.labCheck makes one")
	flags.StringVar(&f.name, "name", "", "the lab's `NAME`, of which there is one at a time (default: the cluster's)")
	flags.StringVar(&f.gobgpd, "gobgpd", "", "the gobgpd of the nodes, a `PROGRAM` (default: the one beside plasmactl, or in PATH)")
	flags.StringSliceVar(&f.routers, "routers", nil, "`KINDS` of routers: bird, frr or gobgp, or several by turns (default: bird, unless a router's name says another, as frr1 does)")
	flags.DurationVar(&f.patience, "patience", labrun.DefaultPatience, "how long the lab may take until all is as declared, on top of half a second a node and of what health checks take by themselves: a `DURATION`")
	_ = cmd.RegisterFlagCompletionFunc("routers", cobra.FixedCompletions(labcluster.Kinds, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("name", completeLabs)
}

// config checks the flags; the console is where what they are for is told.
func (f *labFlags) config(cmd *cobra.Command, c *console) (labrun.Config, error) {
	eval, err := f.eval.config(cmd.ErrOrStderr())
	if err != nil {
		return labrun.Config{}, err
	}
	for _, kind := range f.routers {
		if !slices.Contains(labcluster.Kinds, kind) {
			return labrun.Config{}, daemon.UsageError(fmt.Errorf("--routers %q: want %s", kind, strings.Join(labcluster.Kinds, ", ")))
		}
	}
	if f.name != "" && !lab.Name.MatchString(f.name) {
		return labrun.Config{}, daemon.UsageError(fmt.Errorf("--name %q: want at most 24 small letters, digits and -", f.name))
	}
	if f.patience <= 0 {
		return labrun.Config{}, daemon.UsageError(fmt.Errorf("--patience %s: want more than 0", f.patience))
	}
	self, err := os.Executable()
	if err != nil {
		return labrun.Config{}, err
	}
	return labrun.Config{
		Flake: f.eval.flake, Eval: eval, Evaluated: f.file, Bin: filepath.Dir(self), GoBGPD: f.gobgpd, Routers: f.routers, Name: f.name, Patience: f.patience,
		Say:   func(format string, args ...any) { fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...) },
		Doing: c.Doing,
	}, nil
}

// completeLabs completes the names of labs that stand.
func completeLabs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names, err := lab.Claims()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// resultFlags say where the result of a run goes.
type resultFlags struct {
	format    outputFormat
	junit     string
	svg       string
	artifacts string
}

func (f *resultFlags) register(cmd *cobra.Command) {
	f.format.register(cmd)
	cmd.Flags().StringVar(&f.junit, "junit", "", "also write the result as JUnit's XML to `FILE`")
	cmd.Flags().StringVar(&f.svg, "svg", "", "also draw what happened when in the scenarios, a picture in `FILE`")
	cmd.Flags().StringVar(&f.artifacts, "artifacts", "", "keep logs, configurations, tables and captures of what failed in the folder `DIR`")
	_ = cmd.MarkFlagDirname("artifacts")
}

// playFlags say how scenarios are played.
type playFlags struct {
	runs    int
	scale   float64
	timeout time.Duration
}

func (f *playFlags) register(cmd *cobra.Command) {
	cmd.Flags().IntVar(&f.runs, "runs", 1, "play each scenario `N` times, each time in a new lab")
	cmd.Flags().Float64Var(&f.scale, "time-scale", scenario.DefaultScale, "divide the time of wait ... scaled in scenarios by `N`; 1 is real time")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "fail what is not done after this `DURATION`, with what there is by then as the result; 0: no limit")
}

func (f *playFlags) check() error {
	if f.runs < 1 || f.runs > 1000 {
		return daemon.UsageError(fmt.Errorf("--runs %d: want 1 to 1000", f.runs))
	}
	if f.scale < 1 {
		return daemon.UsageError(fmt.Errorf("--time-scale %g: want 1 or more", f.scale))
	}
	if f.timeout < 0 {
		return daemon.UsageError(fmt.Errorf("--timeout %s: want 0 or more", f.timeout))
	}
	return nil
}

// limit is the context with the time that all of it may take.
func (f *playFlags) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if f.timeout == 0 {
		return context.WithCancel(ctx)
	}
	// Where this process is in a user namespace, some of it was spent outside.
	spent, _ := time.ParseDuration(os.Getenv(spentVariable))
	return context.WithTimeoutCause(ctx, f.timeout-spent, fmt.Errorf("not done after %s, the --timeout", f.timeout))
}

const exitStatuses = `
Exit status: 0 all is as declared; 1 something is not, a scenario failed, or the
cluster cannot be evaluated; 64 the command line is wrong; 69 this machine lacks
what a lab needs, or a lab of the name stands.`

func labRunCommand() *cobra.Command {
	var flags labFlags
	var result resultFlags
	var play playFlags
	cmd := &cobra.Command{
		Use:   "run [SCENARIO...]",
		Short: "Build a cluster's lab, check it, play scenarios on it, and take it down",
		Long: `Evaluates the cluster, builds it in network namespaces, and waits until all is as
the evaluation says:

  every router has every VIP of the nodes that it peers with, by their addresses
  and with the attributes declared, and no other route; every session is up;
  every node holds its VIPs; every node is Active at the deployer, with the
  configuration that was evaluated.

It prints each of these and whether it is so, and what in the lab is not as in the
data centre. Health checks are answered where they ask, if that is on the node
itself; others ask a service of the lab's own in their place.

Then it plays scenarios: names of the catalogue (plasmactl lab scenarios), files of
your own, or "all" for the whole catalogue. Each is played in a lab of its own.
plasmactl lab commands lists what a file of your own may say.
` + exitStatuses,
		Example: `  plasmactl lab run --flake ./my-cluster
  plasmactl lab run --flake ./my-cluster --routers bird,frr --artifacts out
  plasmactl lab run --flake ./my-cluster vip-drains --runs 5 --svg timeline.svg
  plasmactl lab run --flake ./my-cluster ./our-outage.txtar`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeScenarios,
		RunE: func(cmd *cobra.Command, args []string) error {
			console := newConsole(cmd)
			defer console.Close()
			cfg, err := flags.config(cmd, console)
			if err != nil {
				return err
			}
			return runLab(cmd, cfg, result, play, args)
		},
	}
	flags.register(cmd)
	result.register(cmd)
	play.register(cmd)
	return cmd
}

// labAsRoot is asRoot for a lab.
func labAsRoot(ctx context.Context, cmd *cobra.Command, cfg labrun.Config) (string, error) {
	if cfg.Evaluated != "" {
		return asRoot(ctx, cmd, "the lab", cfg.Eval, nil)
	}
	return asRoot(ctx, cmd, "the lab", cfg.Eval, func(e *nixeval.Evaluator) error {
		cfg.Doing("evaluating " + cfg.Flake)
		defer cfg.Doing("")
		_, err := e.EvalMachines(ctx, cfg.Flake)
		return err
	})
}

// errNotAsDeclared is the verdict that the list before it has given the reasons of.
var errNotAsDeclared = errors.New("the cluster does not do what its definition says")

// runLab evaluates, builds, checks and plays the scenarios that are named, and tells of it.
func runLab(cmd *cobra.Command, cfg labrun.Config, result resultFlags, play playFlags, names []string) error {
	if err := play.check(); err != nil {
		return err
	}
	scenarios, err := readScenarios(names)
	if err != nil {
		return daemon.UsageError(err)
	}
	cfg.Drops = slices.ContainsFunc(scenarios, (*scenario.Scenario).Drops)
	ctx, cancel := play.limit(cmd.Context())
	defer cancel()
	late := func(err error) error {
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("evaluate %s: %w", cfg.Flake, context.Cause(ctx))
		}
		return unavailable(err)
	}
	if _, err := labAsRoot(ctx, cmd, cfg); err != nil {
		return late(err)
	}
	out := cmd.OutOrStdout()
	if result.format == outputJSON {
		cfg.Say = func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
		out = io.Discard
	}
	cfg.Artifacts = result.artifacts
	runner, err := labrun.New(ctx, cfg)
	if err != nil {
		return late(err)
	}
	for _, warning := range runner.Warnings() {
		cfg.Eval.Warn(warning)
	}
	report, err := runner.Check(ctx)
	if err != nil {
		return unavailable(err)
	}
	report.PrintHead(out)
	fmt.Fprintln(out)
	report.PrintChecks(out)
	if report.OK() && len(scenarios) > 0 {
		fmt.Fprintln(out)
		if err := runner.Play(ctx, report, scenarios, play.runs, play.scale); err != nil {
			return err
		}
		report.Measure()
		if rows := report.Rows(); len(rows) > 0 {
			fmt.Fprintln(out)
			if err := printTable(out, labrun.TimesHeader, rows); err != nil {
				return err
			}
		}
	}
	for _, dir := range report.Artifacts {
		fmt.Fprintf(out, "What is left of a failure is in %s.\n", dir)
	}
	if err := result.write(cmd, report); err != nil {
		return err
	}
	if !report.OK() {
		return errNotAsDeclared
	}
	return nil
}

func (f *resultFlags) write(cmd *cobra.Command, report *labrun.Report) error {
	var errs []error
	if f.junit != "" {
		errs = append(errs, toFile(f.junit, report.WriteJUnit))
	}
	if f.svg != "" && len(report.Scenarios) > 0 {
		errs = append(errs, toFile(f.svg, func(w io.Writer) error { return scenario.WriteSVG(w, report.Scenarios) }))
	}
	if f.format == outputJSON {
		errs = append(errs, printJSON(cmd.OutOrStdout(), report))
	}
	return errors.Join(errs...)
}

func toFile(name string, write func(io.Writer) error) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

// unavailable gives an error of a machine that cannot run a lab its exit status.
func unavailable(err error) error {
	if errors.Is(err, labrun.ErrUnavailable) || errors.Is(err, lab.ErrBusy) {
		return &daemon.ExitError{Code: exitUnavailable, Err: err}
	}
	return err
}

// readScenarios finds scenarios by name in the catalogue, or as files.
func readScenarios(args []string) (list []*scenario.Scenario, err error) {
	for _, arg := range args {
		if arg == "all" {
			all, err := scenario.Catalogue()
			if err != nil {
				return nil, err
			}
			list = append(list, all...)
			continue
		}
		s, err := scenario.Find(arg)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func completeScenarios(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	all, err := scenario.Catalogue()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names := []string{"all"}
	for _, s := range all {
		names = append(names, s.Name+"\t"+s.Title)
	}
	return names, cobra.ShellCompDirectiveDefault
}

func labScenariosCommand() *cobra.Command {
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "scenarios [NAME]",
		Short: "List the scenarios that ship with plasmactl, or print one to start your own from",
		Example: `  plasmactl lab scenarios
  plasmactl lab scenarios vip-drains > our-drain.txtar`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			names, _ := completeScenarios(cmd, args, word)
			return names[min(1, len(names)):], cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				text, err := scenario.Text(args[0])
				if err != nil {
					return daemon.UsageError(err)
				}
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			all, err := scenario.Catalogue()
			if err != nil {
				return err
			}
			var rows [][]any
			type entry struct {
				Name  string `json:"name"`
				Title string `json:"title"`
			}
			var list []entry
			for _, s := range all {
				rows = append(rows, []any{s.Name, s.Title})
				list = append(list, entry{s.Name, s.Title})
			}
			if format == outputJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printTable(cmd.OutOrStdout(), "NAME\tWHAT HAPPENS", rows)
		},
	}
	format.register(cmd)
	return cmd
}
