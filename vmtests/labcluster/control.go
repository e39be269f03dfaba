package labcluster

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// Daemon is one of the programs that a node runs.
type Daemon string

// The daemons of a node.
const (
	Speaker   Daemon = "speaker"
	Announcer Daemon = "announcer"
	PhoneHome Daemon = "phone-home"
)

// Control is how a node is acted on: by processes in its network namespace, or by
// the units of a machine that stands in its place.
type Control interface {
	// Power takes the power away, or boots the node, with all that it runs.
	Power(on bool) error
	// Start starts a daemon as its unit does.
	Start(Daemon) error
	// Restart stops a daemon and starts it, as its unit does.
	Restart(Daemon) error
	// Signal sends a signal. What it ends stays down until Start.
	Signal(Daemon, syscall.Signal) error
	// Ended tells whether the daemon has ended, with an error if that was not in order.
	Ended(Daemon) (bool, error)
	// Log is what the daemon has written.
	Log(Daemon) (string, error)
	// Run runs one of the node's programs: ip, gobgp, or plasmactl.
	Run(command ...string) (string, error)
	// Fail makes the node's service refuse, or answer again: one check, or all of a path,
	// or all that there is if it is empty, see [Node.Fail].
	Fail(which string, fails bool) error
	// Asked is how often each check has asked, by what it asks.
	Asked() (map[string]int, error)
}

// Place is where a machine stands.
type Place struct {
	Host     *lab.Host  // its bridge br0 is at the switch of the node's site
	Network  []string   // the node's addresses and routes: arguments of ip, for the card eth0
	Deployer *lab.Host  // who is there on the machine's own network
	Address  netip.Addr // of the deployer on that network
}

// processes are the daemons of a node as processes in its namespace.
type processes struct{ *Node }

var _ Control = processes{}

func (p processes) Power(on bool) error {
	if on {
		return p.PowerOn()
	}
	return p.PowerOff()
}

func (p processes) Start(d Daemon) error {
	switch d {
	case Speaker:
		return p.StartSpeaker()
	case Announcer:
		return p.StartAnnouncer()
	default:
		return p.StartPhoneHome()
	}
}

// stopsWithin is more than any drain of an announcer takes.
const stopsWithin = 5 * time.Minute

func (p processes) Restart(d Daemon) error {
	if d == Speaker {
		return errors.Join(p.StopSpeaker(), p.StartSpeaker())
	}
	process, err := p.process(d)
	if err != nil {
		return err
	}
	if err := process.Stop(stopsWithin); err != nil {
		return err
	}
	return p.Start(d)
}

func (p processes) process(d Daemon) (*lab.Process, error) {
	process := map[Daemon]*lab.Process{Speaker: p.Speaker, Announcer: p.Announcer, PhoneHome: p.PhoneHome}[d]
	if process == nil {
		return nil, errors.New("it does not run")
	}
	return process, nil
}

func (p processes) Signal(d Daemon, signal syscall.Signal) error {
	process, err := p.process(d)
	if err != nil {
		return err
	}
	if signal == syscall.SIGKILL {
		return process.Kill()
	}
	return process.Signal(signal)
}

func (p processes) Ended(d Daemon) (bool, error) {
	process, err := p.process(d)
	if err != nil {
		return false, err
	}
	if !process.Ended() {
		return false, nil
	}
	return true, process.Err()
}

func (p processes) Log(d Daemon) (string, error) {
	process, err := p.process(d)
	if err != nil {
		return "", err
	}
	return process.Output(), nil
}

func (p processes) Run(command ...string) (string, error) {
	programs := p.cluster.cfg.Programs
	switch command[0] {
	case "gobgp":
		command = append([]string{programs.GoBGP}, command[1:]...)
	case "plasmactl":
		command = append([]string{"env", "PLASMACLOUD_ANNOUNCER_SOCKET=" + p.socket(), filepath.Join(programs.Bin, "plasmactl")}, command[1:]...)
	}
	return p.Host.Run(command...)
}

func (p processes) Fail(which string, fails bool) error { return p.Node.Fail(which, fails) }

func (p processes) Asked() (map[string]int, error) { return p.Node.Asked(), nil }

// putMachine gives the node's namespace to a machine: a bridge there is what the node's
// card was, and the machine gets the card's addresses and routes.
func (c *Cluster) putMachine(id string, start func(Place) (Control, error)) error {
	n := c.Nodes[id]
	if n == nil || c.Deployer == nil {
		return fmt.Errorf("a machine takes the place of a node, beside a deployer; there is no node %s", id)
	}
	place := Place{Host: n.Host, Deployer: c.Deployer.Host}
	for _, f := range []string{"-4", "-6"} {
		addresses, err := n.IP(f, "-o", "address", "show", "dev", "eth0", "scope", "global")
		if err != nil {
			return err
		}
		for line := range strings.Lines(addresses) {
			place.Network = append(place.Network, fmt.Sprintf("%s address add %s dev eth0", f, strings.Fields(line)[3]))
		}
		routes, err := n.IP(f, "route", "show", "dev", "eth0")
		if err != nil {
			return err
		}
		for line := range strings.Lines(routes) {
			if to, via, is := strings.Cut(strings.TrimSpace(line), " via "); is {
				place.Network = append(place.Network, fmt.Sprintf("%s route add %s via %s", f, to, strings.Fields(via)[0]))
			}
		}
	}
	if err := n.Batch("link add br0 up type bridge", "address flush dev eth0", "link set eth0 master br0"); err != nil {
		return err
	}
	for i, s := range c.topology.sites {
		for _, member := range s.nodes {
			if member != id {
				continue
			}
			own, err := s.spare(0)
			if err != nil {
				return err
			}
			place.Address = own
			if err := c.Lab.Join(s.bridge, fmt.Sprintf("site%d", i), map[*lab.Host][]netip.Prefix{
				c.Deployer.Host: {netip.PrefixFrom(own, s.nets[0].Bits())}}); err != nil {
				return err
			}
		}
	}
	var err error
	n.machine = true
	n.Control, err = start(place)
	return err
}

// ofNamespace refuses what is done to a namespace where a machine has taken its place.
func (n *Node) ofNamespace(what string) error {
	if n.machine {
		return fmt.Errorf("%s is a machine: %s is for namespaces only", n.ID, what)
	}
	return nil
}
