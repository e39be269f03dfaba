// Package nixeval turns a cluster's Nix definition into typed Go values.
//
// A cluster's flake has an output plasmacloud.<cluster>, the manifest, made by
// lib.mkCluster. [Evaluator.Eval] reads it with one `nix eval --json` and
// [DecodeManifest] reads the same JSON from a file. docs/design.md describes
// the shape field by field.
//
// The data of a manifest never comes without the module system's verdict on
// it: failed assertions arrive as an [AssertionError] that says which option
// to change, warnings are part of the [Manifest].
package nixeval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/mitchellh/mapstructure"
)

// SchemaVersion is the manifest version that this package reads.
const SchemaVersion = 1

// maxManifest bounds the JSON of one manifest, in bytes.
const maxManifest = 256 << 20

// Manifest is an evaluated cluster.
type Manifest struct {
	Cluster  Cluster
	Nodes    map[string]Node // by node id
	VIPs     map[string]VIP  // by host prefix in canonical text, such as 203.0.113.10/32
	Warnings []string        // of the module system, for the operator to read

	raw []byte
}

// Cluster is what all nodes have in common.
type Cluster struct {
	Name         string   `mapstructure:"name"`
	ASN          *uint32  `mapstructure:"asn"` // nil: the cluster speaks no BGP
	InitialPeers []string `mapstructure:"initialPeers"`
	DeployerURL  string   `mapstructure:"deployerUrl"`
}

// Node is one machine of the cluster.
type Node struct {
	Role          string            `mapstructure:"role"`
	IP            string            `mapstructure:"ip"`
	IPv6          *string           `mapstructure:"ipv6"`
	Services      []string          `mapstructure:"services"`
	Labels        map[string]string `mapstructure:"labels"`
	Site          *string           `mapstructure:"site"` // nil: none
	Identity      Identity          `mapstructure:"identity"`
	Deployment    Deployment        `mapstructure:"deployment"`
	ClusterConfig string            `mapstructure:"clusterConfig"` // exact bytes of cluster-config.json
	ConfigHash    string            `mapstructure:"configHash"`    // "sha256:" + hex of those bytes
	BGP           *BGP              `mapstructure:"bgp"`
	Announcer     map[string]any    `mapstructure:"announcer"` // announcer.json; nil: no announcer here
}

// Identity is how a machine is told before it has a name.
type Identity struct {
	MACs   []string `mapstructure:"macs"`   // lower case, with colons
	Serial *string  `mapstructure:"serial"` // as the firmware tells it; nil: not known
}

// Deployment is how a node is installed, and reached over SSH.
type Deployment struct {
	TargetHost string    `mapstructure:"targetHost"` // a host name or an address
	TargetUser string    `mapstructure:"targetUser"`
	TargetPort uint16    `mapstructure:"targetPort"`
	Tags       []string  `mapstructure:"tags"`
	Provision  Provision `mapstructure:"provision"`
}

// Provision is what the ISO does on a machine.
type Provision struct {
	Mode   string  `mapstructure:"mode"`   // live or install
	Disk   *string `mapstructure:"disk"`   // to install on, such as /dev/disk/by-id/...; nil: none named
	Script *string `mapstructure:"script"` // shell commands that install the node; nil: the ISO's own way
}

// BGP is a node's nix-nos.bgp.
type BGP struct {
	Backend       string             `mapstructure:"backend"`
	ASN           uint32             `mapstructure:"asn"`
	RouterID      string             `mapstructure:"routerId"`
	Peers         map[string]BGPPeer `mapstructure:"peers"`
	Announcements []Announcement     `mapstructure:"announcements"`
}

// BGPPeer is a router that a node keeps a session with. Settings holds those
// options of nix-nos.bgp.peers.<name> that are not at their default and have no
// field of their own here.
type BGPPeer struct {
	Address  string         `mapstructure:"address"`
	ASN      uint32         `mapstructure:"asn"`
	Settings map[string]any `mapstructure:",remain"`
}

// Announcement is a prefix that a node may originate. Settings holds the
// options of nix-nos.bgp.announcements that have no field of their own here.
type Announcement struct {
	Prefix   string         `mapstructure:"prefix"`
	Settings map[string]any `mapstructure:",remain"`
}

// VIP says which nodes may announce a virtual address.
type VIP struct {
	Nodes []string `mapstructure:"nodes"`
}

