package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// start starts one of our programs; name is that of its log.
func (d *demo) start(name, program string, args ...string) (*lab.Process, error) {
	p, err := lab.Start(d.dir, name, append([]string{filepath.Join(d.Bin, program)}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	d.processes = append(d.processes, p)
	return p, nil
}

// eventually waits for check, and no longer than one of the programs that it
// depends on lives.
func (d *demo) eventually(ctx context.Context, check func() error) error {
	died := errors.New("")
	err := lab.Eventually(stepTimeout, func() error {
		if err := ctx.Err(); err != nil {
			died = err
			return nil
		}
		for _, p := range d.processes {
			select {
			case <-p.Done():
				if err := p.Err(); err != nil {
					died = fmt.Errorf("%s ended: %w", p.Name, err)
					return nil
				}
			default:
			}
		}
		return check()
	})
	if died.Error() != "" {
		return died
	}
	return err
}

// lastWords is the end of the logs of the programs, for an error's reader.
func (d *demo) lastWords() string {
	var words strings.Builder
	for _, p := range d.processes {
		lines := strings.Split(strings.TrimSpace(p.Output()), "\n")
		fmt.Fprintf(&words, "\n%s last said:\n  %s", p.Name, strings.Join(lines[max(0, len(lines)-5):], "\n  "))
	}
	return words.String()
}

// logged finds a field of the JSON log record with this message.
func logged(p *lab.Process, msg, field string) (string, error) {
	lines := bufio.NewScanner(strings.NewReader(p.Output()))
	for lines.Scan() {
		var record map[string]any
		if json.Unmarshal(lines.Bytes(), &record) == nil && record["msg"] == msg {
			return fmt.Sprint(record[field]), nil
		}
	}
	return "", fmt.Errorf("%s has not logged %q", p.Name, msg)
}

// announcerConfig writes the node's announcer.json with what has to differ on
// this machine: where the addresses are held, how long they drain, and where the
// backends are. The node's own address, which metrics may be served on, is not here.
func (d *demo) announcerConfig(ctx context.Context) (string, error) {
	config := maps.Clone(d.manifest.Nodes[d.speakerID].Announcer)
	set := func(object, key string, value any) error {
		inner, ok := config[object].(map[string]any)
		if !ok {
			return fmt.Errorf("announcer.json of %s: no object %q", d.speakerID, object)
		}
		inner = maps.Clone(inner)
		inner[key] = value
		config[object] = inner
		return nil
	}
	config["drain_delay"] = drainDelay.String()
	delete(config, "metrics")
	err := errors.Join(
		set("speaker", "address", speakerAPI),
		set("hold", "netns", d.vips.Path()),
		set("hold", "interface", "lo"),
	)
	vips, ok := config["vips"].([]any)
	if !ok || err != nil {
		return "", errors.Join(err, fmt.Errorf("announcer.json of %s: vips is no list of objects", d.speakerID))
	}
	var rewritten []any
	for _, entry := range vips {
		vip, _ := entry.(map[string]any)
		vip = maps.Clone(vip)
		delete(vip, "drain_delay")
		delete(vip, "hold")
		if checks, _ := vip["checks"].([]any); len(checks) > 0 {
			b := &backend{}
			if b.vip, err = hostPrefix(fmt.Sprint(vip["address"])); err != nil {
				return "", err
			}
			if err := b.serve(ctx); err != nil {
				return "", err
			}
			d.backends = append(d.backends, b)
			vip["checks"] = b.checks(checks)
			delete(vip, "start_delay")
			delete(vip, "damping")
		}
		rewritten = append(rewritten, vip)
	}
	config["vips"] = rewritten
	if len(d.backends) > 0 {
		d.say("   health checks ask the demo's own backends, every %s; drain delay %s", probeEvery, drainDelay)
	}
	file := filepath.Join(d.dir, d.speakerID+"-announcer.json")
	return file, writeJSON(file, config)
}

// backend is what stands in for the service behind one VIP.
type backend struct {
	vip      netip.Prefix
	address  string // stays the same while it fails
	listener net.Listener
}

func (b *backend) serve(ctx context.Context) error {
	if b.address == "" {
		b.address = "127.0.0.1:0"
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", b.address)
	if err != nil {
		return fmt.Errorf("backend of %s: %w", b.vip, err)
	}
	b.listener, b.address = listener, listener.Addr().String()
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }),
		ReadHeaderTimeout: time.Second,
	}
	server.SetKeepAlivesEnabled(false) // or a check would go on over its old connection
	go func() { _ = server.Serve(listener) }()
	return nil
}

