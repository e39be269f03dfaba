package scenario

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// play is a scenario that runs.
type play struct {
	stage    Stage
	scenario *Scenario
	result   *Result
	c        *labcluster.Cluster
	picks    picks
	watch    *labcluster.Watch
	updates  map[string]int // by router, at its last `router mark`
	pulls    []*labcluster.Pull
	next     *labcluster.Evaluated // of `cluster evaluate`
}

// command does something, or waits until something is so.
type command func(*play, context.Context, []string) (waits bool, err error)

// commands are the first words of the language: a subject, and behind it a verb with its objects.
var commands map[string]command

func init() { // some of them name the others
	commands = map[string]command{
		"cluster": (*play).clusterCommand, "router": (*play).routerCommand, "host": (*play).hostCommand, "node": (*play).nodeCommand,
		"speaker": (*play).speakerCommand, "announcer": (*play).announcerCommand,
		"check": (*play).checkCommand, "vip": (*play).vipCommand, "link": (*play).linkCommand,
		"client": (*play).clientCommand, "deployer": (*play).deployerCommand, "phone-home": (*play).phoneHomeCommand,
		"wait": (*play).waitCommand, "never": (*play).neverCommand,
	}
}

// Commands are the first words of all commands.
func Commands() []string { return append(slices.Sorted(maps.Keys(commands)), "each", "needs") }

var errUsage = errors.New("unknown words; plasmactl lab commands lists the commands")

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

func (p *play) node(id string) (*labcluster.Node, error) {
	if n := p.c.Nodes[id]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("the cluster has no node %s; it has %s", id, strings.Join(p.c.NodeIDs(), ", "))
}

func (p *play) router(name string) (*labcluster.Router, error) {
	if r := p.c.Routers[name]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("the cluster has no router %s; it has %s", name, strings.Join(p.c.RouterNames(), ", "))
}

