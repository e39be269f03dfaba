package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

const flappingCluster = `{
	plasmacloud.cluster = {
		name = "flapping";
		nodes.node01 = { role = "control-plane"; ip = "10.0.0.11"; services = [ "fiberlb" ]; };
		bootstrap.initialPeers = [ "node01" ];
		bgp.asn = 65001;
		bgp.peers.bird1 = { address = "10.0.0.1"; asn = 65000; };
	};
	plasmacloud.network.fiberlbBgp = {
		enable = true;
		drainDelay = "500ms";
		metrics = { enable = true; address = "127.0.0.1"; };
		vips = [ "203.0.113.1" ];
	};
}`

// usage is what the announcer takes at a moment.
type usage struct{ memory, goroutines, files float64 }

// flapping lets one VIP in a hundred come and go, for as long as told, and fails
// where the announcer takes more at the end than it did soon after the start.
func (s soak) flapping(ctx context.Context, vips int, long time.Duration) (err error) {
	s.say("flapping: seed %d, %d VIPs", s.seed, vips)
	c, err := s.start(ctx, "flap", flappingCluster)
	defer finish(c, s, &err)
	if err != nil {
		return err
	}
	node := c.Nodes["node01"]
	flaps := max(1, vips/100)
	if err := manyVIPs(node, vips, flaps); err != nil {
		return err
	}
	if err := hasRoutes(c, vips); err != nil {
		return err
	}

	random := rand.New(rand.NewPCG(s.seed, 0))
	failed := map[string]bool{}
	var used []usage
	for end := time.Now().Add(long); time.Now().Before(end) && ctx.Err() == nil; {
		for range 1 + flaps/10 {
			path := fmt.Sprintf("/%d", random.IntN(flaps))
			failed[path] = !failed[path]
			if err := node.Fail(path, failed[path]); err != nil {
				return err
			}
		}
		time.Sleep(min(250*time.Millisecond, long/50))
		now, err := measure(ctx, node)
		if err != nil {
			return err
		}
		used = append(used, now)
	}
	for path := range failed {
		if err := node.Fail(path, false); err != nil {
			return err
		}
	}
	if err := hasRoutes(c, vips); err != nil {
		return err
	}
	begin, end := quarter(used, 1), quarter(used, 3)
	s.say("soon after the start: %.0f MiB, %.0f goroutines, %.0f files; at the end: %.0f MiB, %.0f goroutines, %.0f files",
		begin.memory/(1<<20), begin.goroutines, begin.files, end.memory/(1<<20), end.goroutines, end.files)
	return end.grown(begin)
}

// grown is an error where u is a tenth more than before, and a little beside it: of memory
// 4 MiB. Runs of 3 s and of a minute took 1 MiB more at most, and no goroutine.
func (u usage) grown(before usage) error {
	return errors.Join(
		grown("memory", before.memory, u.memory, 4<<20),
		grown("goroutines", before.goroutines, u.goroutines, 20),
		grown("files", before.files, u.files, 5))
}

func grown(what string, before, after, more float64) error {
	if after > 1.1*before+more {
		return fmt.Errorf("%s grew from %.0f to %.0f", what, before, after)
	}
	return nil
}

// quarter is the medians of one quarter of all samples.
func quarter(all []usage, which int) usage {
	part := all[len(all)*which/4 : max(len(all)*(which+1)/4, len(all)*which/4+1)]
	median := func(of func(usage) float64) float64 {
		var values []float64
		for _, u := range part {
			values = append(values, of(u))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return usage{
		median(func(u usage) float64 { return u.memory }),
		median(func(u usage) float64 { return u.goroutines }),
		median(func(u usage) float64 { return u.files })}
}

// manyVIPs gives the announcer so many VIPs, of which the first ones have a check each.
func manyVIPs(node *labcluster.Node, vips, flaps int) error {
	text, err := node.Evaluated.AnnouncerJSON()
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	list := make([]map[string]any, vips)
	for i := range list {
		list[i] = map[string]any{"address": netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}).String(), "hold": "route"}
		if i < flaps {
			list[i]["checks"] = []any{map[string]any{"type": "http", "url": fmt.Sprintf("http://127.0.0.1:80/%d", i), "interval": "200ms", "timeout": "200ms", "rise": 2, "fall": 2}}
		}
	}
	config["vips"] = list
	if text, err = json.Marshal(config); err != nil {
		return err
	}
	if err := node.WriteConfig(text); err != nil {
		return err
	}
	// Once it answers, it has read its first configuration, and listens for the signal.
	if err := lab.Eventually(patience, func() error { _, err := measure(context.Background(), node); return err }); err != nil {
		return err
	}
	return node.Announcer.Signal(syscall.SIGHUP)
}

func hasRoutes(c *labcluster.Cluster, want int) error {
	return lab.Eventually(patience, func() error {
		got, err := c.Routers["bird1"].Count()
		if err == nil && got != want {
			err = fmt.Errorf("the router has %d of %d routes", got, want)
		}
		return err
	})
}

// measure reads the announcer's metrics.
func measure(ctx context.Context, node *labcluster.Node) (u usage, err error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return node.Dial(ctx, network, address)
		}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9479/metrics", nil)
	if err != nil {
		return u, err
	}
	response, err := client.Do(request)
	if err != nil {
		return u, err
	}
	defer response.Body.Close()
	fields := map[string]*float64{"process_resident_memory_bytes": &u.memory, "go_goroutines": &u.goroutines, "process_open_fds": &u.files}
	found := 0
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if field := fields[name]; field != nil {
			if *field, err = strconv.ParseFloat(value, 64); err != nil {
				return u, err
			}
			found++
		}
	}
	if err := lines.Err(); err != nil {
		return u, err
	}
	if found != len(fields) {
		return u, fmt.Errorf("%d of %d metrics", found, len(fields))
	}
	return u, nil
}
