package lab

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Router is a real BGP daemon that learns routes from its neighbors and
// announces none unless told to, as a data-centre router does towards the nodes.
type Router interface {
	// Routes is the router's own table of what it learned, ordered by prefix.
	Routes() ([]Route, error)
	// Count is the number of routes, cheaper than all of them.
	Count() (int, error)
	// Established tells for how many neighbors the session is up.
	Established() (int, error)
	// Updates counts what neighbors sent since the start: the routes announced and
	// withdrawn as BIRD counts them, the UPDATE messages as FRR and GoBGP do.
	Updates() (int, error)
	// Lookup tells by which next hops the router has routes for the prefix, cheaper than all of them.
	Lookup(netip.Prefix) ([]netip.Addr, error)
}

// Route is one learned path.
type Route struct {
	Prefix      netip.Prefix
	NextHop     netip.Addr
	ASPath      []uint32
	Communities []string // 65001:100
	Large       []string // communities, 65001:1:2
	MED         uint32   // 0 where there is none
	LocalPref   uint32   // as a neighbor of the same AS sent it, else 0
	Incomplete  bool     // the origin is not IGP
}

// Neighbor is a session of a router.
type Neighbor struct {
	Address     netip.Addr
	Interface   string // with a link-local address, or by FRR in place of one
	ASN         uint32
	Port        uint16 // 0: 179
	TTLSecurity bool   // it is one hop away, and both sides send with a TTL of 255 (RFC 5082)
	Password    string // TCP MD5 (RFC 2385)
	BFD         bool   // BIRD only
	Multihop    int    // how many hops away it is; 0: on the link. BIRD finds next hops by the routes of its host
	Waits       bool   // it is passive, or late, and so we connect however passive we are
}

func (n Neighbor) port() uint16 { return cmp.Or(n.Port, 179) }

// RouterConfig is the same description for each kind of router.
type RouterConfig struct {
	ASN       uint32
	RouterID  netip.Addr
	Passive   bool // wait for the neighbors to connect
	Neighbors []Neighbor
	Announces []netip.Prefix // IPv4; BIRD only
	Forwards  bool           // the host's kernel gets what is learned, all equally good ways at once; BIRD and FRR only
}

// routerStart bounds the time until a daemon answers on its control socket.
const routerStart = 10 * time.Second

// bird is BIRD 2, driven by birdc.
type bird struct {
	host     *Host
	socket   string
	internal bool // all neighbors are of its own AS
}

// StartBIRD starts BIRD 2 in the host.
func (h *Host) StartBIRD(cfg RouterConfig) (Router, error) {
	var conf strings.Builder
	fmt.Fprintf(&conf, "router id %s;\nprotocol device {}\nprotocol bfd {}\n", cfg.RouterID)
	fmt.Fprint(&conf, "protocol static own { ipv4;")
	for _, prefix := range cfg.Announces {
		fmt.Fprintf(&conf, " route %s blackhole;", prefix)
	}
	fmt.Fprint(&conf, " }\n")
	if slices.ContainsFunc(cfg.Neighbors, func(n Neighbor) bool { return n.Multihop > 0 }) {
		for _, family := range []string{"ipv4", "ipv6"} {
			fmt.Fprintf(&conf, "%[1]s table host%[1]s; protocol kernel { learn; %[1]s { table host%[1]s; import all; export none; }; }\n", family)
		}
	}
	if cfg.Forwards {
		for _, family := range []string{"ipv4", "ipv6"} {
			fmt.Fprintf(&conf, "protocol kernel { merge paths on; %s { import none; export where source = RTS_BGP; }; }\n", family)
		}
	}
	internal := true
	for i, n := range cfg.Neighbors {
		more := ""
		if cfg.Passive && !n.Waits {
			more = "passive on;"
		}
		if n.TTLSecurity {
			more += "ttl security on;"
		}
		if n.Interface != "" {
			more += fmt.Sprintf("interface %q;", n.Interface)
		}
		if n.Password != "" {
			more += fmt.Sprintf("password \"%s\";", n.Password)
		}
		if n.BFD {
			more += "bfd on;"
		}
		distance, igp := "direct", [2]string{}
		if n.Multihop > 0 {
			distance, igp = fmt.Sprintf("multihop %d", n.Multihop), [2]string{"igp table hostipv4;", "igp table hostipv6;"}
		}
		internal = internal && n.ASN == cfg.ASN
		fmt.Fprintf(&conf, `protocol bgp peer%d {
  local as %d; neighbor %s port %d as %d; %s; %s
  graceful restart on; connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { import all; export where proto = "own"; extended next hop on; %s };
  ipv6 { import all; export none; %s };
}
`, i, cfg.ASN, n.Address, n.port(), n.ASN, distance, more, igp[0], igp[1])
	}
	file := filepath.Join(h.Dir, "bird.conf")
	if err := os.WriteFile(file, []byte(conf.String()), 0o644); err != nil {
		return nil, err
	}
	_, b, err := h.startBIRD(file)
	if err == nil {
		b.internal = internal
	}
	return b, err
}

