package labcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// Node is a host of the cluster with its gobgpd, its announcer and its service.
type Node struct {
	*lab.Host
	ID        string
	Evaluated nixeval.Node
	Speaker   *lab.Process
	Announcer *lab.Process

	cluster *Cluster
	service service
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
	text, err := n.Evaluated.AnnouncerJSON()
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil {
		panic(err) // Nix has checked it
	}
	return file.VIPs
}

// NextHop is the node's own address of the VIP's family.
func (n *Node) NextHop(vip netip.Addr) netip.Addr {
	own := addresses(netip.MustParseAddr(n.Evaluated.IP), 0)
	if vip.Is6() {
		return own[1].Addr()
	}
	return own[0].Addr()
}

func (n *Node) config() string   { return filepath.Join(n.Dir, "announcer.json") }
func (n *Node) settings() string { return filepath.Join(n.Dir, "gobgpd.toml") }
func (n *Node) socket() string   { return filepath.Join(n.Dir, "control.sock") }

// WriteConfig replaces announcer.json.
func (n *Node) WriteConfig(text []byte) error { return os.WriteFile(n.config(), text, 0o600) }

// writeSettings writes gobgpd.toml, with the passwords in it as the unit puts them there.
func (n *Node) writeSettings(cfg Config) error {
	text := cfg.Cluster.GoBGPD[n.ID]
	template := filepath.Join(n.Dir, "template.toml")
	if err := os.WriteFile(template, []byte(text), 0o600); err != nil {
		return err
	}
	secret := filepath.Join(n.Dir, "password")
	if err := os.WriteFile(secret, []byte(cfg.Password), 0o600); err != nil {
		return err
	}
	args := []string{filepath.Join(cfg.Repo, "nix/nix-nos/modules/bgp/render-passwords.sh"), "toml", template, n.settings(), "/"}
	for i := 1; ; i++ {
		mark := fmt.Sprintf("@password-%d@", i)
		if !strings.Contains(text, mark) {
			break
		}
		args = append(args, mark, secret)
	}
	if out, err := exec.Command("bash", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("render passwords: %w: %s", err, out)
	}
	return nil
}

// StartSpeaker starts gobgpd, as its unit does.
func (n *Node) StartSpeaker() (err error) {
	n.Speaker, err = n.Start("gobgpd", "env", "GODEBUG=multipathtcp=0", filepath.Join(n.programs(), "gobgpd"), "-f", n.settings(), "--api-hosts", "127.0.0.1:50051")
	return err
}

// StartAnnouncer starts the announcer, as its unit does.
func (n *Node) StartAnnouncer() (err error) {
	n.Announcer, err = n.Start("announcer", filepath.Join(string(n.cluster.cfg.Programs), "plasmacloud-announcer"), "run",
		"--config", n.config(), "--control", n.socket(), "--drains", filepath.Join(n.Dir, "drains.json"))
	return err
}

func (n *Node) programs() string { return n.cluster.cfg.Programs.speaker(n.cluster.cfg.Speaker) }

// GoBGP runs the speaker's command line.
func (n *Node) GoBGP(args ...string) (string, error) {
	return n.Run(append([]string{filepath.Join(n.programs(), "gobgp")}, args...)...)
}

// Plasmactl runs plasmactl with the announcer's socket.
func (n *Node) Plasmactl(args ...string) (string, error) {
	return n.Run(append([]string{"env", "PLASMACLOUD_ANNOUNCER_SOCKET=" + n.socket(), filepath.Join(string(n.cluster.cfg.Programs), "plasmactl")}, args...)...)
}

// Cut takes the node off the network, or puts it back.
func (n *Node) Cut(off bool) error {
	state := "up"
	if off {
		state = "down"
	}
	_, err := n.cluster.Lab.SwitchHost.IP("link", "set", "to-"+n.ID, state)
	return err
}

// Lose drops so many percent of the packets that come to the node, loopback's
// aside; 0: none. (tc's netem is not in every kernel.)
func (n *Node) Lose(percent int) error {
	if _, err := n.Run("nft", "flush", "ruleset"); err != nil || percent == 0 {
		return err
	}
	_, err := n.Run("nft", fmt.Sprintf("table inet loss { chain in { type filter hook input priority 0; iifname eth0 numgen random mod 100 < %d drop; }; }", percent))
	return err
}

// service answers the checks of a node at port 8080, each VIP's at its own path.
type service struct {
	mu     sync.Mutex
	failed map[string]bool // by path; "" is all
	asked  map[string]int
	server *http.Server
}

func (n *Node) serve() error {
	listener, err := n.Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	s := &n.service
	s.failed, s.asked = map[string]bool{}, map[string]int{}
	s.server = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked[r.URL.Path]++
		if s.failed[""] || s.failed[r.URL.Path] {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})}
	go func(server *http.Server, l net.Listener) {
		_ = server.Serve(l) // until it is closed
	}(s.server, listener)
	return nil
}

func (s *service) close() {
	if s.server != nil {
		_ = s.server.Close()
	}
}

// Fail makes the service refuse, or answer again, a path, or all if it is empty.
func (n *Node) Fail(path string, fails bool) {
	n.service.mu.Lock()
	defer n.service.mu.Unlock()
	n.service.failed[path] = fails
}

// Asked is how often each path was asked for.
func (n *Node) Asked() map[string]int {
	n.service.mu.Lock()
	defer n.service.mu.Unlock()
	counts := map[string]int{}
	for path, count := range n.service.asked {
		counts[path] = count
	}
	return counts
}

// RestartSpeaker kills gobgpd and starts it.
func (n *Node) RestartSpeaker() error { return errors.Join(n.Speaker.Kill(), n.StartSpeaker()) }
