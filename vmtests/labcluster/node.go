package labcluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// Node is a host of the cluster with its daemons, and the service that its checks ask.
type Node struct {
	*lab.Host
	ID        string
	Evaluated nixeval.Node
	Machine   nixeval.Machine
	Speaker   *lab.Process // nil: it has none, or it was stopped
	Announcer *lab.Process
	PhoneHome *lab.Process
	Control   Control // how it is acted on, whatever it is

	cluster *Cluster
	place   place
	service service
	machine bool       // in the place of the namespace's processes
	mu      sync.Mutex // of Machine, which Reload replaces, for [Node.VIPs]
}

// VIP is an entry of announcer.json, as far as routers see it.
type VIP struct {
	Address     netip.Addr `json:"address"`
	Communities []string   `json:"communities"`
	MED         *uint32    `json:"med"`
	LocalPref   *uint32    `json:"local_pref"`
	Prepend     int        `json:"prepend"`
	Hold        string     `json:"hold"`
	Checks      []any      `json:"checks"`
}

// VIPs are those of the node's evaluated announcer.json.
func (n *Node) VIPs() []VIP {
	var file struct {
		VIPs []VIP `json:"vips"`
	}
	n.mu.Lock()
	text := n.Machine.Announcer
	n.mu.Unlock()
	if text == nil {
		return nil
	}
	if err := json.Unmarshal(text, &file); err != nil {
		panic(err) // Nix has checked it
	}
	return file.VIPs
}

// holdInterface is what holds the node's VIPs.
func (n *Node) holdInterface() string {
	var file struct {
		Hold struct{ Interface string } `json:"hold"`
	}
	_ = json.Unmarshal(n.Machine.Announcer, &file) // Nix has checked it
	return cmp.Or(file.Hold.Interface, "lo")
}

// NextHop is the node's own address of the VIP's family.
func (n *Node) NextHop(vip netip.Addr) netip.Addr { return n.place[family(vip)] }

func (n *Node) config() string        { return filepath.Join(n.Dir, "announcer.json") }
func (n *Node) clusterConfig() string { return filepath.Join(n.Dir, "cluster-config.json") }
func (n *Node) socket() string        { return filepath.Join(n.Dir, "control.sock") }
func (n *Node) settings() string {
	return filepath.Join(n.Dir, map[string]string{"gobgp": "gobgpd.json", "bird": "bird.conf", "frr": "frr.conf"}[n.Machine.BGP.Backend])
}

// prepare gives the host what its daemons expect of it, and writes their files.
func (n *Node) prepare() error {
	if bgp := n.Machine.BGP; bgp != nil {
		for name, peer := range bgp.Peers {
			if peer.LocalAddress == nil {
				continue
			}
			own, err := netip.ParseAddr(*peer.LocalAddress)
			if err != nil {
				return fmt.Errorf("localAddress of %s: %w", name, err)
			}
			if own != n.place[family(own)] {
				if err := n.Addresses("eth0", netip.PrefixFrom(own, own.BitLen())); err != nil {
					return err
				}
			}
		}
	}
	return n.WriteFiles()
}

// WriteFiles writes what Nix has made for the daemons, which are told by [Node.Reload].
func (n *Node) WriteFiles() error {
	errs := []error{os.WriteFile(n.clusterConfig(), []byte(n.Evaluated.ClusterConfig), 0o600)}
	if bgp := n.Machine.BGP; bgp != nil {
		text := bgp.Config
		password := n.cluster.cfg.Password
		if bgp.Backend == "gobgp" {
			quoted, _ := json.Marshal(password)
			password = string(quoted[1 : len(quoted)-1])
		}
		for i := 1; strings.Contains(text, fmt.Sprintf("@password-%d@", i)); i++ {
			text = strings.ReplaceAll(text, fmt.Sprintf("@password-%d@", i), password)
			n.cluster.instead("the passwords of peers are the lab's own")
		}
		errs = append(errs, os.WriteFile(n.settings(), []byte(text), 0o644))
	}
	if n.Machine.Announcer != nil {
		errs = append(errs, n.WriteConfig(n.Machine.Announcer))
	}
	return errors.Join(errs...)
}

// WriteConfig replaces announcer.json, and has the node's service answer its checks.
func (n *Node) WriteConfig(text []byte) error {
	text, err := n.forThisHost(text)
	if err != nil {
		return err
	}
	return os.WriteFile(n.config(), text, 0o600)
}

