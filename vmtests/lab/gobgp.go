package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// GoBGP are the programs of one version of it.
type GoBGP struct {
	Daemon  string // gobgpd
	Command string // gobgp
}

// GoBGPIn are the programs in a folder.
func GoBGPIn(folder string) GoBGP {
	return GoBGP{filepath.Join(folder, "gobgpd"), filepath.Join(folder, "gobgp")}
}

// gobgp is a gobgpd that learns, driven by the gobgp of its version.
type gobgp struct {
	host    *Host
	program string // gobgp
}

// StartGoBGP starts a gobgpd in the host.
func (h *Host) StartGoBGP(programs GoBGP, cfg RouterConfig) (Router, error) {
	var conf strings.Builder
	fmt.Fprintf(&conf, "[global.config]\nas = %d\nrouter-id = %q\n", cfg.ASN, cfg.RouterID)
	for _, n := range cfg.Neighbors {
		fmt.Fprintf(&conf, "[[neighbors]]\n[neighbors.config]\nneighbor-address = %q\npeer-as = %d\nauth-password = %q\n", n.Address, n.ASN, n.Password)
		fmt.Fprintf(&conf, "[neighbors.transport.config]\npassive-mode = %t\nremote-port = %d\n", cfg.Passive && !n.Waits, n.port())
		fmt.Fprint(&conf, "[neighbors.timers.config]\nconnect-retry = 1\n[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 120\n")
		if n.Multihop > 0 {
			fmt.Fprintf(&conf, "[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = %d\n", n.Multihop)
		}
		if n.TTLSecurity {
			fmt.Fprint(&conf, "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n")
		}
		for _, family := range []string{"ipv4", "ipv6"} {
			fmt.Fprintf(&conf, "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"%s-unicast\"\n", family)
			fmt.Fprint(&conf, "[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n")
		}
	}
	file := filepath.Join(h.Dir, "router.toml")
	if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
		return nil, err
	}
	// Go's listeners speak multipath TCP, which knows no passwords.
	if _, err := h.Start("router", "env", "GODEBUG=multipathtcp=0", programs.Daemon, "-f", file, "--api-hosts", "127.0.0.1:50051"); err != nil {
		return nil, err
	}
	g := &gobgp{h, programs.Command}
	return g, Eventually(routerStart, func() error {
		neighbors, err := g.neighbors()
		if err == nil && len(neighbors) < len(cfg.Neighbors) {
			err = fmt.Errorf("%d neighbors of %d", len(neighbors), len(cfg.Neighbors))
		}
		return err
	})
}

func (g *gobgp) json(into any, args ...string) error {
	out, err := g.host.Run(append([]string{g.program, "-j"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("gobgp %s: %w in %.200q", strings.Join(args, " "), err, out)
	}
	return nil
}

type gobgpPath struct {
	Peer  string `json:"peer-address"`
	Older string `json:"neighbor-ip"` // the same, from gobgp 3.10
	Attrs []struct {
		Type    int             `json:"type"`
		Value   json.RawMessage `json:"value"`
		NextHop string          `json:"nexthop"`
		Metric  uint32          `json:"metric"`
		ASPaths []struct {
			ASNs []uint32 `json:"asns"`
		} `json:"as_paths"`
		Communities []uint32 `json:"communities"`
	} `json:"attrs"`
}

// Of RFC 4271, RFC 1997, RFC 4760 and RFC 8092.
const (
	attrOrigin = 1 + iota
	attrASPath
	attrNextHop
	attrMED
	attrLocalPref
	attrCommunities = 8
	attrMPReach     = 14
	attrLarge       = 32
)

func (p gobgpPath) route(prefix string) (r Route, err error) {
	if r.Prefix, err = netip.ParsePrefix(prefix); err != nil {
		return r, err
	}
	for _, a := range p.Attrs {
		switch a.Type {
		case attrOrigin:
			r.Incomplete = string(a.Value) != "0"
		case attrASPath:
			for _, segment := range a.ASPaths {
				r.ASPath = append(r.ASPath, segment.ASNs...)
			}
		case attrNextHop, attrMPReach:
			r.NextHop, err = netip.ParseAddr(a.NextHop)
		case attrMED:
			r.MED = a.Metric
		case attrLocalPref:
			err = json.Unmarshal(a.Value, &r.LocalPref)
		case attrCommunities:
			for _, c := range a.Communities {
				r.Communities = append(r.Communities, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
			}
		case attrLarge:
			var list []struct{ ASN, LocalData1, LocalData2 uint32 }
			err = json.Unmarshal(a.Value, &list)
			for _, l := range list {
				r.Large = append(r.Large, fmt.Sprintf("%d:%d:%d", l.ASN, l.LocalData1, l.LocalData2))
			}
		}
		if err != nil {
			return r, fmt.Errorf("attribute %d of %s: %w", a.Type, prefix, err)
		}
	}
	return r, nil
}

func (g *gobgp) Routes() ([]Route, error) { return g.routes("ipv4", "ipv6") }

func (g *gobgp) routes(families ...string) ([]Route, error) {
	var routes []Route
	for _, family := range families {
		table := map[string][]gobgpPath{}
		if err := g.json(&table, "global", "rib", "-a", family); err != nil {
			return nil, err
		}
		for prefix, paths := range table {
			for _, path := range paths {
				if path.Peer == "" && (path.Older == "" || path.Older == "<nil>") { // its own
					continue
				}
				route, err := path.route(prefix)
				if err != nil {
					return nil, err
				}
				routes = append(routes, route)
			}
		}
	}
	sortRoutes(routes)
	return routes, nil
}

func (g *gobgp) Lookup(prefix netip.Prefix) ([]netip.Addr, error) {
	family := "ipv4"
	if prefix.Addr().Is6() {
		family = "ipv6"
	}
	routes, err := g.routes(family)
	return nextHops(routes, prefix), err
}

func (g *gobgp) Count() (int, error) {
	routes, err := g.Routes()
	return len(routes), err
}

type gobgpNeighbor struct {
	State struct {
		Session  int `json:"session_state"`
		Messages struct {
			Received struct {
				Update int `json:"update"`
			} `json:"received"`
		} `json:"messages"`
	} `json:"state"`
}

func (g *gobgp) neighbors() (list []gobgpNeighbor, err error) {
	return list, g.json(&list, "neighbor")
}

func (g *gobgp) Established() (int, error) {
	neighbors, err := g.neighbors()
	up := 0
	for _, n := range neighbors {
		if n.State.Session == 6 {
			up++
		}
	}
	return up, err
}

func (g *gobgp) Updates() (int, error) {
	neighbors, err := g.neighbors()
	count := 0
	for _, n := range neighbors {
		count += n.State.Messages.Received.Update
	}
	return count, err
}
