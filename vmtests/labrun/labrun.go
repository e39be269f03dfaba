// Package labrun evaluates a cluster, runs it in a lab, compares it with its
// evaluation and plays scenarios on it, and tells of it as a list, as JSON and as
// JUnit's XML.
package labrun

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
	"github.com/centra/plasmacloud/vmtests/scenario"
)

// Config says what to run.
type Config struct {
	Flake string
	Eval  nixeval.Config
	// Evaluated is a file with what the flake was evaluated to, in place of Flake.
	Evaluated string
	Bin       string   // folder of PlasmaCloud's programs
	GoBGPD    string   // the speaker of nodes with the gobgp backend; "": beside the programs, or in PATH
	Routers   []string // kinds, see labcluster.Config
	Name      string   // of the lab; "": the cluster's
	Checkers  bool     // let each daemon check its own configuration too
	Drops     bool     // scenarios drop packets
	Patience  time.Duration
	// Artifacts is the folder for what a failure leaves: logs, tables, captures. "": none.
	Artifacts string
	// Say takes a line about what is being done; nil discards.
	Say func(format string, args ...any)
	// Doing takes what is being done from now on, for somebody who waits; nil discards.
	Doing func(what string)
}

// DefaultPatience is how long a lab may take to be as it was evaluated.
const DefaultPatience = 30 * time.Second

// ErrUnavailable says that this machine cannot run the lab.
var ErrUnavailable = errors.New("this machine cannot run the lab")

// Runner runs labs of one cluster.
type Runner struct {
	cfg       Config
	evaluated *nixeval.MachinesResult
	programs  labcluster.Programs
	speaker   string // which gobgpd
	routers   int    // how many
	doing     string // what cfg.Doing was told
}

// New evaluates the cluster, and looks whether all is there that its lab needs.
func New(ctx context.Context, cfg Config) (*Runner, error) {
	if cfg.Say == nil {
		cfg.Say = func(string, ...any) {}
	}
	if cfg.Doing == nil {
		cfg.Doing = func(string) {}
	}
	cfg.Patience = cmp.Or(cfg.Patience, DefaultPatience)
	if err := nixeval.RemoveScratch(); err != nil {
		return nil, err
	}
	cfg.Doing("evaluating " + cmp.Or(cfg.Evaluated, cfg.Flake))
	evaluated, err := evaluate(ctx, cfg)
	if err != nil {
		return nil, err
	}
	r := &Runner{cfg: cfg, evaluated: evaluated}
	if r.cfg.Name == "" {
		r.cfg.Name = nameFor(evaluated.Manifest.Cluster.Name)
	}
	return r, r.findPrograms(ctx)
}

func evaluate(ctx context.Context, cfg Config) (*nixeval.MachinesResult, error) {
	if cfg.Evaluated == "" {
		return nixeval.New(cfg.Eval).EvalMachines(ctx, cfg.Flake)
	}
	text, err := os.ReadFile(cfg.Evaluated)
	if err != nil {
		return nil, err
	}
	result, err := nixeval.DecodeMachines(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Evaluated, err)
	}
	return result, nil
}

// nameFor makes a lab's name of a cluster's.
func nameFor(cluster string) string {
	name := strings.Trim(regexp.MustCompile(`[^a-z0-9-]+`).ReplaceAllString(strings.ToLower(cluster), "-"), "-")
	return cmp.Or(strings.Trim(name[:min(len(name), 24)], "-"), "lab")
}

// Name is the lab's.
func (r *Runner) Name() string { return r.cfg.Name }

// Warnings are what the evaluation has to say.
func (r *Runner) Warnings() []string { return r.evaluated.Warnings() }

func (r *Runner) asEvaluated() *labcluster.Evaluated {
	return &labcluster.Evaluated{Manifest: r.evaluated.Manifest, Machines: r.evaluated.Machines}
}

// start builds the lab of a cluster, the only one of its name, and captures what its routers
// see where artifacts are wanted. Both are to be closed also after an error.
func (r *Runner) start(e *labcluster.Evaluated) (c *labcluster.Cluster, capture *captures, err error) {
	cfg := labcluster.Config{Name: r.cfg.Name, Alone: true, Programs: r.programs, Cluster: e, Routers: r.cfg.Routers,
		Deployer: true, Clients: true, Looked: r.looked}
	if r.cfg.Artifacts != "" {
		cfg.Wired = func(c *labcluster.Cluster) (err error) {
			capture, err = captureRouters(c)
			return err
		}
	}
	c, err = labcluster.Start(cfg)
	if errors.Is(err, lab.ErrBusy) {
		err = fmt.Errorf("%w; end it with `plasmactl lab down --name %s`, or give this one another --name", err, r.cfg.Name)
	}
	return c, capture, err
}

func (r *Runner) do(format string, args ...any) {
	r.doing = fmt.Sprintf(format, args...)
	r.cfg.Doing(r.doing)
}

// looked tells how far the cluster is from what is waited for.
func (r *Runner) looked(list []labcluster.Check) {
	r.cfg.Doing(fmt.Sprintf("%s: %d of %d checks are ok", r.doing, len(list)-len(labcluster.Failed(list)), len(list)))
}

