package scenarios

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

var speakerFlag = flag.String("speaker", "", "play every scenario with this gobgpd: v3, v4 or debian")

// Each file in testdata is a scenario: commands, and below them the cluster in the
// Nix language. README.md there has the commands. The scenarios take turns with the
// generations of gobgpd, unless a flag says which one all have.
func TestScenarios(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	byName := func(name string) string {
		if *speakerFlag != "" {
			return *speakerFlag
		}
		i := slices.IndexFunc(files, func(file string) bool { return filepath.Base(file) == name+".txtar" })
		return []string{"v3", "v4"}[i%2]
	}
	testscript.Run(t, testscript.Params{
		Files: files,
		Setup: func(e *testscript.Env) error {
			name := strings.TrimPrefix(filepath.Base(e.WorkDir), "script-")
			e.Values[playKey{}] = &play{name: name, speaker: byName(name)}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cluster": command((*play).clusterCommand), "router": command((*play).routerCommand), "host": command((*play).hostCommand),
			"gobgpd": command((*play).gobgpdCommand), "announcer": command((*play).announcerCommand),
			"check": command((*play).checkCommand), "vip": command((*play).vipCommand), "link": command((*play).linkCommand),
		},
	})
}

type playKey struct{}

// play is a scenario that runs.
type play struct {
	name    string
	speaker string // v3, v4 or debian
	ts      *testscript.TestScript
	c       *labcluster.Cluster
	watch   *labcluster.Watch
	updates map[string]int // by router, at its last `router mark`
}

// command makes a command of the script's language: a subject, and then a verb with its objects.
func command(do func(*play, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, negated bool, args []string) {
		p := ts.Value(playKey{}).(*play)
		p.ts = ts
		if negated {
			ts.Fatalf("! is not for this command")
		}
		if err := do(p, args); err != nil {
			if p.c != nil {
				ts.Logf("%s", p.c.Log())
			}
			ts.Fatalf("%v", err)
		}
	}
}

var errUsage = errors.New("unknown words; see README.md beside the script")

func match(args []string, words ...string) bool {
	if len(args) != len(words) {
		return false
	}
	for i, word := range words {
		if word != "*" && word != args[i] {
			return false
		}
	}
	return true
}

func (p *play) node(id string) *labcluster.Node {
	n := p.c.Nodes[id]
	if n == nil {
		p.ts.Fatalf("the cluster has no node %s", id)
	}
	return n
}

func (p *play) evaluate(file string) (*labcluster.Evaluated, error) {
	evaluated, err := labcluster.Evaluate(context.Background(), repo, map[string]string{"it": p.ts.ReadFile(file)})
	return evaluated["it"], err
}

func (p *play) clusterCommand(args []string) error {
	switch {
	case match(args, "start"):
		evaluated, err := p.evaluate("cluster.nix")
		if err != nil {
			return err
		}
		p.c, err = labcluster.Start(labcluster.Config{Name: "play" + p.speaker, Programs: programs.With(p.speaker), Cluster: evaluated})
		p.ts.Defer(func() { p.ts.Check(p.c.Close()) })
		if err != nil {
			return err
		}
		p.watch = p.c.Watch("bird1")
		p.ts.Defer(func() { p.ts.Check(p.watch.Stop()) })
		return nil
	case match(args, "reload", "*"):
		evaluated, err := p.evaluate(args[1])
		if err != nil {
			return err
		}
		for _, n := range p.c.Nodes {
			if err := n.Reload(evaluated); err != nil {
				return err
			}
		}
		return nil
	}
	return errUsage
}

// every asks each router until none has an error.
func (p *play) every(check func(*labcluster.Router) error) error {
	return lab.Eventually(patience, func() error {
		for name, r := range p.c.Routers {
			if err := check(r); err != nil {
				return fmt.Errorf("router %s: %w", name, err)
			}
		}
		return nil
	})
}

func (p *play) routerCommand(args []string) error {
	switch {
	case match(args, "has", "*", "via", "*"), match(args, "has", "*"):
		vip, err := netip.ParseAddr(args[1])
		if err != nil {
			return err
		}
		var want []netip.Addr
		for _, id := range strings.Split(append(args, "", "")[3], ",") {
			if id != "" {
				want = append(want, p.node(id).NextHop(vip))
			}
		}
		slices.SortFunc(want, netip.Addr.Compare)
		return p.every(func(r *labcluster.Router) error {
			hops, err := r.Lookup(netip.PrefixFrom(vip, vip.BitLen()))
			slices.SortFunc(hops, netip.Addr.Compare)
			if err == nil && (len(hops) == 0 || want != nil && !slices.Equal(hops, want)) {
				err = fmt.Errorf("has %s via %v, not %v", vip, hops, want)
			}
			return err
		})
	case match(args, "lacks", "*"):
		vip, err := netip.ParseAddr(args[1])
		if err != nil {
			return err
		}
		return p.every(func(r *labcluster.Router) error {
			hops, err := r.Lookup(netip.PrefixFrom(vip, vip.BitLen()))
			if err == nil && len(hops) > 0 {
				err = fmt.Errorf("has %s via %v", vip, hops)
			}
			return err
		})
	case match(args, "mark"):
		p.updates = map[string]int{}
		for name, r := range p.c.Routers {
			count, err := r.Updates()
			if err != nil {
				return err
			}
			p.updates[name] = count
		}
		return nil
	case match(args, "quiet"):
		for name, r := range p.c.Routers {
			if count, err := r.Updates(); err != nil || count != p.updates[name] {
				return fmt.Errorf("router %s has heard %d updates since the mark: %w", name, count-p.updates[name], err)
			}
		}
		return nil
	case match(args, "sessions", "*"):
		return p.every(func(r *labcluster.Router) error {
			up, err := r.Established()
			if err == nil && fmt.Sprint(up) != args[1] {
				err = fmt.Errorf("has %d sessions", up)
			}
			return err
		})
	case match(args, "kill", "*"):
		return p.c.Routers[args[1]].Kill()
	case match(args, "start", "*"):
		return p.c.Routers[args[1]].Start()
	}
	return errUsage
}

