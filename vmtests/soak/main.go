// Command soak lets things go wrong for as long as it is told, and looks whether
// all is well afterwards. It is run by `make soak`.
//
// Four parts, one after the other: faults at random points, 10,000 VIPs of which one
// in a hundred flaps, 10,000 nodes that boot at once while their deployer is killed
// a hundred times, and a lab of 50 nodes. What is random comes from --seed, which is printed.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/centra/plasmacloud/vmtests/deployerproc"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

func main() {
	only := pflag.String("only", "", "`PART`: faults, flapping, storm or size")
	long := pflag.Duration("time", 5*time.Minute, "how long faults and flapping take")
	seed := pflag.Uint64("seed", uint64(time.Now().UnixNano()), "where randomness starts")
	speaker := pflag.String("speaker", "v4", "gobgpd: v3, v4 or debian")
	vips := pflag.Int("vips", 10_000, "how many `VIPS`, of which one in a hundred flaps")
	nodes := pflag.Int("nodes", 10_000, "how many `NODES` boot at once in the storm")
	kills := pflag.Int("kills", 100, "how often the storm's deployer is killed")
	pflag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *only, *long, *seed, *speaker, *vips, *nodes, *kills); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, long time.Duration, seed uint64, speaker string, vips, nodes, kills int) error {
	if !slices.Contains([]string{"", "faults", "flapping", "storm", "size"}, only) {
		return fmt.Errorf("--only %s: there are faults, flapping, storm and size", only)
	}
	dir, err := os.MkdirTemp("", "plasmacloud-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := soak{repo: ".", speaker: speaker, seed: seed, say: func(format string, args ...any) { fmt.Printf(format+"\n", args...) }}
	if only != "storm" {
		if s.programs, err = labcluster.Build(dir, "."); err != nil {
			return err
		}
	}
	if only == "" || only == "faults" {
		until := time.Now().Add(long)
		err := s.faults(ctx, func(round int) bool { return round == 0 || time.Now().Before(until) })
		if err != nil {
			return fmt.Errorf("faults: %w", err)
		}
	}
	if only == "" || only == "flapping" {
		if err := s.flapping(ctx, vips, long); err != nil {
			return fmt.Errorf("flapping: %w", err)
		}
	}
	if only == "" || only == "storm" {
		program, err := deployerproc.Build(ctx, dir, ".")
		if err == nil {
			err = s.storm(ctx, program, nodes, kills)
		}
		if err != nil {
			return fmt.Errorf("storm: %w", err)
		}
	}
	if only == "" || only == "size" {
		if err := s.size(ctx, 50); err != nil {
			return fmt.Errorf("size: %w", err)
		}
	}
	return ctx.Err()
}

// soak is what the parts need to know.
type soak struct {
	repo     string // the checkout
	programs labcluster.Built
	speaker  string
	seed     uint64
	say      func(format string, args ...any)
}

// start runs a cluster, given in Nix. What it returns is to be closed also with an error.
func (s soak) start(ctx context.Context, name, module string) (*labcluster.Cluster, error) {
	evaluated, err := labcluster.Evaluate(ctx, s.repo, map[string]string{name: module})
	if err != nil {
		return nil, err
	}
	return labcluster.Start(labcluster.Config{Name: name + s.speaker, Programs: s.programs.With(s.speaker), Cluster: evaluated[name]})
}

// finish closes the cluster, and shows what it logged where something went wrong.
func finish(c *labcluster.Cluster, s soak, err *error) {
	if c == nil {
		return
	}
	if *err != nil {
		s.say("%s", c.Log())
	}
	if closing := c.Close(); *err == nil {
		*err = closing
	}
}
