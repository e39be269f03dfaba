// Package scenario plays stories of failures on a cluster in a lab: a file has
// commands, a line each, that do something or wait until something is so, and
// below them files in the format txtar.
//
// The commands are listed in docs/lab.md. A command that waits is timed from the
// last one that did something.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// Scenario is a file that was read.
type Scenario struct {
	Name  string
	Title string            // the comment that it begins with
	Files map[string]string // below the commands, by name
	Needs Has               // what a site must have

	steps []step
}

// step is one command.
type step struct {
	line  int
	text  string
	words []string
}

// ClusterFile is the file of a scenario that has a cluster of its own: a module in
// the Nix language, in place of the file of this name in the cluster's flake.
const ClusterFile = "cluster.nix"

// most bounds the commands of a scenario.
const most = 1000

// Parse reads a scenario.
func Parse(name string, text []byte) (*Scenario, error) {
	archive := txtar.Parse(text)
	s := &Scenario{Name: name, Files: map[string]string{}, Needs: Has{}}
	for _, f := range archive.Files {
		if _, twice := s.Files[f.Name]; twice {
			return nil, fmt.Errorf("scenario %s has the file %s twice", name, f.Name)
		}
		s.Files[f.Name] = string(f.Data)
	}
	var title []string
	for i, line := range strings.Split(string(archive.Comment), "\n") {
		text := strings.TrimSpace(line)
		if comment, is := strings.CutPrefix(text, "#"); is {
			if len(s.steps) == 0 && len(s.Needs) == 0 {
				title = append(title, strings.TrimSpace(comment))
			}
			continue
		}
		words, err := split(text)
		if err != nil {
			return nil, fmt.Errorf("scenario %s, line %d: %w", name, i+1, err)
		}
		if len(words) == 0 {
			continue
		}
		if words[0] == "needs" {
			if err = s.need(words[1:]); err == nil && len(s.steps) > 0 {
				err = errors.New("what it needs comes before the first command")
			}
			if err != nil {
				return nil, fmt.Errorf("scenario %s, line %d: %w", name, i+1, err)
			}
			continue
		}
		command := words[0]
		if command == "each" && len(words) > 1 {
			command = words[1]
		}
		if _, known := commands[command]; !known {
			return nil, fmt.Errorf("scenario %s, line %d: there is no command %q; the commands are %s", name, i+1, command, strings.Join(Commands(), ", "))
		}
		s.steps = append(s.steps, step{i + 1, text, words})
	}
	s.Title = strings.Join(title, " ")
	switch {
	case len(s.steps) == 0:
		return nil, fmt.Errorf("scenario %s has no command", name)
	case len(s.steps) > most:
		return nil, fmt.Errorf("scenario %s has %d commands, and may have %d", name, len(s.steps), most)
	}
	return s, nil
}

// Drops tells whether the scenario drops packets, which takes nftables.
func (s *Scenario) Drops() bool {
	return slices.ContainsFunc(s.steps, func(step step) bool {
		words := step.words
		if words[0] == "each" {
			words = words[1:]
		}
		return len(words) > 1 && words[0] == "link" && (words[1] == "split" || words[1] == "lose")
	})
}

// split takes a line apart at blanks; what is in single quotes is one word.
func split(line string) (words []string, err error) {
	var word strings.Builder
	quoted, open := false, false
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, open = !quoted, true
		case !quoted && (r == ' ' || r == '\t'):
			if open {
				words = append(words, word.String())
				word.Reset()
				open = false
			}
		default:
			word.WriteRune(r)
			open = true
		}
	}
	if quoted {
		return nil, errors.New("a quote is not closed")
	}
	if open {
		words = append(words, word.String())
	}
	return words, nil
}

// Change is what a scenario has else than the cluster as it is.
type Change struct {
	Cluster string // the text of ClusterFile in its place; "": as it is
	Module  string // the text of a further NixOS module of every node; "": none
}

// Stage is where scenarios are played.
type Stage struct {
	// Start starts the cluster of the stage with a change. It is closed by who plays,
	// also after an error.
	Start func(context.Context, Change) (*labcluster.Cluster, error)
	// Evaluate evaluates the cluster anew, in the same way.
	Evaluate func(context.Context, Change) (*labcluster.Evaluated, error)
	// Has is what the site has of what scenarios may need; one that needs more is skipped.
	Has Has
	// Patience is how long to wait for what should happen soon.
	Patience time.Duration
	// Scale divides the time of `wait ... scaled`; 0 is DefaultScale.
	Scale float64
	// Pull is how often a client asks where the scenario does not say; 0: every 10 ms.
	Pull time.Duration
	// Stands says that the cluster is not the scenario's own, and stays.
	Stands bool
	// Failed is called with the cluster as it is when a step has failed; it may be nil.
	Failed func(*labcluster.Cluster)
	// Step is called before each command; it may be nil.
	Step func(line int, text string)
}

// DefaultScale makes three seconds of a minute.
const DefaultScale = 20

