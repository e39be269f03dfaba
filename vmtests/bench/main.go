// Command bench measures PlasmaCloud on this machine, with its peers side by
// side in the same run, and prints figures and ratios. It is run by `make bench`.
//
// Absolute times depend on the machine and on what else it does; the ratios,
// taken within one run, are what to compare.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"
)

// figure is one line of the report.
type figure struct {
	work  string
	value string
	peer  string // what the ratio is to; empty: no peer at hand
	ratio float64
}

// section measures one part.
type section struct {
	name, about string
	run         func(context.Context, *bench) ([]figure, error)
}

// bench is what all sections share.
type bench struct {
	repo string // the checkout
	dir  string // temporary
	runs int
	vips []int // how many, each measured

	built bool // the programs of build are there
}

var sections = []section{
	{"eval", "one nix eval of the whole cluster (PLASMACLOUD_NIXPKGS_LIB: with nixpkgs' own lib)", benchEval},
	{"announce", "from the changed configuration to a BIRD router's table, from one VIP to many", benchAnnounce},
	{"flip", "the health check of one VIP fails, until a GoBGP router's best path is gone; peers are told to withdraw", benchFlip},
	{"restart", "from SIGKILL of what speaks BGP, which starts again at once, to a BIRD router that has all routes again", benchRestart},
	{"rest", "many VIPs and nothing to do: memory, and processor time in parts of one processor", benchRest},
	{"hold", "many VIPs in the kernel", benchHold},
	{"boot", "a small ISO in QEMU, from power on to Active at the deployer", benchBoot},
	{"phone-home", "reports over 256 connections: registrations, each on disk before its answer, and heartbeats", benchPhoneHome},
	{"fleet", "a deployer in a process of its own, with many nodes", benchFleet},
	{"metadata", "what machines ask for when they boot, of a deployer and of matchbox with a group for each", benchMetadata},
}

func main() {
	only := pflag.StringSlice("only", nil, "measure these `SECTIONS` only")
	runs := pflag.Int("runs", 3, "`N` runs of each, the median is printed")
	vips := pflag.IntSlice("vips", []int{10_000, 100_000}, "measure the announcer with so `MANY` VIPs, at most 100000")
	pflag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := report(ctx, *only, *runs, *vips); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func report(ctx context.Context, only []string, runs int, vips []int) error {
	for _, name := range only {
		if !slices.ContainsFunc(sections, func(s section) bool { return s.name == name }) {
			return fmt.Errorf("--only %s: there is no such section", name)
		}
	}
	if runs < 1 {
		return errors.New("--runs: want at least 1")
	}
	if len(vips) == 0 || slices.Min(vips) < 2 || slices.Max(vips) > 100_000 {
		return errors.New("--vips: want numbers from 2 to 100000")
	}
	repo, err := os.Getwd()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "plasmacloud-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	b := &bench{repo: repo, dir: dir, runs: runs, vips: vips}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, s := range sections {
		if len(only) > 0 && !slices.Contains(only, s.name) {
			continue
		}
		figures, err := s.run(ctx, b)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(out, "%s: %s\n", s.name, s.about)
		for _, f := range figures {
			fmt.Fprintf(out, "  %s\t%s", f.work, f.value)
			if f.peer != "" {
				fmt.Fprintf(out, "\t%.3g x %s", f.ratio, f.peer)
			}
			fmt.Fprintln(out)
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// measures says on stderr what is measured next, since much of it takes minutes.
func (b *bench) measures(section string, vips int, what string) {
	fmt.Fprintf(os.Stderr, "%s %s: %d VIPs, %s\n", time.Now().Format(time.TimeOnly), section, vips, what)
}

// median of what measure returns in so many runs.
func median[T int64 | float64 | time.Duration](runs int, measure func() (T, error)) (T, error) {
	var all []T
	for range runs {
		v, err := measure()
		if err != nil {
			return 0, err
		}
		all = append(all, v)
	}
	return percentile(all, 50), nil
}

func percentile[T int64 | float64 | time.Duration](all []T, p int) T {
	slices.Sort(all)
	return all[min(len(all)-1, len(all)*p/100)]
}