// StartBIRDFrom starts BIRD 2 with a configuration file.
func (h *Host) StartBIRDFrom(file string) (*Process, error) {
	process, _, err := h.startBIRD(file)
	return process, err
}

func (h *Host) startBIRD(file string) (*Process, *bird, error) {
	b := &bird{host: h, socket: filepath.Join(h.Dir, "bird.ctl")}
	process, err := h.Start("bird", "bird", "-f", "-c", file, "-s", b.socket)
	if err != nil {
		return nil, nil, err
	}
	return process, b, Eventually(routerStart, func() error { _, err := b.birdc("show status"); return err })
}

// birdc asks over the control socket, as the program birdc does, at a hundredth of its cost.
func (b *bird) birdc(command string) (string, error) {
	conn, err := net.DialTimeout("unix", b.socket, commandTimeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(commandTimeout)); err != nil {
		return "", err
	}
	lines := bufio.NewReader(conn)
	if _, err := lines.ReadString('\n'); err != nil { // BIRD 2.0.12 ready.
		return "", err
	}
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return "", err
	}
	// Each line begins with a code of four digits and a minus, the last one with a
	// blank in its place, or with a blank alone where the code is that of the line before.
	var out strings.Builder
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("birdc: %s: %w", command, err)
		}
		if text, again := strings.CutPrefix(line, " "); again {
			out.WriteString(text)
			continue
		}
		if len(line) < 5 || line[0] == '+' {
			continue
		}
		out.WriteString(line[5:])
		if line[4] == ' ' {
			if line[0] >= '8' {
				err = fmt.Errorf("birdc: %s: %s", command, strings.TrimSpace(line))
			}
			return out.String(), err
		}
	}
}

var birdRoute = regexp.MustCompile(`^(\S+)?\s+unicast \[`)

func (b *bird) Routes() ([]Route, error) {
	out, err := b.birdc("show route all where source = RTS_BGP")
	if err != nil {
		return nil, err
	}
	var routes []Route
	var prefix netip.Prefix
	for line := range strings.Lines(out) {
		if head := birdRoute.FindStringSubmatch(line); head != nil {
			if head[1] != "" { // a further path of the same prefix has none
				if prefix, err = netip.ParsePrefix(head[1]); err != nil {
					return nil, err
				}
			}
			routes = append(routes, Route{Prefix: prefix})
			continue
		}
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || len(routes) == 0 {
			continue
		}
		route := &routes[len(routes)-1]
		switch name {
		case "BGP.next_hop": // for IPv6 the link-local one follows
			route.NextHop, err = netip.ParseAddr(strings.Fields(value)[0])
		case "BGP.as_path":
			route.ASPath, err = asPath(value)
		case "BGP.med":
			var med uint64
			med, err = strconv.ParseUint(value, 10, 32)
			route.MED = uint32(med)
		case "BGP.origin":
			route.Incomplete = value != "IGP"
		case "BGP.local_pref": // BIRD shows its own default for external neighbors
			var pref uint64
			pref, err = strconv.ParseUint(value, 10, 32)
			if b.internal {
				route.LocalPref = uint32(pref)
			}
		case "BGP.community":
			for pair := range strings.FieldsSeq(value) {
				route.Communities = append(route.Communities, strings.ReplaceAll(strings.Trim(pair, "()"), ",", ":"))
			}
		case "BGP.large_community":
			for triple := range strings.SplitSeq(strings.Trim(value, "()"), ") (") {
				route.Large = append(route.Large, strings.ReplaceAll(triple, ", ", ":"))
			}
		}
		if err != nil {
			return nil, fmt.Errorf("birdc: %q: %w", line, err)
		}
	}
	sortRoutes(routes)
	return routes, nil
}