// Boot starts all that the node runs.
func (n *Node) Boot() error {
	var errs []error
	if n.Machine.BGP != nil {
		errs = append(errs, n.StartSpeaker())
	}
	if n.Machine.Announcer != nil {
		errs = append(errs, n.StartAnnouncer())
	}
	if n.cluster.Deployer != nil {
		errs = append(errs, n.StartPhoneHome())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("node %s: %w", n.ID, err)
	}
	return nil
}

// PowerOff ends everything on the node at once and takes it off the network, with
// what its announcer put into the kernel; its service goes too.
func (n *Node) PowerOff() error {
	n.service.stop()
	errs := []error{n.Plug("eth0", false), n.KillAll()}
	if n.cluster.Deployer != nil {
		errs = append(errs, n.Plug("mgmt", false))
	}
	n.Speaker, n.Announcer, n.PhoneHome = nil, nil, nil
	for _, v := range n.VIPs() {
		// What is not there cannot be removed.
		_, _ = n.IP("addr", "del", netip.PrefixFrom(v.Address, v.Address.BitLen()).String(), "dev", n.holdInterface())
		_, _ = n.IP("route", "del", "local", v.Address.String(), "dev", n.holdInterface(), "table", "local")
	}
	// An order to drain outlives a boot: it is in /var. A socket does not.
	_ = os.Remove(n.socket())
	return errors.Join(errs...)
}

// PowerOn boots the node again.
func (n *Node) PowerOn() error {
	errs := []error{n.Plug("eth0", true)}
	if n.cluster.Deployer != nil {
		errs = append(errs, n.Plug("mgmt", true))
	}
	return errors.Join(append(errs, n.serve(), n.Boot())...)
}

// daemonStart bounds the time until a daemon answers.
const daemonStart = 20 * time.Second

// StartAnnouncer starts the announcer, as its unit does.
func (n *Node) StartAnnouncer() (err error) {
	n.Announcer, err = n.Start("announcer", filepath.Join(n.cluster.cfg.Programs.Bin, "plasmacloud-announcer"), "run",
		"--config", n.config(), "--control", n.socket(), "--drains", filepath.Join(n.Dir, "drains.json"),
		"--last", filepath.Join(n.Dir, "last.json"), "--sysctls", filepath.Join(n.Dir, "sysctls.json"))
	return err
}

// StartPhoneHome starts phone-home, as its unit does, with the deployer's address here.
func (n *Node) StartPhoneHome() (err error) {
	args := []string{filepath.Join(n.cluster.cfg.Programs.Bin, "plasmacloud-phone-home"),
		"--config", n.clusterConfig(), "--phase", "ready", "--heartbeat", "--deployer-url", n.cluster.Deployer.URL,
		"--machine-id", "lab-machine-" + n.ID, "--secret-file", filepath.Join(n.Dir, "secret")}
	if n.Machine.Announcer != nil {
		args = append(args, "--announcer-socket", n.socket())
	}
	n.PhoneHome, err = n.Start("phone-home", args...)
	return err
}

// Reload applies another evaluation of the node, as a switch to it does: its units are
// told of what has changed, or restarted where that is not enough.
func (n *Node) Reload(e *Evaluated) error {
	if err := n.ofNamespace("another configuration"); err != nil {
		return err
	}
	before := n.Machine
	rejoin := e.Manifest.Nodes[n.ID].ClusterConfig != n.Evaluated.ClusterConfig
	n.mu.Lock()
	n.Evaluated, n.Machine = e.Manifest.Nodes[n.ID], e.Machines[n.ID]
	n.mu.Unlock()
	if err := errors.Join(n.WriteFiles(), n.serve()); err != nil {
		return err
	}
	errs := []error{n.reloadSpeaker(before.BGP)}
	switch {
	case before.Announcer == nil && n.Machine.Announcer != nil:
		errs = append(errs, n.StartAnnouncer())
	case !runs(n.Announcer): // a switch starts none that was stopped
	case n.Machine.Announcer == nil:
		errs = append(errs, n.Announcer.Stop(stopsWithin))
		n.Announcer = nil
	case !sameButFor(before.Announcer, n.Machine.Announcer, func(key string) bool {
		return !slices.Contains([]string{"node_id", "asn", "speaker", "hold"}, key) // what a reload refuses to change
	}):
		errs = append(errs, n.Control.Restart(Announcer))
	default:
		errs = append(errs, n.Announcer.Signal(syscall.SIGHUP))
	}
	if rejoin && runs(n.PhoneHome) {
		errs = append(errs, n.Control.Restart(PhoneHome))
	}
	return errors.Join(errs...)
}

