package labcluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// Deployer is the cluster's deployer, on a network of its own with every node.
type Deployer struct {
	*api.Client
	Host *lab.Host
	URL  string // for who is on that network

	cluster *Cluster
	process *lab.Process // nil: stopped
}

const deployerPort = 8080

// heartbeat is how often nodes report here, whatever the data centre's deployer wants.
const heartbeat = time.Second

// wireDeployer joins the deployer and the nodes by a switch.
func (c *Cluster) wireDeployer() error {
	host, err := c.Lab.Host(c.topology.own("deployer"))
	if err != nil {
		return err
	}
	address := mgmtNet.Addr().Next()
	segment := map[*lab.Host][]netip.Prefix{host: {netip.PrefixFrom(address, mgmtNet.Bits())}}
	next := mgmtNet.Addr()
	for range 256 {
		next = next.Next()
	}
	for _, id := range c.NodeIDs() {
		next = next.Next()
		segment[c.Nodes[id].Host] = []netip.Prefix{netip.PrefixFrom(next, mgmtNet.Bits())}
	}
	if _, err := c.Lab.Segment(c.topology.own("mgmt"), "mgmt", segment); err != nil {
		return err
	}
	d := &Deployer{Host: host, cluster: c, URL: fmt.Sprintf("http://%s", netip.AddrPortFrom(address, deployerPort))}
	c.instead(fmt.Sprintf("the deployer is at %s in place of %s, on a network of its own, and wants no tokens", d.URL, c.cfg.Cluster.Manifest.Cluster.DeployerURL))
	d.Client, err = api.NewClient(d.URL, 5*time.Second, &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return host.Dial(ctx, network, address)
		}})
	c.Deployer = d
	return err
}

// Start starts the deployer with the evaluated manifest, and waits until it answers.
func (d *Deployer) Start() error {
	if d == nil {
		return nil
	}
	if err := d.WriteManifest(); err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"listen":             fmt.Sprintf(":%d", deployerPort),
		"store":              map[string]any{"path": filepath.Join(d.Host.Dir, "state.db")},
		"manifest":           filepath.Join(d.Host.Dir, "manifest.json"),
		"heartbeat_interval": heartbeat.String(),
	})
	if err != nil {
		return err
	}
	file := filepath.Join(d.Host.Dir, "deployer.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	if d.process, err = d.Host.Start("deployer", filepath.Join(d.cluster.cfg.Programs.Bin, "plasmacloud-deployer"), "serve", "--config", file, "--log-format", "json"); err != nil {
		return err
	}
	return lab.Eventually(daemonStart, func() error {
		if err := died(d.process); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := d.Health(ctx)
		return err
	})
}

// WriteManifest writes the manifest that nodes are compared with.
func (d *Deployer) WriteManifest() error {
	text, err := AnyMachine(d.cluster.cfg.Cluster.Manifest.JSON())
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.Host.Dir, "manifest.json"), text, 0o600)
}

// Kill ends the deployer at once.
func (d *Deployer) Kill() error {
	p := d.process
	d.process = nil
	if p == nil {
		return errors.New("the deployer does not run")
	}
	return p.Kill()
}

// Log is what it has written, by its last lines.
func (d *Deployer) Log() string {
	if d.process == nil {
		return ""
	}
	var lines []string
	scanner := bufio.NewScanner(strings.NewReader(d.process.Output()))
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// AnyMachine is a manifest without what it says of the nodes' machines: here
// this machine is each of them.
func AnyMachine(manifest []byte) ([]byte, error) {
	var whole map[string]any
	if err := json.Unmarshal(manifest, &whole); err != nil {
		return nil, err
	}
	data, _ := whole["data"].(map[string]any)
	nodes, ok := data["nodes"].(map[string]any)
	if !ok {
		return nil, errors.New("the manifest has no nodes")
	}
	for _, n := range nodes {
		if n, ok := n.(map[string]any); ok {
			n["identity"] = map[string]any{"macs": []string{}, "serial": nil}
		}
	}
	return json.Marshal(whole)
}
