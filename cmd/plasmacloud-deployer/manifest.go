package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	process "github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/node"
)

// maxManifestBytes bounds what is read of a manifest.
const maxManifestBytes = 256 << 20

// manifest is what the deployer reads of a cluster's manifest.
type manifest struct {
	FailedAssertions []string `json:"failedAssertions"`
	Data             *struct {
		SchemaVersion int `json:"schemaVersion"`
		Cluster       struct {
			Name string `json:"name"`
		} `json:"cluster"`
		Nodes map[string]struct {
			Role       string `json:"role"`
			IP         string `json:"ip"`
			ConfigHash string `json:"configHash"`
		} `json:"nodes"`
	} `json:"data"`
}

// readManifest is what the manifest at path declares, nil nodes for no path. A
// cluster that fails its assertions declares nothing.
func readManifest(path string) (cluster string, nodes []node.Declaration, err error) {
	if path == "" {
		return "", nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return "", nil, process.ConfigError(fmt.Errorf("manifest: %w; write one with plasmactl eval, or set manifest in the configuration", err))
	}
	defer file.Close()
	cluster, nodes, err = parseManifest(file)
	if err != nil {
		return "", nil, process.ConfigError(fmt.Errorf("manifest %s: %w", path, err))
	}
	return cluster, nodes, nil
}

func parseManifest(r io.Reader) (cluster string, nodes []node.Declaration, err error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxManifestBytes+1))
	if err != nil {
		return "", nil, err
	}
	if len(raw) > maxManifestBytes {
		return "", nil, fmt.Errorf("larger than %d bytes", maxManifestBytes)
	}
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return "", nil, fmt.Errorf("not a manifest: %w", err)
	}
	switch {
	case len(m.FailedAssertions) > 0:
		return "", nil, fmt.Errorf("the cluster fails its assertions, mend them and evaluate it again: %s", oneLine(m.FailedAssertions))
	case m.Data == nil:
		return "", nil, errors.New("not a manifest: it has no data")
	case m.Data.SchemaVersion != 1:
		return "", nil, fmt.Errorf("schemaVersion is %d, and this deployer reads 1; use the release that made it", m.Data.SchemaVersion)
	case len(m.Data.Nodes) == 0:
		return "", nil, errors.New("it declares no node; set plasmacloud.cluster.nodes")
	}
	for _, id := range slices.Sorted(maps.Keys(m.Data.Nodes)) {
		n := m.Data.Nodes[id]
		ip, err := netip.ParseAddr(n.IP)
		if err != nil {
			return "", nil, fmt.Errorf("node %s: ip %q is not an address", id, n.IP)
		}
		d := node.Declaration{ID: id, Role: n.Role, IP: ip, ConfigHash: n.ConfigHash}
		if err := d.Check(); err != nil {
			return "", nil, err
		}
		nodes = append(nodes, d)
	}
	return m.Data.Cluster.Name, nodes, nil
}

// oneLine joins messages and takes their line breaks.
func oneLine(messages []string) string {
	return strings.Join(strings.Fields(strings.Join(messages, "; ")), " ")
}