// Result is how a scenario went.
type Result struct {
	Name    string        `json:"name"`
	Title   string        `json:"title,omitempty"`
	Run     int           `json:"run"`
	Begin   time.Time     `json:"begin"`
	Took    time.Duration `json:"took_ns"`
	Steps   []StepResult  `json:"steps"`
	Clients []ClientView  `json:"clients,omitempty"`
	Skipped string        `json:"skipped,omitempty"` // why it does not apply to the cluster or the site
	Error   string        `json:"error,omitempty"`   // of the step that failed
}

// OK tells whether nothing failed.
func (r *Result) OK() bool { return r.Error == "" }

// StepResult is how a command went.
type StepResult struct {
	Line  int           `json:"line"`
	Text  string        `json:"text"`
	Waits bool          `json:"waits"` // until something is so
	At    time.Duration `json:"at_ns"` // since the beginning
	Took  time.Duration `json:"took_ns"`
	// After is, for one that waits, the time from the end of the last command that did something.
	After time.Duration `json:"after_ns,omitempty"`
	Error string        `json:"error,omitempty"`
}

// Timed tells whether the step is one that converges: not what is counted of clients.
func (s StepResult) Timed() bool { return s.Waits && !strings.HasPrefix(s.Text, "client ") }

// ClientView is what a client saw of a VIP by a router.
type ClientView struct {
	VIP    string           `json:"vip"`
	Router string           `json:"router"`
	Tally  labcluster.Tally `json:"tally"`

	requests []labcluster.Request
}

// errSkip ends a scenario that does not apply to the cluster.
type errSkip struct{ reason string }

// Skip is the error of a [Stage] that lacks what the scenario needs: the reason.
func Skip(reason string) error { return errSkip{reason} }

func (e errSkip) Error() string { return e.reason }

// Play plays a scenario on a cluster of its own.
func (s *Scenario) Play(ctx context.Context, stage Stage) (result *Result) {
	p := &play{stage: stage, scenario: s, result: &Result{Name: s.Name, Title: s.Title, Begin: time.Now()}}
	result = p.result
	defer func() {
		p.endClients()
		if p.c == nil {
			return
		}
		if !result.OK() && stage.Failed != nil {
			stage.Failed(p.c)
		}
		if stage.Stands {
			return
		}
		if err := p.c.Close(); err != nil && result.OK() {
			result.Error = "close the lab: " + err.Error()
		}
	}()
	if lacks := s.Lacks(stage.Has); lacks != "" {
		result.Skipped = lacks
		return result
	}
	acted := time.Now()
	for _, step := range s.steps {
		begin := time.Now()
		if stage.Step != nil {
			stage.Step(step.line, p.readable(step))
		}
		waits, err := p.do(ctx, step)
		if ctx.Err() != nil { // whatever it made of that
			err = context.Cause(ctx)
		}
		end := time.Now()
		r := StepResult{Line: step.line, Text: p.readable(step), Waits: waits, At: begin.Sub(result.Begin), Took: end.Sub(begin)}
		if waits {
			r.After = end.Sub(acted)
		} else {
			acted = end
			if step.words[0] != "cluster" { // what it does shows from its first moment on
				acted = begin
			}
		}
		var skip errSkip
		if errors.As(err, &skip) {
			result.Skipped = skip.reason
			break
		}
		if err != nil {
			r.Error = err.Error()
			result.Error = fmt.Sprintf("line %d: %s: %s", step.line, step.text, err)
		}
		result.Steps = append(result.Steps, r)
		if err != nil {
			break
		}
	}
	if p.watch != nil { // it ends also after what has failed, which was the first to
		if err := p.watch.Stop(); err != nil && result.OK() && result.Skipped == "" {
			result.Error = "never blackholed: " + err.Error()
		}
	}
	result.Took = time.Since(result.Begin)
	return result
}

// do runs one command, or by `each` the same for each node with a speaker.
func (p *play) do(ctx context.Context, s step) (waits bool, err error) {
	words := s.words
	if words[0] != "each" {
		return p.one(ctx, words)
	}
	if p.c == nil {
		return false, errNotStarted
	}
	for _, id := range p.speakers() {
		var own []string
		for _, word := range words[1:] {
			own = append(own, strings.ReplaceAll(word, "$EACH", id))
		}
		if waits, err = p.one(ctx, own); err != nil {
			return waits, fmt.Errorf("%s: %w", id, err)
		}
	}
	return waits, nil
}

// mostNamed is how many nodes are named where they are shown; of more it is how many.
const mostNamed = 4

// readable is a command with what it means in place of names with a dollar sign.
func (p *play) readable(s step) string {
	words := strings.Fields(s.text)
	for i, word := range words {
		value, err := p.expand(word)
		if err != nil {
			continue
		}
		if count := strings.Count(value, ",") + 1; count > mostNamed {
			value = fmt.Sprintf("%d nodes", count)
		}
		words[i] = value
	}
	return strings.Join(words, " ")
}

func (p *play) one(ctx context.Context, words []string) (waits bool, err error) {
	c := commands[words[0]]
	args := slices.Clone(words[1:])
	for i, word := range args {
		if args[i], err = p.expand(word); err != nil {
			return false, err
		}
	}
	if p.c == nil && words[0] != "cluster" {
		return false, errNotStarted
	}
	return c(p, ctx, args)
}

var errNotStarted = errors.New("the cluster does not run yet: begin with `cluster start`")