// patience is how long the lab may take, with what its own configuration asks for.
func (r *Runner) patience() time.Duration {
	return r.cfg.Patience + time.Duration(len(r.evaluated.Manifest.Nodes))*time.Second/2 + slowestRise(r.evaluated.Machines)
}

var errInterrupted = errors.New("interrupted")

// interrupted tells whether the context was ended by a user, and not by its time: that
// is a result as others are.
func interrupted(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// Check builds the lab, compares it with its evaluation, and takes it down.
func (r *Runner) Check(ctx context.Context) (report *Report, err error) {
	report = r.newReport()
	begin := time.Now()
	r.do("starting the lab of %s", count(len(r.evaluated.Manifest.Nodes), "node"))
	c, capture, err := r.start(r.asEvaluated())
	defer func() {
		r.do("taking the lab down")
		r.close(capture)
		err = errors.Join(err, c.Close())
	}()
	if err != nil {
		r.keep(c, "lab", capture)
		return nil, err
	}
	report.Up = time.Since(begin)
	if r.cfg.Checkers {
		report.Files = c.CheckFiles()
	}
	r.do("waiting until all is as declared")
	report.Checks = append(report.Files, c.Settle(ctx, r.patience())...)
	report.Settled = time.Since(begin)
	report.Instead = c.Instead
	report.routers(c)
	if interrupted(ctx) {
		return nil, errInterrupted
	}
	if !report.OK() {
		report.left(r.keep(c, "lab", capture))
	}
	return report, nil
}

// Play plays scenarios, each so many times, and adds how they went to the report.
func (r *Runner) Play(ctx context.Context, report *Report, scenarios []*scenario.Scenario, runs int, scale float64) error {
	for _, s := range scenarios {
		for run := 1; run <= runs; run++ {
			var capture *captures
			var cluster *labcluster.Cluster
			name := fmt.Sprintf("%s-%d", s.Name, run)
			where := s.Name
			if runs > 1 {
				where = fmt.Sprintf("%s, run %d of %d", s.Name, run, runs)
			}
			result := s.Play(ctx, scenario.Stage{
				Start: func(ctx context.Context, change scenario.Change) (*labcluster.Cluster, error) {
					e, err := r.evaluate(ctx, change)
					if err != nil {
						return nil, err
					}
					cluster, capture, err = r.start(e)
					return cluster, err
				},
				Evaluate: r.evaluateAnew,
				Step:     func(line int, text string) { r.do("%s, line %d: %s", where, line, text) },
				Has:      r.has(),
				Patience: r.patience(),
				Scale:    scale,
				Failed: func(c *labcluster.Cluster) {
					report.left(r.keep(c, name, capture))
				},
			})
			if cluster != nil {
				for _, what := range cluster.Instead {
					if !slices.Contains(report.Instead, what) {
						report.Instead = append(report.Instead, what)
						r.cfg.Say("instead: %s", what)
					}
				}
			}
			r.close(capture)
			if interrupted(ctx) {
				return errInterrupted
			}
			result.Run = run
			report.Scenarios = append(report.Scenarios, result)
			r.cfg.Say("%s", oneLine(result, where))
			if ctx.Err() != nil {
				return nil // out of time, and the result says so
			}
			if result.Skipped != "" || !result.OK() {
				break // another run would end in the same way
			}
		}
	}
	return nil
}

// has is what a scenario finds in a lab of the cluster.
func (r *Runner) has() scenario.Has {
	return scenario.Has{scenario.Nodes: len(r.evaluated.Manifest.Nodes), scenario.Routers: r.routers,
		scenario.Links: 1, scenario.Power: 1, scenario.Evaluation: 1}
}

// evaluate is the cluster as it is, or with a change.
func (r *Runner) evaluate(ctx context.Context, change scenario.Change) (*labcluster.Evaluated, error) {
	if change == (scenario.Change{}) {
		return r.asEvaluated(), nil
	}
	return r.evaluateAnew(ctx, change)
}

func (r *Runner) evaluateAnew(ctx context.Context, change scenario.Change) (*labcluster.Evaluated, error) {
	flake := r.cfg.Flake
	if r.cfg.Evaluated != "" {
		if change != (scenario.Change{}) {
			return nil, scenario.Skip("it changes the configuration, and there is no flake, only what was evaluated before")
		}
		result, err := evaluate(ctx, r.cfg)
		if err != nil {
			return nil, err
		}
		return &labcluster.Evaluated{Manifest: result.Manifest, Machines: result.Machines}, nil
	}
	if change.Cluster != "" {
		copied, err := nixeval.CopyFlake(flake, map[string]string{scenario.ClusterFile: change.Cluster})
		if err != nil {
			return nil, fmt.Errorf("put %s in the place of that of the flake: %w", scenario.ClusterFile, err)
		}
		defer os.RemoveAll(copied.Dir)
		flake = copied.Ref
	}
	eval := r.cfg.Eval
	eval.Lib = r.evaluated.Lib // the same, and what there was to warn of was said
	eval.Kept = ""
	result, err := nixeval.New(eval).EvalMachinesWith(ctx, flake, change.Module)
	if err != nil {
		return nil, err
	}
	return &labcluster.Evaluated{Manifest: result.Manifest, Machines: result.Machines}, nil
}