func (b *bird) Lookup(prefix netip.Prefix) ([]netip.Addr, error) {
	out, err := b.birdc("show route all where net = " + prefix.String() + " && source = RTS_BGP")
	if err != nil {
		return nil, err
	}
	var hops []netip.Addr
	for line := range strings.Lines(out) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "BGP.next_hop: "); ok {
			hop, err := netip.ParseAddr(strings.Fields(value)[0])
			if err != nil {
				return nil, fmt.Errorf("birdc: %q: %w", line, err)
			}
			hops = append(hops, hop)
		}
	}
	return hops, nil
}

var birdImported = regexp.MustCompile(`(\d+) imported`)

// Count adds up BIRD's own counters, which takes no time from a BIRD that is learning.
func (b *bird) Count() (int, error) {
	out, err := b.birdc(`show protocols all "peer*"`)
	count := 0
	for _, found := range birdImported.FindAllStringSubmatch(out, -1) {
		n, _ := strconv.Atoi(found[1])
		count += n
	}
	return count, err
}

func (b *bird) Established() (int, error) {
	out, err := b.birdc("show protocols")
	return strings.Count(out, "Established"), err
}

var birdReceived = regexp.MustCompile(`Import (?:updates|withdraws):\s+(\d+)`)

func (b *bird) Updates() (int, error) {
	out, err := b.birdc("show protocols all")
	count := 0
	for _, found := range birdReceived.FindAllStringSubmatch(out, -1) {
		n, _ := strconv.Atoi(found[1])
		count += n
	}
	return count, err
}

// frr is what FRR calls the neighbor.
func (n Neighbor) frr() string {
	if n.Address.IsValid() {
		return n.Address.String()
	}
	return n.Interface
}

// frr is FRR's zebra and bgpd, driven by vtysh.
type frr struct{ host *Host }

// StartFRR starts FRR's zebra and bgpd in the host.
func (h *Host) StartFRR(cfg RouterConfig) (Router, error) {
	var conf strings.Builder
	fmt.Fprintf(&conf, "router bgp %d\n bgp router-id %s\n no bgp default ipv4-unicast\n no bgp ebgp-requires-policy\n bgp graceful-restart\n", cfg.ASN, cfg.RouterID)
	if cfg.Forwards {
		fmt.Fprint(&conf, " bgp bestpath as-path multipath-relax\n")
	}
	for _, n := range cfg.Neighbors {
		say := func(format string, args ...any) {
			fmt.Fprintf(&conf, " neighbor %s "+format+"\n", append([]any{n.frr()}, args...)...)
		}
		if n.Address.IsValid() {
			say("remote-as %d", n.ASN)
			say("port %d", n.port())
		} else {
			say("interface remote-as %d", n.ASN)
		}
		say("timers connect 1")
		if n.Address.IsValid() && n.Interface != "" {
			say("interface %s", n.Interface)
		}
		if cfg.Passive && !n.Waits {
			say("passive")
		}
		if n.TTLSecurity {
			say("ttl-security hops 1")
		}
		if n.Multihop > 0 {
			say("ebgp-multihop %d", n.Multihop)
		}
		if n.Password != "" {
			say("password %s", n.Password)
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&conf, " address-family %s unicast\n", family)
		for _, n := range cfg.Neighbors {
			fmt.Fprintf(&conf, "  neighbor %s activate\n", n.frr())
		}
		if cfg.Forwards {
			fmt.Fprint(&conf, "  maximum-paths 64\n  maximum-paths ibgp 64\n")
		}
		fmt.Fprint(&conf, " exit-address-family\n")
	}
	file := filepath.Join(h.Dir, "bgpd.conf")
	if err := os.WriteFile(file, []byte(conf.String()), 0o644); err != nil {
		return nil, err
	}
	_, f, err := h.startFRR(file, false)
	return f, err
}