// JSON is the manifest as Nix gave it, in one line, for a file that the deployer reads.
func (m *Manifest) JSON() []byte { return m.raw }

// NodeIDs lists the nodes in order.
func (m *Manifest) NodeIDs() []string { return slices.Sorted(maps.Keys(m.Nodes)) }

// AnnouncerJSON is the node's announcer.json, or nil where the node has none.
func (n Node) AnnouncerJSON() ([]byte, error) {
	if n.Announcer == nil {
		return nil, nil
	}
	return json.MarshalIndent(n.Announcer, "", "  ")
}

// AssertionError lists the module assertions that a cluster fails.
type AssertionError struct{ Messages []string }

func (e *AssertionError) Error() string {
	return "the cluster fails its assertions:\n- " + strings.Join(e.Messages, "\n- ")
}

// DecodeManifest reads the JSON object { data, failedAssertions, warnings }.
// A key that this version does not know is an error, since ignoring it could
// drop something that the cluster's owner asked for.
func DecodeManifest(r io.Reader) (*Manifest, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if len(raw) > maxManifest {
		return nil, fmt.Errorf("manifest is larger than %d MiB", maxManifest>>20)
	}

	var tree map[string]any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // keeps the numbers of announcer.json as they were written
	if err := dec.Decode(&tree); err != nil {
		return nil, fmt.Errorf("manifest is not a JSON object: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("manifest has more after its JSON object")
	}

	var verdict struct {
		Data             map[string]any `mapstructure:"data"`
		FailedAssertions []string       `mapstructure:"failedAssertions"`
		Warnings         []string       `mapstructure:"warnings"`
	}
	if err := decodeStrict(tree, &verdict); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if len(verdict.FailedAssertions) > 0 {
		return nil, &AssertionError{verdict.FailedAssertions}
	}
	if verdict.Data == nil {
		return nil, errors.New("manifest: data is null though no assertion failed; was it made by plasmacloud's lib.mkCluster?")
	}

	version := fmt.Sprint(verdict.Data["schemaVersion"])
	if version != fmt.Sprint(SchemaVersion) {
		return nil, fmt.Errorf("manifest: data.schemaVersion is %s, this program reads %d; take the program and the flake input from the same release", version, SchemaVersion)
	}
	var data struct {
		SchemaVersion int             `mapstructure:"schemaVersion"`
		Cluster       Cluster         `mapstructure:"cluster"`
		Nodes         map[string]Node `mapstructure:"nodes"`
		VIPs          map[string]VIP  `mapstructure:"vips"`
	}
	if err := decodeStrict(verdict.Data, &data); err != nil {
		return nil, fmt.Errorf("manifest: data: %w", err)
	}
	return &Manifest{Cluster: data.Cluster, Nodes: data.Nodes, VIPs: data.VIPs, Warnings: verdict.Warnings, raw: append(bytes.TrimSpace(raw), '\n')}, nil
}

func decodeStrict(tree map[string]any, into any) error {
	dec, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		ErrorUnused: true,
		ErrorUnset:  true,
		MatchName:   func(key, field string) bool { return key == field },
		DecodeHook:  exactNumber,
		Result:      into,
	})
	if err != nil {
		return err
	}
	err = dec.Decode(tree)
	var merr *mapstructure.Error
	if errors.As(err, &merr) {
		slices.Sort(merr.Errors)
		if more := len(merr.Errors) - maxErrors; more > 0 {
			return fmt.Errorf("%s; and %d more", strings.Join(merr.Errors[:maxErrors], "; "), more)
		}
		return errors.New(strings.Join(merr.Errors, "; "))
	}
	return err
}

// maxErrors is how many mistakes are told at once: one release's manifest in another one's
// program has the same one in every node.
const maxErrors = 20

// exactNumber refuses what mapstructure would bend to fit: it takes a
// json.Number for a string, and cuts one that is too large for its field.
func exactNumber(_, to reflect.Type, value any) (any, error) {
	number, ok := value.(json.Number)
	if !ok {
		return value, nil
	}
	switch to.Kind() {
	case reflect.String:
		return nil, fmt.Errorf("want a string, not the number %s", number)
	case reflect.Uint16, reflect.Uint32:
		bits := to.Bits()
		n, err := strconv.ParseUint(number.String(), 10, bits)
		if err != nil {
			return nil, fmt.Errorf("%s is no whole number from 0 to %d", number, uint64(1)<<bits-1)
		}
		return n, nil
	}
	return value, nil
}
