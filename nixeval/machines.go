package nixeval

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/centra/plasmacloud/nix/machines"
)

// Machine is what NixOS makes of one node: the configuration of its BGP daemon
// as the modules wrote it.
type Machine struct {
	// FailedAssertions are those of NixOS and of the user's modules, for which NixOS refuses to
	// build the machine: a disk that is not described, say. Its daemons are none the worse.
	FailedAssertions []string
	Announcer        json.RawMessage // announcer.json; nil: the machine runs none
	BGP              *Speaker        // nil: no BGP daemon
}

// Speaker is a machine's BGP daemon.
type Speaker struct {
	Backend       string                 `json:"backend"` // gobgp, bird or frr
	ASN           uint32                 `json:"asn"`
	Port          uint16                 `json:"port"` // where peers connect
	Peers         map[string]SpeakerPeer `json:"peers"`
	Announcements []SpeakerRoute         `json:"announcements"`
	Injects       bool                   `json:"injects"` // the announcements, and not the announcer
	APIAddress    string                 `json:"apiAddress"`
	KeepRoutes    bool                   `json:"keepRoutes"` // gobgp is stopped so that peers keep its routes

	// Config is the daemon's configuration: gobgpd's as JSON, bird.conf, or frr.conf.
	// In place of the passwords of peers it has @password-1@, @password-2@ and so on.
	Config string `json:"config"`
	// Options are further arguments of FRR's bgpd.
	Options []string `json:"options"`
	// Routes are those that gobgpd is given as it starts, a line each; see nix-nos' gobgp-announce.sh.
	Routes string `json:"routes"`
}

// SpeakerPeer is a peer with all of its options that the other side has to match.
type SpeakerPeer struct {
	Address         *string         `json:"address"` // nil: whoever is on Interface
	Interface       *string         `json:"interface"`
	ASN             uint32          `json:"asn"`
	Password        bool            `json:"password"`
	LocalAddress    *string         `json:"localAddress"`
	Passive         bool            `json:"passive"`
	Multihop        *int            `json:"multihop"`
	TTLSecurity     *int            `json:"ttlSecurity"`
	Hold            int             `json:"hold"` // seconds
	GracefulRestart bool            `json:"gracefulRestart"`
	Families        []string        `json:"families"` // ipv4, ipv6
	BFD             bool            `json:"bfd"`
	Export          json.RawMessage `json:"export"` // "all", "none" or rules
}

// SpeakerRoute is an entry of nix-nos.bgp.announcements.
type SpeakerRoute struct {
	Prefix      string   `json:"prefix"`
	Peers       []string `json:"peers"` // nil: all
	NextHop     *string  `json:"nextHop"`
	Communities []string `json:"communities"`
	MED         *uint32  `json:"med"`
	LocalPref   *uint32  `json:"localPref"`
	Prepend     int      `json:"prepend"`
	Aggregate   bool     `json:"aggregate"`
}

// MachinesResult is a cluster with its machines, by node id.
type MachinesResult struct {
	Result
	Machines map[string]Machine
}

// EvalMachines is [Evaluator.EvalMachinesWith] without a further module.
func (e *Evaluator) EvalMachines(ctx context.Context, ref string) (*MachinesResult, error) {
	return e.EvalMachinesWith(ctx, ref, "")
}

// EvalMachinesWith evaluates the cluster as [Evaluator.Eval] does, and the NixOS
// configuration of each of its nodes with it, in one evaluation. That takes
// more time a node than the cluster's data alone. A machine that fails an assertion of
// PlasmaCloud or Nix-NOS is an [AssertionError]; see [MachinesResult.Warnings] for others.
//
// The module is the text of a further NixOS module of every node, which can name no
// file by a relative path; "" is none. The cluster's own data does not see it.
func (e *Evaluator) EvalMachinesWith(ctx context.Context, ref, module string) (*MachinesResult, error) {
	flake, err := parseRef(ref)
	if err != nil {
		return nil, err
	}
	if !clusterName.MatchString(flake.fragment) {
		return nil, fmt.Errorf("%q after '#' is no cluster name: want letters, digits, '-' and '_'", flake.fragment)
	}
	raw, result, err := e.eval(ctx, flake, "nixosConfigurations", "--apply", machines.Apply(flake.fragment, module))
	var evalErr *EvalError
	if errors.As(err, &evalErr) && module == "" {
		// What is wrong with the cluster is said better without its machines.
		again := *e
		again.cfg.Lib = result.Lib // what there was to warn of was said
		if _, plain := again.Eval(ctx, ref); plain != nil {
			return nil, plain
		}
	}
	if err != nil {
		return nil, err
	}
	out, err := DecodeMachines(raw)
	if err != nil {
		return nil, fmt.Errorf("evaluate %s: %w", flake.given, err)
	}
	out.Lib, out.Nix, out.Took, out.Memory = result.Lib, result.Nix, result.Took, result.Memory
	return out, nil
}

// Warnings are those of the cluster, and what NixOS refuses to build its machines for.
func (r *MachinesResult) Warnings() []string {
	var messages []string
	nodes := map[string][]string{} // by message
	for _, id := range slices.Sorted(maps.Keys(r.Machines)) {
		for _, message := range r.Machines[id].FailedAssertions {
			if nodes[message] == nil {
				messages = append(messages, message)
			}
			nodes[message] = append(nodes[message], id)
		}
	}
	all := slices.Clone(r.Manifest.Warnings)
	for _, message := range messages {
		all = append(all, fmt.Sprintf("NixOS refuses to build %s: %s", strings.Join(nodes[message], ", "), message))
	}
	return all
}

// ours tells messages of our own modules, each of which begins with an option.
func ours(message string) bool {
	return strings.HasPrefix(message, "plasmacloud.") || strings.HasPrefix(message, "nix-nos.")
}

// DecodeMachines reads the JSON of what [machines.Function] returns.
func DecodeMachines(raw []byte) (*MachinesResult, error) {
	var whole struct {
		Manifest json.RawMessage `json:"manifest"`
		Machines map[string]struct {
			FailedAssertions []string `json:"failedAssertions"`
			Announcer        *string  `json:"announcer"`
			BGP              *Speaker `json:"bgp"`
		} `json:"machines"`
	}
	if err := json.Unmarshal(raw, &whole); err != nil {
		return nil, fmt.Errorf("machines: %w", err)
	}
	manifest, err := DecodeManifest(bytes.NewReader(whole.Manifest))
	if err != nil {
		return nil, err
	}
	out := &MachinesResult{Result: Result{Manifest: manifest}, Machines: map[string]Machine{}}
	var failed []string
	for _, id := range slices.Sorted(maps.Keys(whole.Machines)) {
		m := whole.Machines[id]
		machine := Machine{BGP: m.BGP}
		for _, message := range m.FailedAssertions {
			if ours(message) {
				failed = append(failed, id+": "+message)
			} else {
				machine.FailedAssertions = append(machine.FailedAssertions, message)
			}
		}
		if m.Announcer != nil {
			machine.Announcer = json.RawMessage(*m.Announcer)
		}
		out.Machines[id] = machine
	}
	if len(failed) > 0 {
		return nil, &AssertionError{failed}
	}
	for _, id := range manifest.NodeIDs() {
		if _, has := out.Machines[id]; !has {
			return nil, fmt.Errorf("nixosConfigurations of the flake has no machine for node %s; hand on both outputs of mkCluster, plasmacloud and nixosConfigurations", id)
		}
	}
	return out, nil
}
