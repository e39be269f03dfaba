// Package bootsite is where machines of an evaluated cluster boot: a host with the
// deployer, and small ISOs of the cluster for its machines.
package bootsite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/qemu"
)

// Config says what boots where.
type Config struct {
	Repo   string         // the checkout
	Bin    string         // folder of our programs
	Flake  string         // the cluster
	Eval   nixeval.Config // how to evaluate it
	Tokens string         // what joins: lines of the deployer's join_file; "": every machine
}

// Site is a host with its deployer, which the machines of the cluster reach.
type Site struct {
	Host     *lab.Host
	Manifest *nixeval.Manifest

	// HostAddress is where the cluster says that its deployer is, for [qemu.Config].
	HostAddress string

	cfg  Config
	lab  *lab.Lab
	dir  string // for what machines boot from
	port string
}

// script is what the machines do, in the order of the ISO's units.
const script = `
for disk in /sys/class/block/vd?; do
  [ ! -e "$disk" ] || echo "disk ${disk##*/} of $(cat "$disk/size") sectors: $(head -c 16 "/dev/${disk##*/}")"
done
plasmacloud-phone-home identify --nodes /nodes.json --out /run/plasmacloud --hostname
plasmacloud-phone-home --config /run/plasmacloud/cluster-config.json --phase ready --attempts 0 \
  --join-token-file /join-token --secret-file /run/plasmacloud/secret
`

// byName is the name of the deployer that a machine knows without asking a server.
const byName = "deployer"

// New evaluates the cluster and makes the host. The site is to be closed.
func New(ctx context.Context, cfg Config) (*Site, error) {
	result, err := nixeval.New(cfg.Eval).Eval(ctx, cfg.Flake)
	if err != nil {
		return nil, err
	}
	s := &Site{Manifest: result.Manifest, cfg: cfg}
	if err := s.findDeployer(); err != nil {
		return nil, err
	}
	if s.lab, err = lab.New("boot"); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "plasmacloud-boot-"); err == nil {
		s.Host, err = s.lab.Host("site")
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends everything, and removes it.
func (s *Site) Close() error { return errors.Join(s.lab.Close(), os.RemoveAll(s.dir)) }

// findDeployer finds where machines will look for the deployer.
func (s *Site) findDeployer() error {
	for _, id := range s.Manifest.NodeIDs() {
		var node struct {
			DeployerURL string `json:"deployer_url"`
		}
		if err := json.Unmarshal([]byte(s.Manifest.Nodes[id].ClusterConfig), &node); err != nil {
			return fmt.Errorf("cluster-config.json of %s: %w", id, err)
		}
		where, err := url.Parse(node.DeployerURL)
		if err != nil {
			return fmt.Errorf("the deployer of %s: %w", id, err)
		}
		host := where.Hostname()
		if address, err := netip.ParseAddr(host); where.Scheme != "http" || host != byName && (err != nil || !address.Is4()) {
			return fmt.Errorf("plasmacloud.cluster.deployer.url is %s: for a boot here it has to be http, with an IPv4 address or the name %q", where, byName)
		}
		if host != byName {
			s.HostAddress = host
		}
		if s.port = where.Port(); s.port == "" {
			s.port = "80"
		}
	}
	return nil
}

// Write writes a file for the site, which goes with it.
func (s *Site) Write(name, text string) (string, error) {
	file := filepath.Join(s.dir, name)
	return file, os.WriteFile(file, []byte(text), 0o600)
}

// Image makes a small ISO, small.iso, with its kernel and initrd beside it, in a
// folder of that name, for all nodes of the cluster. They join by the token.
func (s *Site) Image(ctx context.Context, name, token string) (string, error) {
	guest, err := Guest(ctx, s.cfg.Repo)
	if err != nil {
		return "", err
	}
	var nodes string
	text, err := nixeval.New(s.cfg.Eval).EvalAttr(ctx, s.cfg.Flake+`#nixosConfigurations.plasmacloud-iso.config.environment.etc."plasmacloud/nodes.json".text`)
	if err == nil {
		err = json.Unmarshal(text, &nodes)
	}
	if err != nil {
		return "", err
	}
	dir := filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, qemu.Image{
		Guest:     guest,
		PhoneHome: filepath.Join(s.cfg.Bin, "plasmacloud-phone-home"),
		Script:    script,
		Modules:   []string{"virtio_blk"},
		Files: map[string]string{
			"/nodes.json": nodes,
			"/etc/hosts":  "10.0.2.2 " + byName + "\n",
			"/join-token": token + "\n",
		},
	}.Build(dir)
}

// Guest is the folder with the kernel for machines, which .ci/guest unpacks.
func Guest(ctx context.Context, repo string) (string, error) {
	guest, err := filepath.Abs(filepath.Join(repo, ".cache", "guest"))
	if err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(repo, ".ci", "guest"), guest).CombinedOutput(); err != nil {
		return "", fmt.Errorf(".ci/guest: %w: %s", err, out)
	}
	return guest, nil
}

// Boot switches a machine on. cfg.HostAddress is the site's.
func (s *Site) Boot(ctx context.Context, cfg qemu.Config) (*qemu.Machine, error) {
	cfg.HostAddress = s.HostAddress
	return qemu.Start(ctx, s.Host, cfg)
}

// StartDeployer starts the deployer where the cluster says that it is.
func (s *Site) StartDeployer() error {
	config := map[string]any{"listen": net.JoinHostPort("127.0.0.1", s.port), "store": map[string]string{"path": filepath.Join(s.dir, "state.db")}}
	files := map[string]string{"manifest.json": string(s.Manifest.JSON())}
	if s.cfg.Tokens != "" {
		files["join-tokens"] = s.cfg.Tokens
		config["tokens"] = map[string]string{"join_file": filepath.Join(s.dir, "join-tokens")}
	}
	config["manifest"] = filepath.Join(s.dir, "manifest.json")
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	files["deployer.json"] = string(text)
	for name, text := range files {
		if _, err := s.Write(name, text); err != nil {
			return err
		}
	}
	_, err = s.Host.Start("deployer", filepath.Join(s.cfg.Bin, "plasmacloud-deployer"), "serve", "--config", filepath.Join(s.dir, "deployer.json"))
	return err
}

// State is what the deployer says of a node: its state, and whether it has the
// declared configuration.
func (s *Site) State(id string) (state, config string, err error) {
	out, err := s.Host.Run(filepath.Join(s.cfg.Bin, "plasmactl"), "node", "show", id, "-o", "json", "--deployer-url", "http://127.0.0.1:"+s.port)
	if err != nil {
		return "", "", err
	}
	var shown struct{ State, Config string }
	err = json.Unmarshal([]byte(out), &shown)
	return shown.State, shown.Config, err
}

// Active is the last phase of a boot: the deployer has the node as Active, with the
// declared configuration.
func (s *Site) Active(id string) qemu.Phase {
	return qemu.Phase{Name: "Active", Check: func() error {
		state, config, err := s.State(id)
		if err == nil && (state != "Active" || config != "in_sync") {
			err = fmt.Errorf("for the deployer %s is %s, and %s", id, state, config)
		}
		return err
	}}
}

// Keep copies what machines and the deployer said to a folder that stays.
func (s *Site) Keep() (string, error) {
	kept, err := os.MkdirTemp("", "plasmacloud-boot-failed-")
	if err != nil {
		return "", err
	}
	return kept, os.CopyFS(kept, os.DirFS(s.Host.Dir))
}
