// Command soak lets things go wrong for as long as it is told, and looks whether
// all is well afterwards. It is run by `make soak`.
//
// Two parts, one after the other: faults at random points, and 10,000 VIPs of
// which one in a hundred flaps. What is random comes from --seed, which is printed.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/pflag"

	"github.com/centra/plasmacloud/vmtests/labcluster"
)

func main() {
	only := pflag.String("only", "", "`PART`: faults or flapping")
	long := pflag.Duration("time", 5*time.Minute, "how long each part takes")
	seed := pflag.Uint64("seed", uint64(time.Now().UnixNano()), "where randomness starts")
	speaker := pflag.String("speaker", "v4", "gobgpd: v3, v4 or debian")
	vips := pflag.Int("vips", 10_000, "how many `VIPS`, of which one in a hundred flaps")
	pflag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *only, *long, *seed, *speaker, *vips); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, long time.Duration, seed uint64, speaker string, vips int) error {
	if only != "" && only != "faults" && only != "flapping" {
		return fmt.Errorf("--only %s: there are faults and flapping", only)
	}
	dir, err := os.MkdirTemp("", "plasmacloud-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	programs, err := labcluster.Build(dir, ".")
	if err != nil {
		return err
	}
	s := soak{repo: ".", programs: programs, speaker: speaker, seed: seed, say: func(format string, args ...any) { fmt.Printf(format+"\n", args...) }}
	if only != "flapping" {
		until := time.Now().Add(long)
		err := s.faults(ctx, func(round int) bool { return round == 0 || time.Now().Before(until) })
		if err != nil {
			return fmt.Errorf("faults: %w", err)
		}
	}
	if only != "faults" {
		if err := s.flapping(ctx, vips, long); err != nil {
			return fmt.Errorf("flapping: %w", err)
		}
	}
	return ctx.Err()
}

// soak is what both parts need to know.
type soak struct {
	repo     string // the checkout
	programs labcluster.Programs
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
	return labcluster.Start(labcluster.Config{Name: name + s.speaker, Repo: s.repo, Programs: s.programs, Speaker: s.speaker, Cluster: evaluated[name]})
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