func (p *play) hostCommand(args []string) error {
	if !match(args, "*", "holds", "*") && !match(args, "*", "lacks", "*") {
		return errUsage
	}
	vip, err := netip.ParseAddr(args[2])
	if err != nil {
		return err
	}
	n := p.node(args[0])
	return lab.Eventually(patience, func() error {
		held, err := n.Held()
		if err == nil && held[vip] != (args[1] == "holds") {
			err = fmt.Errorf("%s held: %t", vip, held[vip])
		}
		return err
	})
}

func (p *play) gobgpdCommand(args []string) error {
	if match(args, "sessions", "*", "*") {
		return lab.Eventually(patience, func() error {
			out, err := p.node(args[1]).GoBGP("neighbor")
			if up := strings.Count(out, "Establ"); err == nil && fmt.Sprint(up) != args[2] {
				err = fmt.Errorf("has %d sessions", up)
			}
			return err
		})
	}
	if len(args) != 2 {
		return errUsage
	}
	return signalled(args[0], p.node(args[1]).Speaker, p.node(args[1]).StartSpeaker)
}

// signalled kills, starts, freezes, thaws, tells to stop, or waits for the end of a process.
func signalled(verb string, process *lab.Process, start func() error) error {
	switch verb {
	case "kill":
		return process.Kill()
	case "start":
		return start()
	case "freeze":
		return process.Signal(syscall.SIGSTOP)
	case "thaw":
		return process.Signal(syscall.SIGCONT)
	case "stop":
		return process.Signal(syscall.SIGTERM)
	case "ended":
		select {
		case <-process.Done():
			return process.Err()
		case <-time.After(patience):
			return errors.New("it still runs")
		}
	}
	return errUsage
}

func (p *play) announcerCommand(args []string) error {
	switch {
	case match(args, "logs", "*", "*"):
		pattern, err := regexp.Compile(args[2])
		if err != nil {
			return err
		}
		return lab.Eventually(patience, func() error {
			if !pattern.MatchString(p.node(args[1]).Announcer.Output()) {
				return fmt.Errorf("does not log %q", pattern)
			}
			return nil
		})
	case match(args, "asks", "*"):
		// Each check twice more, which is enough to rise.
		n := p.node(args[1])
		before := n.Asked()
		if len(before) == 0 {
			return errors.New("no check has asked before")
		}
		return lab.Eventually(patience, func() error {
			for path, count := range n.Asked() {
				if count < before[path]+3 {
					return fmt.Errorf("%s was asked for %d times", path, count-before[path])
				}
			}
			return nil
		})
	case len(args) == 2:
		n := p.node(args[1])
		return signalled(args[0], n.Announcer, n.StartAnnouncer)
	}
	return errUsage
}

func (p *play) checkCommand(args []string) error {
	if !match(args, "fail", "*") && !match(args, "recover", "*") && !match(args, "fail", "*", "*") && !match(args, "recover", "*", "*") {
		return errUsage
	}
	path := ""
	if len(args) == 3 {
		path = args[2]
	}
	return p.node(args[1]).Fail(path, args[0] == "fail")
}

func (p *play) vipCommand(args []string) error {
	switch {
	case match(args, "drain", "*", "at", "*"):
		_, err := p.node(args[3]).Plasmactl("vip", "drain", args[1], "--reason", "the scenario says so")
		return err
	case match(args, "undrain", "*", "at", "*"):
		_, err := p.node(args[3]).Plasmactl("vip", "undrain", args[1])
		return err
	}
	return errUsage
}

func (p *play) linkCommand(args []string) error {
	if !match(args, "down", "*") && !match(args, "up", "*") {
		return errUsage
	}
	return p.node(args[1]).Cut(args[0] == "down")
}

// What README.md says is what there is.
func TestScenariosAreListed(t *testing.T) {
	readme, err := os.ReadFile("testdata/README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".txtar"); ok && !strings.Contains(string(readme), "`"+name+"`") {
			t.Errorf("README.md does not tell of %s", name)
		}
	}
}