// StartFRRFrom starts FRR as its own start script does: the daemons, and then
// vtysh, which reads them dir/frr.conf. The process is that of bgpd; once it has
// ended it may be started again, beside the zebra that runs on.
//
// bfdd runs beside them where the configuration has BFD, and more are further
// arguments of bgpd.
func (h *Host) StartFRRFrom(dir string, more ...string) (*Process, error) {
	empty := filepath.Join(h.Dir, "empty.conf")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "frr.conf"))
	if err != nil {
		return nil, err
	}
	process, f, err := h.startFRR(empty, bytes.Contains(text, []byte("\nbfd\n")), more...)
	if err != nil {
		return nil, err
	}
	// Until then bgpd refuses what it says of graceful restart.
	if err := Eventually(routerStart, func() error {
		out, err := h.Run("vtysh", "--vty_socket", f.host.Dir, "-d", "zebra", "-c", "show zebra client summary")
		if err == nil && !strings.Contains(out, "bgp") {
			err = errors.New("bgpd has not found zebra yet")
		}
		return err
	}); err != nil {
		return nil, err
	}
	_, err = h.Run("vtysh", "--config_dir", dir, "--vty_socket", h.Dir, "-b")
	return process, err
}

func (h *Host) startFRR(bgpdConf string, bfd bool, more ...string) (bgpd *Process, f *frr, err error) {
	empty := filepath.Join(h.Dir, "zebra.conf")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		return nil, nil, err
	}
	// Debian's FRR insists on a user that is in its group frrvty.
	owner, err := user.Lookup("frr")
	if err != nil {
		return nil, nil, fmt.Errorf("FRR is not installed: %w", err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	if err := os.Chown(h.Dir, uid, -1); err != nil {
		return nil, nil, fmt.Errorf("give %s to user frr: %w (as another user than root, FRR needs the package uidmap)", h.Dir, err)
	}
	common := []string{"-u", "frr", "-g", "frr", "--vty_socket", h.Dir, "-z", filepath.Join(h.Dir, "zserv.api"), "-P", "0"}
	daemons := map[string][]string{
		"zebra": {"-f", empty, "-i", filepath.Join(h.Dir, "zebra.pid")},
		"bgpd":  append([]string{"-f", bgpdConf, "-i", filepath.Join(h.Dir, "bgpd.pid"), "-p", "179"}, more...),
	}
	if bfd {
		daemons["bfdd"] = []string{"-f", empty, "-i", filepath.Join(h.Dir, "bfdd.pid"), "--bfdctl", filepath.Join(h.Dir, "bfdd.sock")}
	}
	folder, err := FRRDaemons()
	if err != nil {
		return nil, nil, err
	}
	// zebra first: a daemon that does not find it waits ten seconds before it looks again.
	for _, daemon := range []string{"zebra", "bfdd", "bgpd"} {
		own, wanted := daemons[daemon]
		if !wanted {
			continue
		}
		process, err := h.Start(daemon, slices.Concat([]string{filepath.Join(folder, daemon)}, common, own)...)
		if err != nil {
			return nil, nil, err
		}
		switch daemon {
		case "zebra":
			if err := Eventually(routerStart, func() error { _, err := os.Stat(filepath.Join(h.Dir, "zserv.api")); return err }); err != nil {
				return nil, nil, err
			}
		case "bgpd":
			bgpd = process
		}
	}
	f = &frr{h}
	return bgpd, f, Eventually(routerStart, func() error { _, err := f.vtysh("show bgp summary json"); return err })
}

func (f *frr) vtysh(command string) (string, error) {
	return f.host.Run("vtysh", "--vty_socket", f.host.Dir, "-d", "bgpd", "-c", command)
}

func (f *frr) Routes() ([]Route, error) {
	var routes []Route
	for _, family := range []string{"ipv4", "ipv6"} {
		out, err := f.vtysh("show bgp " + family + " unicast json detail")
		if err != nil {
			return nil, err
		}
		// FRR 8: of each prefix an array, first a header and then the paths.
		var table struct {
			Routes map[string][]frrPath `json:"routes"`
		}
		if err := json.Unmarshal([]byte(out), &table); err != nil {
			return nil, fmt.Errorf("vtysh: %w in %.200q", err, out)
		}
		for text, paths := range table.Routes {
			for _, path := range paths {
				if path.ASPath == nil {
					continue
				}
				route, err := path.route(text)
				if err != nil {
					return nil, fmt.Errorf("vtysh: %s: %w", text, err)
				}
				routes = append(routes, route)
			}
		}
	}
	sortRoutes(routes)
	return routes, nil
}

type frrPath struct {
	ASPath    *struct{ String string } `json:"aspath"`
	Community struct{ String string }  `json:"community"`
	Large     struct{ String string }  `json:"largeCommunity"`
	Metric    uint32                   `json:"metric"`
	LocPrf    uint32                   `json:"locPrf"`
	Origin    string                   `json:"origin"`
	Nexthops  []struct {
		IP    string `json:"ip"`
		Scope string `json:"scope"`
	} `json:"nexthops"`
}

// frrCommunities are those that FRR writes by name: of RFC 1997, 3765, 7611, 7999, 8326 and
// 9494, and IANA's registry of well-known communities.
var frrCommunities = map[string]string{
	"internet": "0:0", "graceful-shutdown": "65535:0", "accept-own": "65535:1",
	"route-filter-translated-v4": "65535:2", "route-filter-v4": "65535:3", "route-filter-translated-v6": "65535:4", "route-filter-v6": "65535:5",
	"llgr-stale": "65535:6", "no-llgr": "65535:7", "accept-own-nexthop": "65535:8", "blackhole": "65535:666",
	"no-export": "65535:65281", "no-advertise": "65535:65282", "local-AS": "65535:65283", "no-peer": "65535:65284",
}

func (p frrPath) route(prefix string) (Route, error) {
	route := Route{MED: p.Metric, LocalPref: p.LocPrf, Incomplete: p.Origin != "IGP"}
	for field := range strings.FieldsSeq(p.Community.String) {
		route.Communities = append(route.Communities, cmp.Or(frrCommunities[field], field))
	}
	if fields := strings.Fields(p.Large.String); len(fields) > 0 {
		route.Large = fields
	}
	var err error
	if route.Prefix, err = netip.ParsePrefix(prefix); err != nil {
		return route, err
	}
	for _, hop := range p.Nexthops {
		if hop.Scope == "link-local" {
			continue
		}
		if route.NextHop, err = netip.ParseAddr(hop.IP); err != nil {
			return route, err
		}
	}
	route.ASPath, err = asPath(p.ASPath.String)
	return route, err
}

func (f *frr) Lookup(prefix netip.Prefix) ([]netip.Addr, error) {
	routes, err := f.Routes()
	return nextHops(routes, prefix), err
}

func nextHops(routes []Route, prefix netip.Prefix) (hops []netip.Addr) {
	for _, r := range routes {
		if r.Prefix == prefix {
			hops = append(hops, r.NextHop)
		}
	}
	return hops
}

func (f *frr) Count() (int, error) {
	routes, err := f.Routes()
	return len(routes), err
}

func (f *frr) Established() (int, error) {
	out, err := f.vtysh("show bgp neighbors json")
	return strings.Count(out, `"bgpState":"Established"`), err
}

func (f *frr) Updates() (int, error) {
	out, err := f.vtysh("show bgp neighbors json")
	if err != nil {
		return 0, err
	}
	var neighbors map[string]struct {
		MessageStats struct {
			UpdatesRecv int `json:"updatesRecv"`
		} `json:"messageStats"`
	}
	err = json.Unmarshal([]byte(out), &neighbors)
	count := 0
	for _, n := range neighbors {
		count += n.MessageStats.UpdatesRecv
	}
	return count, err
}

func asPath(text string) ([]uint32, error) {
	var path []uint32
	if text == "Local" { // FRR, for an empty one
		return nil, nil
	}
	for field := range strings.FieldsSeq(text) {
		asn, err := strconv.ParseUint(field, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("AS path %q: %w", text, err)
		}
		path = append(path, uint32(asn))
	}
	return path, nil
}

func sortRoutes(routes []Route) {
	slices.SortFunc(routes, func(a, b Route) int {
		return strings.Compare(a.Prefix.String()+a.NextHop.String(), b.Prefix.String()+b.NextHop.String())
	})
}
