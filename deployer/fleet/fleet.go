// Package fleet simulates the nodes of a cluster: each is the phone-home client's own
// code with a machine that is made up, and all of them are in one process. It is for
// tests, and for finding out what a deployer can take before real machines do.
//
// A [Fleet] plays acts one after the other, a power failure or a storm of wrong tokens
// for example, and says of each what it measured and what went wrong; see [Acts].
package fleet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/phonehome"
)

// Prefix begins the id of every simulated node, so that none is taken for a real one.
const Prefix = "sim-"

// MaxNodes is how many nodes a Fleet has at most.
const MaxNodes = 1_000_000

// Config says which nodes there are and where they report. Zero values mean the
// defaults that stand beside them.
type Config struct {
	URL         string      // of the deployer
	TLS         *tls.Config // nil: the system's CAs
	Nodes       int
	Seed        uint64        // the same seed makes the same machines, with the same secrets
	JoinToken   string        // "": the deployer wants none
	Connections int           // that nodes share; one for each node, but at most 4096
	Apart       bool          // each node keeps a connection of its own, as real ones do; Connections is for strangers then
	Share       float64       // of the nodes that some acts are about; 0.1
	Timeout     time.Duration // of one attempt to report; 10s
	Patience    time.Duration // how long an act may take until all nodes are Active; 5m
	Progress    func(Progress)
	Answered    func(Answer) // called for each accepted report, by many at once; may be nil
}

// Answer is what a node was told.
type Answer struct {
	ID        string
	MachineID string
	Phase     node.Phase // that it reported
	State     node.State
}

// Progress is how far an act is.
type Progress struct {
	Act     string
	Active  int // nodes that the act made Active
	Nodes   int // that it is about
	Reports int // answered so far
}

// Fleet is the nodes. Its methods are called one at a time.
type Fleet struct {
	cfg     Config
	address string // HOST:PORT of the deployer
	shared  *http.Transport
	members []*member

	playing atomic.Pointer[play] // what answers count for
	running sync.WaitGroup       // clients
}

// member is one simulated node.
type member struct {
	number  int
	id      string
	cluster phonehome.ClusterConfig
	machine phonehome.Machine
	secret  string
	boots   int

	own    *http.Transport // nil: the shared one
	slow   bool            // counted apart
	cancel context.CancelFunc
	done   chan struct{}

	active atomic.Bool // accepted as Active in this act
}

// New is a fleet that is switched off.
func New(cfg Config) (*Fleet, error) {
	base, err := api.ParseBaseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.Nodes < 1 || cfg.Nodes > MaxNodes {
		return nil, fmt.Errorf("a fleet has 1 to %d nodes, not %d", MaxNodes, cfg.Nodes)
	}
	cfg.Connections = cmp.Or(cfg.Connections, min(cfg.Nodes, 4096))
	cfg.Share = cmp.Or(cfg.Share, 0.1)
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.Patience = cmp.Or(cfg.Patience, 5*time.Minute)
	f := &Fleet{cfg: cfg, address: hostPort(base)}
	f.shared = f.transport(cfg.Connections, nil, nil)
	f.playing.Store(newPlay("", 0))
	for i := range cfg.Nodes {
		m, err := newMember(cfg, i)
		if err != nil {
			return nil, err
		}
		f.members = append(f.members, m)
	}
	return f, nil
}

func hostPort(base *url.URL) string {
	port := base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[base.Scheme]
	}
	return net.JoinHostPort(base.Hostname(), port)
}

// dial connects, maybe over a bad network.
type dial func(ctx context.Context, network, address string) (net.Conn, error)

