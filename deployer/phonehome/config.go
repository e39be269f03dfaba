package phonehome

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/strictjson"
)

// maxConfigBytes is far more than a cluster-config.json can need.
const maxConfigBytes = 1 << 20

// As plasmacloud.cluster writes them.
var (
	labelKey   = regexp.MustCompile(`^([0-9A-Za-z]([0-9A-Za-z._-]{0,61}[0-9A-Za-z])?/)?[0-9A-Za-z]([0-9A-Za-z._-]{0,61}[0-9A-Za-z])?$`)
	labelValue = regexp.MustCompile(`^([0-9A-Za-z]([0-9A-Za-z._-]{0,61}[0-9A-Za-z])?)?$`)
)

// ClusterConfig is cluster-config.json: what a node knows of itself and its cluster.
// nix/schema/cluster-config.schema.json says the same.
type ClusterConfig struct {
	SchemaVersion int               `json:"schema_version"` // 1
	ClusterName   string            `json:"cluster_name"`
	NodeID        string            `json:"node_id"`
	NodeRole      string            `json:"node_role"` // control-plane or worker
	NodeIP        string            `json:"node_ip"`
	NodeIPv6      *string           `json:"node_ipv6"` // null: none beside node_ip
	Services      []string          `json:"services"`
	Labels        map[string]string `json:"labels"`
	Site          *string           `json:"site"`      // null: none
	Bootstrap     bool              `json:"bootstrap"` // true on the initial peers
	InitialPeers  []string          `json:"initial_peers"`
	BGPASN        *uint32           `json:"bgp_asn"`      // null: the cluster has no BGP
	DeployerURL   string            `json:"deployer_url"` // base URL; /api/v1/phone-home is appended

	Hash string `json:"-"` // config_hash: "sha256:" and hex, of the file's exact bytes
}

// ReadClusterConfig reads and checks the file at path.
func ReadClusterConfig(path string) (ClusterConfig, error) {
	file, err := os.Open(path)
	if err != nil {
		return ClusterConfig{}, fmt.Errorf("cluster config: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxConfigBytes+1))
	if err != nil {
		return ClusterConfig{}, fmt.Errorf("cluster config: %w", err)
	}
	config, err := ParseClusterConfig(data)
	if err != nil {
		return config, fmt.Errorf("cluster config %s: %w", path, err)
	}
	return config, nil
}

// ParseClusterConfig decodes data strictly: an unknown key means that the file
// was made for another version of this program, and guessing would join the wrong
// cluster. Errors name the key.
func ParseClusterConfig(data []byte) (ClusterConfig, error) {
	var c ClusterConfig
	if len(data) > maxConfigBytes {
		return c, fmt.Errorf("larger than %d bytes", maxConfigBytes)
	}
	if err := strictjson.DecodeNoNull(data, &c); err != nil {
		return ClusterConfig{}, err
	}
	if err := c.check(); err != nil {
		return ClusterConfig{}, err
	}
	sum := sha256.Sum256(data)
	c.Hash = "sha256:" + hex.EncodeToString(sum[:])
	return c, nil
}

func (c ClusterConfig) check() error {
	bad := func(field, format string, args ...any) error {
		return &strictjson.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	if c.SchemaVersion != 1 {
		return bad("schema_version", "this program reads version 1, found %d", c.SchemaVersion)
	}
	const label = "want a lower-case host label (RFC 1123), found %q"
	if c.ClusterName == "" {
		return bad("cluster_name", "required")
	}
	if !node.ValidID(c.ClusterName) {
		return bad("cluster_name", label, c.ClusterName)
	}
	if !node.ValidID(c.NodeID) {
		return bad("node_id", label, c.NodeID)
	}
	if c.NodeRole != "control-plane" && c.NodeRole != "worker" {
		return bad("node_role", "want control-plane or worker, found %q", c.NodeRole)
	}
	ip, err := netip.ParseAddr(c.NodeIP)
	if err != nil || ip.Zone() != "" {
		return bad("node_ip", "want an IPv4 or IPv6 address, found %q", c.NodeIP)
	}
	if c.NodeIPv6 != nil {
		ipv6, err := netip.ParseAddr(*c.NodeIPv6)
		if err != nil || !ipv6.Is6() || ipv6.Zone() != "" {
			return bad("node_ipv6", "want an IPv6 address or null, found %q", *c.NodeIPv6)
		}
		if ip.Is6() {
			return bad("node_ipv6", "want null, since node_ip is an IPv6 address, found %q", *c.NodeIPv6)
		}
	}
	for i, service := range c.Services {
		if service == "" {
			return bad(fmt.Sprintf("services[%d]", i), "is empty")
		}
	}
	for key, value := range c.Labels {
		if !labelKey.MatchString(key) {
			return bad("labels", "%q is no name of a label; use letters, digits, . _ and -", key)
		}
		if !labelValue.MatchString(value) {
			return bad("labels."+key, "%q is no value of a label; use at most 63 letters, digits, . _ and -", value)
		}
	}
	if c.Site != nil && !node.ValidID(*c.Site) {
		return bad("site", label, *c.Site)
	}
	for i, peer := range c.InitialPeers {
		if !node.ValidID(peer) {
			return bad(fmt.Sprintf("initial_peers[%d]", i), label, peer)
		}
	}
	if asn := c.BGPASN; asn != nil && (*asn == 0 || *asn == 23456 || *asn == 65535 || *asn == 4294967295) {
		return bad("bgp_asn", "want an AS number or null, found the reserved %d", *asn)
	}
	if c.DeployerURL != "" {
		if _, err := api.ParseBaseURL(c.DeployerURL); err != nil {
			return bad("deployer_url", "%v", err)
		}
	}
	return nil
}
