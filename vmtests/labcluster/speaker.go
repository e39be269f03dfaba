package labcluster

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// StartSpeaker starts the BGP daemon, as its unit does.
func (n *Node) StartSpeaker() (err error) {
	bgp := n.Machine.BGP
	switch bgp.Backend {
	case "bird":
		n.Speaker, err = n.StartBIRDFrom(n.settings())
	case "frr":
		n.Speaker, err = n.StartFRRFrom(n.Dir, bgp.Options...)
	default:
		n.Speaker, err = n.Start("gobgpd", "env", "GODEBUG=multipathtcp=0", n.cluster.cfg.Programs.GoBGPD, "-t", "json", "-f", n.settings(), "--graceful-restart", "--api-hosts", bgp.APIAddress)
		if err == nil && bgp.Injects {
			err = n.inject("")
		}
	}
	return err
}

// inject does what the unit gobgpd-announcements does; before are the routes that there are.
func (n *Node) inject(before string) error {
	bgp := n.Machine.BGP
	host, port, err := net.SplitHostPort(bgp.APIAddress)
	if err != nil {
		return err
	}
	gobgp := []string{n.cluster.cfg.Programs.GoBGP, "-u", host, "-p", port, "global"}
	if err := lab.Eventually(daemonStart, func() error {
		out, err := n.Run(gobgp...)
		if err == nil && !strings.Contains(out, fmt.Sprint(bgp.ASN)) {
			err = errors.New("gobgpd has no configuration yet")
		}
		return err
	}); err != nil {
		return err
	}
	still := map[string]bool{}
	rib := func(words ...string) error {
		_, err := n.Run(slices.Concat(gobgp, []string{"rib"}, words)...)
		return err
	}
	for line := range strings.Lines(bgp.Routes) {
		route := strings.Fields(line)
		still[route[0]] = true
		if err := rib(append([]string{"add"}, route...)...); err != nil {
			return err
		}
	}
	for line := range strings.Lines(before) {
		route := strings.Fields(line) // ends in its family
		if still[route[0]] {
			continue
		}
		if err := rib("del", route[0], "-a", route[len(route)-1]); err != nil {
			return err
		}
	}
	return nil
}

// StopSpeaker stops the BGP daemon as its unit does, and waits for its end.
func (n *Node) StopSpeaker() error {
	return n.stopSpeaker(n.Machine.BGP)
}

// stopSpeaker stops one that was started with this configuration.
func (n *Node) stopSpeaker(bgp *nixeval.Speaker) error {
	p := n.Speaker
	n.Speaker = nil
	if bgp.Backend == "gobgp" && bgp.KeepRoutes {
		return p.Kill()
	}
	if err := p.Stop(daemonStart); err != nil && !p.Ended() {
		return err
	}
	return nil
}

// reloadSpeaker tells the BGP daemon of what has changed since it had this configuration,
// as its unit does. FRR is restarted: its own reload takes a package more.
func (n *Node) reloadSpeaker(before *nixeval.Speaker) error {
	now := n.Machine.BGP
	switch {
	case before == nil && now == nil, before != nil && !runs(n.Speaker):
		return nil
	case before == nil:
		return n.StartSpeaker()
	case now == nil:
		return n.stopSpeaker(before)
	case before.Backend != now.Backend, before.APIAddress != now.APIAddress, !slices.Equal(before.Options, now.Options):
		return errors.Join(n.stopSpeaker(before), n.StartSpeaker())
	}
	if before.Config != now.Config {
		switch {
		case now.Backend == "bird":
			if out, err := n.Run("birdc", "-s", filepath.Join(n.Dir, "bird.ctl"), "configure"); err != nil || !strings.Contains(out, "Reconfigur") {
				return errors.Join(err, fmt.Errorf("birdc configure: %s", out))
			}
		case now.Backend == "gobgp" && sameButFor([]byte(before.Config), []byte(now.Config), func(key string) bool { return key == "neighbors" }):
			if err := n.Speaker.Signal(syscall.SIGHUP); err != nil {
				return err
			}
		default:
			return errors.Join(n.stopSpeaker(before), n.StartSpeaker())
		}
	}
	if now.Backend == "gobgp" && now.Injects && before.Routes != now.Routes {
		return n.inject(before.Routes)
	}
	return nil
}

// RestartSpeaker kills the BGP daemon and starts it.
func (n *Node) RestartSpeaker() error { return errors.Join(n.Speaker.Kill(), n.StartSpeaker()) }
