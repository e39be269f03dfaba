package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	process "github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/nixeval"
)

// declared is what a manifest declares.
type declared struct {
	cluster string
	nodes   []node.Declaration // nil: there is no manifest
	vips    []deployer.VIPDeclaration
}

// readManifest is what the manifest at path declares, nothing for no path. A
// cluster that fails its assertions declares nothing.
func readManifest(path string) (declared, error) {
	if path == "" {
		return declared{}, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return declared{}, process.ConfigError(fmt.Errorf("manifest: %w; write one with plasmactl eval --out, or set manifest in the configuration", err))
	}
	defer file.Close()
	all, err := declarations(file)
	if err != nil {
		return declared{}, process.ConfigError(fmt.Errorf("manifest %s: %w", path, err))
	}
	return all, nil
}

func declarations(r io.Reader) (declared, error) {
	m, err := nixeval.DecodeManifest(r)
	var failed *nixeval.AssertionError
	switch {
	case errors.As(err, &failed):
		return declared{}, fmt.Errorf("the cluster fails its assertions, mend them and evaluate it again: %s", oneLine(strings.Join(failed.Messages, "; ")))
	case err != nil:
		return declared{}, errors.New(oneLine(err.Error()))
	case len(m.Nodes) == 0:
		return declared{}, errors.New("it declares no node; set plasmacloud.cluster.nodes")
	}
	all := declared{cluster: m.Cluster.Name}
	for _, id := range m.NodeIDs() {
		n := m.Nodes[id]
		ip, err := netip.ParseAddr(n.IP)
		if err != nil {
			return declared{}, fmt.Errorf("node %s: ip %q is not an address", id, n.IP)
		}
		d := node.Declaration{ID: id, Role: n.Role, IP: ip, ConfigHash: n.ConfigHash, Labels: n.Labels}
		d.Identity.MACs = append(d.Identity.MACs, n.Identity.MACs...) // nil for none
		if n.Identity.Serial != nil {
			d.Identity.Serial = *n.Identity.Serial
		}
		if err := d.Check(); err != nil {
			return declared{}, err
		}
		all.nodes = append(all.nodes, d)
	}
	for _, vip := range slices.Sorted(maps.Keys(m.VIPs)) {
		d := deployer.VIPDeclaration{VIP: vip, Nodes: m.VIPs[vip].Nodes}
		if err := d.Check(); err != nil {
			return declared{}, err
		}
		all.vips = append(all.vips, d)
	}
	return all, nil
}

// oneLine takes the line breaks out of s.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
