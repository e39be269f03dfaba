// Package demo runs the whole way on one machine, with the real programs: from
// a cluster's Nix definition to Active nodes and to VIPs in a router's table.
//
// What is real: the evaluation, the deployer on bbolt, the phone-home clients,
// the announcer, netlink, both BGP speakers (GoBGP, in this process, serving
// its gRPC API as gobgpd does) and the session between them. What stands in for
// the data centre: loopback for the network, one network namespace for the
// host that holds the VIPs, and small servers for the VIPs' backends.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	apipb "github.com/osrg/gobgp/v3/api"

	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// Config is what a demo needs.
type Config struct {
	Flake string         // the cluster
	Eval  nixeval.Config // how to evaluate it
	Bin   string         // folder of the PlasmaCloud programs
	Keep  bool           // go on serving until the context ends
	Out   io.Writer      // the story
	Enter string         // the command that enters the namespaces it all runs in; empty: this machine's own

	// Table writes rows under a header of tab-separated titles.
	Table func(w io.Writer, header string, rows [][]any) error
}

const (
	speakerAPI  = "127.0.0.1:50051" // where gobgpd serves its API, and the announcer looks for it
	stepTimeout = 20 * time.Second  // for each thing that the demo waits for
	drainDelay  = time.Second       // instead of the cluster's, which may be long
	probeEvery  = "200ms"
	mostProbes  = 10 // in place of a larger rise or fall
)

// Run tells the story on cfg.Out and returns the first thing that did not go as
// it should. It leaves no process, namespace, address or file behind.
func Run(ctx context.Context, cfg Config) (err error) {
	d := &demo{Config: cfg}
	defer func() { err = errors.Join(err, d.cleanUp()) }()

	for _, step := range []struct {
		title string
		run   func(context.Context) error
	}{
		{"Evaluate the cluster's Nix definition", d.evaluate},
		{"Start a BGP speaker, and a second one as the router", d.startSpeakers},
		{"Start the deployer", d.startDeployer},
		{"Boot the nodes: each phones home and becomes Active", d.bootNodes},
		{"Announce the VIPs", d.announce},
		{"Fail one VIP's health check", d.failCheck},
		{"Let it recover", d.recoverCheck},
		{"Go on serving", d.serve},
		{"Stop: withdraw first, let go of the addresses second", d.stopAnnouncer},
	} {
		if err := d.step(ctx, step.title, step.run); err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			return fmt.Errorf("%s: %w%s", strings.ToLower(step.title[:1])+step.title[1:], err, d.lastWords())
		}
	}
	d.say("\nAll of it worked, in %.1f s.", time.Since(d.begin).Seconds())
	return nil
}

type demo struct {
	Config
	begin time.Time
	steps int

	dir       string // the lab's: configurations, logs and the deployer's state
	manifest  *nixeval.Manifest
	speakerID string // the node whose announcer the demo runs; empty: the cluster announces nothing
	lab       *lab.Lab
	vips      *lab.Host // the namespace that holds the VIPs
	backends  []*backend
	processes []*lab.Process

	router    *speaker.GoBGP
	routerAPI string // host:port of its gRPC API
	announcer *lab.Process
	deployer  *api.Client
	url       string // of the deployer
	healthy   []speaker.Route
	failing   *backend
}

// errSkip ends a step that does not apply; the reason was said.
var errSkip = errors.New("step does not apply")