// runs tells whether a daemon was started and has not ended.
func runs(p *lab.Process) bool { return p != nil && !p.Ended() }

// sameButFor tells whether two JSON objects have the same in all but some keys.
func sameButFor(a, b []byte, but func(key string) bool) bool {
	var both [2]map[string]any
	for i, text := range [][]byte{a, b} {
		if json.Unmarshal(text, &both[i]) != nil {
			return false
		}
		maps.DeleteFunc(both[i], func(key string, _ any) bool { return but(key) })
	}
	return reflect.DeepEqual(both[0], both[1])
}

// GoBGP runs the speaker's command line.
func (n *Node) GoBGP(args ...string) (string, error) {
	return n.Control.Run(append([]string{"gobgp"}, args...)...)
}

// Plasmactl runs plasmactl with the announcer's socket.
func (n *Node) Plasmactl(args ...string) (string, error) {
	return n.Control.Run(append([]string{"plasmactl"}, args...)...)
}

// Cut takes the node off its network, or puts it back. The way to the deployer stays.
func (n *Node) Cut(off bool) error { return n.Plug("eth0", !off) }

// Lose drops so many percent of the packets that come to the node, loopback's
// aside; 0: none. (tc's netem is not in every kernel.)
func (n *Node) Lose(percent int) error {
	if err := n.ofNamespace("to lose packets"); err != nil {
		return err
	}
	if percent == 0 {
		return n.filter("lose", "")
	}
	return n.filter("lose", fmt.Sprintf("chain in { type filter hook input priority 0; iifname eth0 numgen random mod 100 <= %d drop; };", percent-1))
}

// Split drops what the node and the router send each other, or no longer does.
func (n *Node) Split(r *Router, apart bool) error {
	if err := n.ofNamespace("to drop packets"); err != nil {
		return err
	}
	table := fmt.Sprintf("split%d", slices.Index(n.cluster.RouterNames(), r.Host.Name))
	if !apart {
		return n.filter(table, "")
	}
	var from, to []string
	for f, a := range r.topology.place {
		if a.IsValid() {
			word := []string{"ip", "ip6"}[f]
			from = append(from, fmt.Sprintf("%s saddr %s drop;", word, a))
			to = append(to, fmt.Sprintf("%s daddr %s drop;", word, a))
		}
	}
	return n.filter(table, fmt.Sprintf("chain in { type filter hook input priority 0; %s }; chain out { type filter hook output priority 0; %s };",
		strings.Join(from, " "), strings.Join(to, " ")))
}

// filter puts these chains in the place of those that the node has in this table of
// nftables, or none; other tables stay as they are.
func (n *Node) filter(table, chains string) error {
	// A table that is not there cannot be deleted.
	commands := fmt.Sprintf("table inet %[1]s; delete table inet %[1]s;", table)
	if chains != "" {
		commands += fmt.Sprintf("table inet %s { %s };", table, chains)
	}
	_, err := n.Run("nft", commands)
	return err
}

// Delay holds back what the node sends for so long; 0: not at all.
func (n *Node) Delay(by time.Duration) error {
	if err := n.ofNamespace("to hold packets back"); err != nil {
		return err
	}
	if by == 0 {
		_, err := n.Run("tc", "qdisc", "del", "dev", "eth0", "root")
		if err != nil && strings.Contains(err.Error(), "handle of zero") {
			err = nil // nothing was held back
		}
		return errors.Join(err, n.HoldBack("eth0", 0))
	}
	_, err := n.Run("tc", "qdisc", "replace", "dev", "eth0", "root", "netem", "delay", fmt.Sprintf("%dus", by.Microseconds()))
	if err != nil && strings.Contains(err.Error(), "qdisc kind is unknown") {
		n.cluster.instead("packets that are delayed go through a relay of the lab's own: this kernel has no netem (module sch_netem)")
		return n.HoldBack("eth0", by)
	}
	return err
}