// transport is a client's with a limit of connections. now is nil for the right time.
func (f *Fleet) transport(connections int, dials dial, now func() time.Time) *http.Transport {
	if dials == nil {
		dials = (&net.Dialer{Timeout: f.cfg.Timeout}).DialContext
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.cfg.TLS != nil {
		config = f.cfg.TLS.Clone()
	}
	config.Time = now
	return &http.Transport{
		DialContext: dials, TLSClientConfig: config, TLSHandshakeTimeout: f.cfg.Timeout, DisableCompression: true,
		MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, IdleConnTimeout: 90 * time.Second,
	}
}

// ID is the id of node i.
func ID(i int) string { return fmt.Sprintf("%s%06d", Prefix, i) }

// ClusterConfig is the cluster-config.json of node i, for a manifest that declares it. It is the
// same whatever the deployer's URL, which is not known before there is a manifest.
func ClusterConfig(i int) []byte {
	text, err := json.Marshal(phonehome.ClusterConfig{
		SchemaVersion: 1, ClusterName: "simulated", NodeID: ID(i), NodeRole: "worker", NodeIP: address(i).String(),
		Services: []string{}, Labels: map[string]string{}, InitialPeers: []string{},
	})
	if err != nil {
		panic(err) // a type that JSON does not have
	}
	return text
}

// address is one of 198.18.0.0/15, which is for such tests (RFC 2544), and beyond that of 10.0.0.0/8.
func address(i int) netip.Addr {
	if i < 1<<17 {
		return netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)})
	}
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func newMember(cfg Config, i int) (*member, error) {
	cluster, err := phonehome.ParseClusterConfig(ClusterConfig(i))
	if err != nil {
		return nil, err
	}
	seed := sha256.Sum256(fmt.Appendf(nil, "%d/%d", cfg.Seed, i))
	return &member{
		number: i, id: cluster.NodeID, cluster: cluster, machine: machine(cluster.NodeID, seed),
		secret: base64.RawURLEncoding.EncodeToString(seed[:]),
	}, nil
}

// machine is made of random bytes.
func machine(hostname string, random [32]byte) phonehome.Machine {
	of := func(what string) string {
		sum := sha256.Sum256(append([]byte(what), random[:]...))
		return hex.EncodeToString(sum[:16])
	}
	id, _ := node.CanonicalMachineID(of("uuid"))
	mac := net.HardwareAddr(random[:6])
	mac[0] = mac[0]&^1 | 2 // locally administered
	serial := strings.ToUpper(of("serial")[:12])
	return phonehome.Machine{
		ID: id, IDSource: "simulated", BootID: of("boot 0"), Hostname: hostname, MACs: []string{mac.String()}, Serial: serial,
		Facts: map[string]string{
			"arch": "amd64", "cpus": "64", "kernel": "6.12.0", "memory_bytes": "549755813888", "macs": mac.String(), "serial": serial,
		},
	}
}

// boot gives the machine a new boot id.
func (m *member) boot() {
	m.boots++
	sum := sha256.Sum256(fmt.Appendf(nil, "%s boot %d", m.machine.ID, m.boots))
	m.machine.BootID = hex.EncodeToString(sum[:16])
}

var quiet = slog.New(slog.DiscardHandler)

// start runs the node's client: each of phases until it is accepted, the last one with
// heartbeats from then on.
func (f *Fleet) start(ctx context.Context, m *member, phases ...node.Phase) {
	if f.cfg.Apart && m.own == nil {
		m.own = f.transport(1, f.from(m), nil)
	}
	ctx, m.cancel = context.WithCancel(ctx)
	m.done = make(chan struct{})
	given := phonehome.Given{Cluster: m.cluster, Machine: m.machine}
	if f.cfg.JoinToken != "" {
		given.JoinToken, given.Secret = f.cfg.JoinToken, m.secret
	}
	f.running.Go(func() {
		defer close(m.done)
		for i, phase := range phases {
			err := phonehome.Run(ctx, phonehome.Config{
				DeployerURL: f.cfg.URL, Phase: phase, Heartbeat: i == len(phases)-1, Timeout: f.cfg.Timeout,
				Given: &given, Transport: f.recorder(m, phase), Logger: quiet,
			})
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				f.playing.Load().gaveUp(m, err)
				return
			}
		}
	})
}

// stop switches nodes off, and waits until they are.
func stop(members []*member) {
	for _, m := range members {
		if m.cancel != nil {
			m.cancel()
		}
	}
	for _, m := range members {
		if m.done != nil {
			<-m.done
		}
		if m.own != nil {
			m.own.CloseIdleConnections()
		}
		m.own, m.slow = nil, false
	}
}

// Close switches all nodes off.
func (f *Fleet) Close() {
	stop(f.members)
	f.running.Wait()
	f.shared.CloseIdleConnections()
}

// some is the share of the nodes that an act is about, at least one, spread over all.
func (f *Fleet) some() []*member {
	n := min(len(f.members), max(1, int(f.cfg.Share*float64(len(f.members)))))
	chosen := make([]*member, n)
	for i := range chosen {
		chosen[i] = f.members[i*len(f.members)/n]
	}
	return chosen
}
