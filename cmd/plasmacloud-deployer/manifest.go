package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	process "github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/nixeval"
)

// readManifest is what the manifest at path declares, nil nodes for no path. A
// cluster that fails its assertions declares nothing.
func readManifest(path string) (cluster string, nodes []node.Declaration, err error) {
	if path == "" {
		return "", nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return "", nil, process.ConfigError(fmt.Errorf("manifest: %w; write one with plasmactl eval --out, or set manifest in the configuration", err))
	}
	defer file.Close()
	cluster, nodes, err = declarations(file)
	if err != nil {
		return "", nil, process.ConfigError(fmt.Errorf("manifest %s: %w", path, err))
	}
	return cluster, nodes, nil
}

func declarations(r io.Reader) (cluster string, nodes []node.Declaration, err error) {
	m, err := nixeval.DecodeManifest(r)
	var failed *nixeval.AssertionError
	switch {
	case errors.As(err, &failed):
		return "", nil, fmt.Errorf("the cluster fails its assertions, mend them and evaluate it again: %s", oneLine(strings.Join(failed.Messages, "; ")))
	case err != nil:
		return "", nil, errors.New(oneLine(err.Error()))
	case len(m.Nodes) == 0:
		return "", nil, errors.New("it declares no node; set plasmacloud.cluster.nodes")
	}
	for _, id := range m.NodeIDs() {
		n := m.Nodes[id]
		ip, err := netip.ParseAddr(n.IP)
		if err != nil {
			return "", nil, fmt.Errorf("node %s: ip %q is not an address", id, n.IP)
		}
		d := node.Declaration{ID: id, Role: n.Role, IP: ip, ConfigHash: n.ConfigHash, Labels: n.Labels}
		d.Identity.MACs = append(d.Identity.MACs, n.Identity.MACs...) // nil for none
		if n.Identity.Serial != nil {
			d.Identity.Serial = *n.Identity.Serial
		}
		if err := d.Check(); err != nil {
			return "", nil, err
		}
		nodes = append(nodes, d)
	}
	return m.Cluster.Name, nodes, nil
}

// oneLine takes the line breaks out of s.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