func (d *demo) step(ctx context.Context, title string, run func(context.Context) error) error {
	if d.begin.IsZero() {
		d.begin = time.Now()
	}
	if err := ctx.Err(); err != nil && d.announcer == nil {
		return err
	}
	if title == "Go on serving" && !d.Keep {
		return nil
	}
	d.steps++
	d.say("\n%d. %s", d.steps, title)
	begin := time.Now()
	err := run(ctx)
	if errors.Is(err, errSkip) {
		return nil
	}
	if err == nil {
		d.say("   %.2f s", time.Since(begin).Seconds())
	}
	return err
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", args...) }

func (d *demo) evaluate(ctx context.Context) error {
	result, err := nixeval.New(d.Eval).Eval(ctx, d.Flake)
	if err != nil {
		return err
	}
	d.manifest = result.Manifest
	for _, id := range d.manifest.NodeIDs() {
		n := d.manifest.Nodes[id]
		if n.Announcer == nil || n.BGP == nil || len(n.BGP.Peers) == 0 {
			continue
		}
		d.speakerID = id
		if len(d.allVIPs()) > 0 {
			break
		}
		d.speakerID = ""
	}
	lib := "nixpkgs' lib"
	if result.Lib == nixeval.LibOffline {
		lib = "the stand-in for nixpkgs' lib"
	}
	d.say("   nix eval --json, Nix %s, %s: cluster %s with %d nodes and %d VIPs",
		result.Nix, lib, d.manifest.Cluster.Name, len(d.manifest.Nodes), len(d.manifest.VIPs))
	for _, warning := range d.manifest.Warnings {
		d.say("   warning: %s", warning)
	}
	// The lab's folder takes our files too: the next demo finds them there if
	// this one is killed.
	if d.lab, err = lab.New("demo"); err != nil {
		return err
	}
	d.dir = d.lab.Dir
	return nil
}

func (d *demo) startSpeakers(ctx context.Context) error {
	if d.speakerID == "" {
		d.say("   the cluster has no VIPs to announce, or no routers to announce them to; the demo shows the nodes only")
		return errSkip
	}
	bgp := d.manifest.Nodes[d.speakerID].BGP
	routerID, err := netip.ParseAddr(bgp.RouterID)
	if err != nil {
		return fmt.Errorf("router id of %s: %w", d.speakerID, err)
	}
	var routerASN uint32
	for _, peer := range bgp.Peers {
		routerASN = max(routerASN, peer.ASN)
	}
	ownID := netip.MustParseAddr("192.0.2.1")
	if routerID == ownID { // within one AS they must differ, RFC 6286 section 2.1
		ownID = ownID.Next()
	}
	// Only the speaker dials: two sides that both dial may collide.
	nodeAddr, routerAddr := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	nodeAPI, err := free(netip.MustParseAddrPort(speakerAPI))
	if err != nil {
		return fmt.Errorf("%w (is a gobgpd or another demo running here?)", err)
	}
	routerAPI, apiErr := free(netip.AddrPortFrom(nodeAddr, 0))
	routerBGP, bgpErr := free(netip.AddrPortFrom(routerAddr, 0))
	if err := errors.Join(apiErr, bgpErr); err != nil {
		return err
	}
	err = startGoBGP(ctx, routerAPI,
		&apipb.Global{Asn: routerASN, RouterId: ownID.String(), ListenPort: int32(routerBGP.Port()), ListenAddresses: []string{routerAddr.String()}},
		&apipb.Peer{Conf: &apipb.PeerConf{NeighborAddress: nodeAddr.String(), PeerAsn: bgp.ASN}, Transport: &apipb.Transport{PassiveMode: true}})
	if err != nil {
		return err
	}
	err = startGoBGP(ctx, nodeAPI,
		&apipb.Global{Asn: bgp.ASN, RouterId: routerID.String(), ListenPort: -1},
		&apipb.Peer{Conf: &apipb.PeerConf{NeighborAddress: routerAddr.String(), PeerAsn: routerASN},
			Transport: &apipb.Transport{RemotePort: uint32(routerBGP.Port()), LocalAddress: nodeAddr.String()}})
	if err != nil {
		return err
	}
	if d.router, err = speaker.Dial(speaker.Config{Address: routerAPI.String(), ASN: routerASN, Timeout: 2 * time.Second}); err != nil {
		return err
	}
	d.routerAPI = routerAPI.String()
	d.say("   the speaker of %s: AS %d, GoBGP's gRPC API on %s", d.speakerID, bgp.ASN, nodeAPI)
	d.say("   the router: AS %d, BGP on %s, gRPC on %s", routerASN, routerBGP, routerAPI)
	return d.eventually(ctx, func() error {
		peers, err := d.router.Peers(ctx)
		if err == nil && (len(peers) != 1 || !peers[0].Established) {
			err = errors.New("the session is not established")
		}
		return err
	})
}

func (d *demo) startDeployer(ctx context.Context) error {
	manifest, config := filepath.Join(d.dir, "manifest.json"), filepath.Join(d.dir, "deployer.json")
	text, err := labcluster.AnyMachine(d.manifest.JSON())
	if err != nil {
		return err
	}
	if err := os.WriteFile(manifest, text, 0o600); err != nil {
		return err
	}
	err = writeJSON(config, map[string]any{
		"listen":             "127.0.0.1:0",
		"store":              map[string]any{"path": filepath.Join(d.dir, "state.db")},
		"manifest":           manifest,
		"heartbeat_interval": "1s",
	})
	if err != nil {
		return err
	}
	p, err := d.start("plasmacloud-deployer", "plasmacloud-deployer", "serve", "--config", config, "--log-format", "json")
	if err != nil {
		return err
	}
	err = d.eventually(ctx, func() error {
		addr, err := logged(p, "listening", "addr")
		if err != nil {
			return err
		}
		d.url = "http://" + addr
		if d.deployer, err = api.NewClient(d.url, time.Second, nil); err != nil {
			return err
		}
		_, err = d.deployer.Health(ctx)
		return err
	})
	if err != nil {
		return err
	}
	nodes, err := d.deployer.List(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.State != node.Pending {
			return fmt.Errorf("%s starts as %s, not %s", n.ID, n.State, node.Pending)
		}
	}
	d.say("   %s, state in bbolt, %d nodes declared by the manifest, all %s", d.url, len(nodes), node.Pending)
	return nil
}

// control is where the announcer says how its VIPs stand.
func (d *demo) control() string { return filepath.Join(d.dir, "announcer.sock") }

func (d *demo) bootNodes(ctx context.Context) error {
	for i, id := range d.manifest.NodeIDs() {
		config := filepath.Join(d.dir, id+"-cluster-config.json")
		// The exact bytes: the node's config hash is of them.
		if err := os.WriteFile(config, []byte(d.manifest.Nodes[id].ClusterConfig), 0o600); err != nil {
			return err
		}
		args := []string{"--config", config, "--deployer-url", d.url, "--machine-id", fmt.Sprintf("demo-machine-%d", i+1), "--heartbeat"}
		if id == d.speakerID {
			args = append(args, "--announcer-socket", d.control())
		}
		if _, err := d.start("phone-home-"+id, "plasmacloud-phone-home", args...); err != nil {
			return err
		}
	}
	var nodes []api.Node
	err := d.eventually(ctx, func() (err error) {
		nodes, err = d.deployer.List(ctx)
		for _, n := range nodes {
			if n.State != node.Active || n.Config != node.InSync {
				err = errors.Join(err, fmt.Errorf("%s is %s, config %s", n.ID, n.State, n.Config))
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	var rows [][]any
	for _, n := range nodes {
		rows = append(rows, []any{"   " + n.ID, n.Role, n.IP, n.State, n.Reachability, n.Config})
	}
	return d.Table(d.Out, "   NODE\tROLE\tIP\tSTATE\tREACHABILITY\tCONFIG", rows)
}

func (d *demo) announce(ctx context.Context) error {
	if d.speakerID == "" {
		d.say("   nothing to announce")
		return errSkip
	}
	var err error
	if d.vips, err = d.lab.Host("vips"); err != nil {
		return err
	}
	config, err := d.announcerConfig(ctx)
	if err != nil {
		return err
	}
	d.announcer, err = d.start("plasmacloud-announcer", "plasmacloud-announcer", "run", "--config", config,
		"--control", d.control(), "--drains", filepath.Join(d.dir, "drains.json"),
		"--last", filepath.Join(d.dir, "last.json"), "--sysctls", filepath.Join(d.dir, "sysctls.json"))
	if err != nil {
		return err
	}
	if err := d.routerHas(ctx, d.allVIPs()); err != nil {
		return err
	}
	if err := d.held(d.allVIPs(), true); err != nil {
		return err
	}
	if d.healthy, err = d.routes(ctx); err != nil {
		return err
	}
	d.say("   the announcer of %s holds %d addresses in the network namespace %s", d.speakerID, len(d.healthy), d.vips.Namespace)
	d.say("   the router's table:")
	return d.printRoutes(d.healthy)
}

func (d *demo) failCheck(ctx context.Context) error {
	if len(d.backends) == 0 {
		d.say("   no VIP of this cluster has a health check")
		return errSkip
	}
	d.failing = d.backends[0]
	rest := slices.DeleteFunc(d.allVIPs(), func(p netip.Prefix) bool { return p == d.failing.vip })
	begin := time.Now()
	d.failing.fail()
	if err := d.routerHas(ctx, rest); err != nil {
		return err
	}
	d.say("   the backend of %s refuses connections; %.2f s later the router has lost this VIP and no other:", d.failing.vip, time.Since(begin).Seconds())
	routes, err := d.routes(ctx)
	if err != nil {
		return err
	}
	for _, was := range d.healthy {
		if was.Prefix != d.failing.vip && !slices.ContainsFunc(routes, func(r speaker.Route) bool { return same(r, was) }) {
			return fmt.Errorf("the route to %s changed, which had nothing to do with it", was.Prefix)
		}
	}
	return d.printRoutes(routes)
}

func (d *demo) recoverCheck(ctx context.Context) error {
	if d.failing == nil {
		d.say("   nothing has failed")
		return errSkip
	}
	begin := time.Now()
	if err := d.failing.serve(ctx); err != nil {
		return err
	}
	if err := d.routerHas(ctx, d.allVIPs()); err != nil {
		return err
	}
	if err := d.held(d.allVIPs(), true); err != nil {
		return err
	}
	d.say("   %.2f s after the backend answers again, the router has %s back:", time.Since(begin).Seconds(), d.failing.vip)
	routes, err := d.routes(ctx)
	if err != nil {
		return err
	}
	return d.printRoutes(routes)
}

func (d *demo) serve(ctx context.Context) error {
	if d.Enter != "" {
		d.say("   from outside of its user namespace: %s", d.Enter)
	}
	d.say("   nodes:     %s node list --deployer-url %s", filepath.Join(d.Bin, "plasmactl"), d.url)
	d.say("   page:      %s/", d.url)
	if d.speakerID != "" {
		_, port, _ := strings.Cut(d.routerAPI, ":")
		d.say("   routes:    go tool gobgp -p %s global rib       the router's; without -p, the speaker's", port)
		d.say("   addresses: ip -n %s addr", d.vips.Namespace)
	}
	d.say("   logs and configurations: %s", d.dir)
	d.say("   Ctrl-C ends it.")
	<-ctx.Done()
	return nil
}

// stopAnnouncer also runs when the context has ended: the order at the end is
// part of what the demo shows.
func (d *demo) stopAnnouncer(ctx context.Context) error {
	if d.announcer == nil {
		d.say("   nothing was announced")
		return errSkip
	}
	ctx = context.WithoutCancel(ctx)
	begin := time.Now()
	if err := d.announcer.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := d.routerHas(ctx, nil); err != nil {
		return err
	}
	if err := d.held(d.allVIPs(), true); err != nil {
		return fmt.Errorf("an address was let go before its route was: %w", err)
	}
	d.say("   %.2f s after SIGTERM the router has no route left, and the host still holds every address", time.Since(begin).Seconds())
	err := d.eventually(ctx, func() error { return d.held(d.allVIPs(), false) })
	if err != nil {
		return err
	}
	d.say("   %.2f s after SIGTERM, past the drain delay of %s, the addresses are gone too", time.Since(begin).Seconds(), drainDelay)
	if err := d.announcer.Err(); err != nil {
		return fmt.Errorf("the announcer ends with %w", err)
	}
	return nil
}

func (d *demo) cleanUp() error {
	var errs []error
	for _, p := range slices.Backward(d.processes) {
		select {
		case <-p.Done():
		default:
			errs = append(errs, p.Stop(stepTimeout))
		}
	}
	for _, b := range d.backends {
		b.fail()
	}
	if d.router != nil {
		errs = append(errs, d.router.Close())
	}
	if d.lab != nil {
		errs = append(errs, d.lab.Close())
	}
	return errors.Join(errs...)
}