// speakers are the nodes with a BGP daemon.
func (p *play) speakers() (ids []string) {
	for _, id := range p.c.NodeIDs() {
		if p.c.Nodes[id].Machine.BGP != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// every is the nodes of a list with commas, or those of the cluster by `all`.
func (p *play) every(list string) (nodes []*labcluster.Node, err error) {
	ids := strings.Split(list, ",")
	if list == "all" {
		ids = p.c.NodeIDs()
	}
	for _, id := range ids {
		n, err := p.node(id)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// eventually waits until check has no error.
func (p *play) eventually(ctx context.Context, check func() error) error {
	patience := p.stage.Patience + p.picks.hold + p.picks.hold/2
	return lab.Eventually(patience, func() error {
		if ctx.Err() != nil {
			return nil
		}
		return check()
	})
}

func (p *play) file(name string) (string, error) {
	text, has := p.scenario.Files[name]
	if !has {
		return "", fmt.Errorf("the scenario has no file %s", name)
	}
	return text, nil
}

func (p *play) clusterCommand(ctx context.Context, args []string) (waits bool, err error) {
	switch {
	case match(args, "start"), match(args, "start", "with", "*"):
		if p.c != nil {
			return false, errors.New("it runs already")
		}
		change, err := p.change(args[1:])
		if err != nil {
			return false, err
		}
		if p.c, err = p.stage.Start(ctx, change); err != nil {
			return false, err
		}
		p.picks = pick(p.c)
		return false, nil
	case p.c == nil:
		return false, errNotStarted
	case match(args, "settled"):
		return true, labcluster.Err(p.c.Settle(ctx, p.stage.Patience+p.picks.hold))
	case match(args, "evaluate"), match(args, "evaluate", "*"), match(args, "evaluate", "with", "*"):
		change, err := p.change(args[1:])
		if err != nil {
			return false, err
		}
		p.next, err = p.stage.Evaluate(ctx, change)
		return false, err
	case match(args, "reload"), match(args, "reload", "*"), match(args, "reload", "with", "*"):
		if _, err := p.clusterCommand(ctx, append([]string{"evaluate"}, args[1:]...)); err != nil {
			return false, err
		}
		return false, p.reload(p.c.NodeIDs()...)
	}
	return false, errUsage
}

// change is what `[FILE]` or `with FILE` at the end of a command means.
func (p *play) change(words []string) (c Change, err error) {
	c.Cluster = p.scenario.Files[ClusterFile]
	switch len(words) {
	case 1:
		c.Cluster, err = p.file(words[0])
	case 2:
		c.Module, err = p.file(words[1])
	}
	return c, err
}

// reload applies what was evaluated last to nodes, and to the deployer.
func (p *play) reload(ids ...string) error {
	if p.next == nil {
		return errors.New("nothing was evaluated: `cluster evaluate` comes first")
	}
	return p.c.Reload(p.next, ids...)
}

func (p *play) hostCommand(ctx context.Context, args []string) (waits bool, err error) {
	if !match(args, "*", "holds", "*") && !match(args, "*", "lacks", "*") {
		return true, errUsage
	}
	vip, err := netip.ParseAddr(args[2])
	if err != nil {
		return true, err
	}
	nodes, err := p.every(args[0])
	if err != nil {
		return true, err
	}
	return true, p.eventually(ctx, func() error {
		for _, n := range nodes {
			held, err := n.Taken()
			if err == nil && held[vip] != (args[1] == "holds") {
				err = fmt.Errorf("%s held: %t", vip, held[vip])
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *play) nodeCommand(_ context.Context, args []string) (waits bool, err error) {
	if len(args) != 2 {
		return false, errUsage
	}
	nodes, err := p.every(args[1])
	if err != nil {
		return false, err
	}
	var do func(*labcluster.Node) error
	switch args[0] {
	case "off":
		do = func(n *labcluster.Node) error { return n.Control.Power(false) }
	case "on":
		do = func(n *labcluster.Node) error { return n.Control.Power(true) }
	case "reload":
		do = func(n *labcluster.Node) error { return p.reload(n.ID) }
	default:
		return false, errUsage
	}
	return false, labcluster.InParallel(nodes, do)
}

func (p *play) speakerCommand(ctx context.Context, args []string) (waits bool, err error) {
	if match(args, "sessions", "*", "*") {
		n, err := p.node(args[1])
		if err != nil {
			return true, err
		}
		return true, p.eventually(ctx, func() error {
			out, err := n.GoBGP("neighbor")
			if up := strings.Count(out, "Establ"); err == nil && fmt.Sprint(up) != args[2] {
				err = fmt.Errorf("has %d sessions", up)
			}
			return err
		})
	}
	if len(args) != 2 {
		return false, errUsage
	}
	n, err := p.node(args[1])
	if err != nil {
		return false, err
	}
	if n.Machine.BGP == nil {
		return false, fmt.Errorf("%s has no BGP daemon", n.ID)
	}
	return p.daemon(ctx, n, labcluster.Speaker, args[0])
}

// signals are the verbs that send one to a daemon.
var signals = map[string]syscall.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGTERM, "freeze": syscall.SIGSTOP, "thaw": syscall.SIGCONT}

// daemon starts or restarts a daemon, sends it a signal, or waits for its end.
func (p *play) daemon(ctx context.Context, n *labcluster.Node, d labcluster.Daemon, verb string) (waits bool, err error) {
	switch verb {
	case "start":
		return false, n.Control.Start(d)
	case "restart":
		return false, n.Control.Restart(d)
	case "ended":
		var failed error
		err := p.eventually(ctx, func() error {
			ended, err := n.Control.Ended(d)
			if failed = err; err == nil && !ended {
				return errors.New("it still runs")
			}
			return nil
		})
		return true, errors.Join(err, failed)
	}
	signal, known := signals[verb]
	if !known {
		return false, errUsage
	}
	return false, n.Control.Signal(d, signal)
}

func (p *play) announcerCommand(ctx context.Context, args []string) (waits bool, err error) {
	if len(args) < 2 {
		return false, errUsage
	}
	n, err := p.node(args[1])
	if err != nil {
		return false, err
	}
	if n.Machine.Announcer == nil {
		return false, fmt.Errorf("%s runs no announcer", n.ID)
	}
	switch {
	case match(args, "logs", "*", "*"):
		pattern, err := regexp.Compile(args[2])
		if err != nil {
			return true, err
		}
		return true, p.eventually(ctx, func() error {
			log, err := n.Control.Log(labcluster.Announcer)
			if err == nil && !pattern.MatchString(log) {
				err = fmt.Errorf("does not log %q", pattern)
			}
			return err
		})
	case match(args, "asks", "*"):
		// Three times are enough to rise.
		before, err := n.Control.Asked()
		if err == nil && len(before) == 0 {
			err = errors.New("no check has asked before")
		}
		if err != nil {
			return true, err
		}
		return true, p.eventually(ctx, func() error {
			asked, err := n.Control.Asked()
			for check, count := range asked {
				if count < before[check]+3 {
					return fmt.Errorf("%s was asked %d times", check, count-before[check])
				}
			}
			return err
		})
	case match(args, "reload", "*"):
		return false, n.Control.Signal(labcluster.Announcer, syscall.SIGHUP)
	case len(args) == 2:
		return p.daemon(ctx, n, labcluster.Announcer, args[0])
	}
	return false, errUsage
}

func (p *play) checkCommand(_ context.Context, args []string) (waits bool, err error) {
	if len(args) < 2 || len(args) > 3 || args[0] != "fail" && args[0] != "recover" {
		return false, errUsage
	}
	which := ""
	if len(args) == 3 {
		which = args[2]
	}
	nodes, err := p.every(args[1])
	for _, n := range nodes {
		err = errors.Join(err, n.Control.Fail(which, args[0] == "fail"))
	}
	return false, err
}

func (p *play) vipCommand(_ context.Context, args []string) (waits bool, err error) {
	if !match(args, "drain", "*", "at", "*") && !match(args, "undrain", "*", "at", "*") {
		return false, errUsage
	}
	n, err := p.node(args[3])
	if err != nil {
		return false, err
	}
	order := []string{"vip", args[0], args[1]}
	if args[0] == "drain" {
		order = append(order, "--reason", "the scenario says so")
	}
	_, err = n.Plasmactl(order...)
	return false, err
}

func (p *play) linkCommand(_ context.Context, args []string) (waits bool, err error) {
	if len(args) < 2 {
		return false, errUsage
	}
	nodes, err := p.every(args[1])
	if err != nil {
		return false, err
	}
	var do func(*labcluster.Node) error
	switch {
	case match(args, "down", "*"), match(args, "up", "*"):
		do = func(n *labcluster.Node) error { return n.Cut(args[0] == "down") }
	case match(args, "lose", "*", "*"):
		percent, err := strconv.Atoi(strings.TrimSuffix(args[2], "%"))
		if err != nil || percent < 0 || percent > 100 {
			return false, fmt.Errorf("%q is no share of packets: want 0%% to 100%%", args[2])
		}
		do = func(n *labcluster.Node) error { return n.Lose(percent) }
	case match(args, "delay", "*", "*"):
		by, err := time.ParseDuration(args[2])
		if err != nil || by < 0 {
			return false, fmt.Errorf("%q is no duration such as 20ms", args[2])
		}
		do = func(n *labcluster.Node) error { return n.Delay(by) }
	case match(args, "split", "*", "*"), match(args, "join", "*", "*"):
		r, err := p.router(args[2])
		if err != nil {
			return false, err
		}
		do = func(n *labcluster.Node) error { return n.Split(r, args[0] == "split") }
	default:
		return false, errUsage
	}
	return false, labcluster.InParallel(nodes, do)
}

func (p *play) deployerCommand(ctx context.Context, args []string) (waits bool, err error) {
	d := p.c.Deployer
	if d == nil {
		return false, errors.New("this cluster runs without a deployer")
	}
	switch {
	case match(args, "kill"):
		return false, d.Kill()
	case match(args, "start"):
		return false, d.Start()
	case match(args, "says", "*", "*"):
		nodes, err := p.every(args[1])
		if err != nil {
			return true, err
		}
		return true, p.eventually(ctx, func() error {
			for _, n := range nodes {
				got, err := d.Get(ctx, n.ID)
				if err != nil {
					return err
				}
				is := string(got.State)
				if args[2] == string(node.Online) || args[2] == string(node.Offline) || args[2] == string(node.Unknown) {
					is = string(got.Reachability)
				}
				if !strings.EqualFold(is, args[2]) {
					return fmt.Errorf("%s is %s, not %s", n.ID, is, args[2])
				}
			}
			return nil
		})
	}
	return false, errUsage
}

func (p *play) phoneHomeCommand(ctx context.Context, args []string) (waits bool, err error) {
	if len(args) != 2 {
		return false, errUsage
	}
	n, err := p.node(args[1])
	if err != nil {
		return false, err
	}
	return p.daemon(ctx, n, labcluster.PhoneHome, args[0])
}

func (p *play) waitCommand(ctx context.Context, args []string) (waits bool, err error) {
	if !match(args, "*") && !match(args, "*", "scaled") {
		return false, errUsage
	}
	d, err := time.ParseDuration(args[0])
	if err != nil || d < 0 || d > time.Hour {
		return false, fmt.Errorf("%q is no duration from 0s to 1h", args[0])
	}
	if len(args) == 2 {
		scale := p.stage.Scale
		if scale == 0 {
			scale = DefaultScale
		}
		d = time.Duration(float64(d) / scale)
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-time.After(d):
		return false, nil
	}
}

// neverCommand begins to look for what must not be until the end.
func (p *play) neverCommand(_ context.Context, args []string) (waits bool, err error) {
	if !match(args, "blackholed") || p.watch != nil {
		return false, errUsage
	}
	p.watch = p.c.Watch(p.c.RouterNames()...)
	return false, nil
}