func (b *backend) fail() { b.listener.Close() }

// checks are a VIP's, by http or else by tcp, pointed at the backend; they rise and
// fall within the patience of who watches.
func (b *backend) checks(declared []any) []any {
	var out []any
	for _, entry := range declared {
		declared, _ := entry.(map[string]any)
		// What else a check asks for, the backend does not have.
		check := map[string]any{"type": "tcp", "address": b.address, "rise": declared["rise"], "fall": declared["fall"],
			"interval": probeEvery, "timeout": probeEvery}
		if declared["type"] == "http" {
			delete(check, "address")
			check["type"], check["url"] = "http", "http://"+b.address+"/"
		}
		for _, key := range []string{"rise", "fall"} {
			var count int
			if _, err := fmt.Sscan(fmt.Sprint(check[key]), &count); err == nil && count > mostProbes {
				check[key] = mostProbes
			}
		}
		out = append(out, check)
	}
	return out
}

func hostPrefix(address string) (netip.Prefix, error) {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("VIP: %w", err)
	}
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

// allVIPs are those that the demo's announcer should announce, in order.
func (d *demo) allVIPs() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range slices.Sorted(maps.Keys(d.manifest.VIPs)) {
		if slices.Contains(d.manifest.VIPs[text].Nodes, d.speakerID) {
			if prefix, err := netip.ParsePrefix(text); err == nil {
				all = append(all, prefix)
			}
		}
	}
	slices.SortFunc(all, comparePrefix)
	return all
}

func comparePrefix(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }

// routes is the router's own table, asked from the router.
func (d *demo) routes(ctx context.Context) ([]speaker.Route, error) {
	routes, err := d.router.Routes(ctx)
	slices.SortFunc(routes, func(a, b speaker.Route) int { return comparePrefix(a.Prefix, b.Prefix) })
	return routes, err
}

// routerHas waits until the router has routes to exactly these prefixes.
func (d *demo) routerHas(ctx context.Context, want []netip.Prefix) error {
	return d.eventually(ctx, func() error {
		routes, err := d.routes(ctx)
		if err != nil {
			return fmt.Errorf("ask the router: %w", err)
		}
		var got []netip.Prefix
		for _, r := range routes {
			got = append(got, r.Prefix)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("the router has routes to %v, it should have %v", got, want)
		}
		return nil
	})
}

// held tells whether the namespace holds all (or none) of the addresses.
func (d *demo) held(prefixes []netip.Prefix, want bool) error {
	held, err := d.vips.Held()
	for _, p := range prefixes {
		if held[p.Addr()] != want {
			err = errors.Join(err, fmt.Errorf("address %s on the host: %t, it should be %t", p.Addr(), !want, want))
		}
	}
	return err
}

func same(a, b speaker.Route) bool {
	return a.Prefix == b.Prefix && a.NextHop == b.NextHop && slices.Equal(a.ASPath, b.ASPath)
}

func (d *demo) printRoutes(routes []speaker.Route) error {
	var rows [][]any
	for _, r := range routes {
		rows = append(rows, []any{"   " + r.Prefix.String(), r.NextHop, join(r.ASPath), r.Peer, join(r.Communities)})
	}
	return d.Table(d.Out, "   PREFIX\tNEXT HOP\tAS PATH\tFROM PEER\tCOMMUNITIES", rows)
}

func join[T any](list []T) string { return strings.Trim(fmt.Sprint(list), "[]") }

func writeJSON(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o600)
}
