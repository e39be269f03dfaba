// Package bgp keeps a host's VIPs announced: it decides from configuration and
// health what should be announced, and makes it so, in the order that loses no packet.
//
// The Announcer is level-triggered. Each pass reads what the BGP daemon announces
// and what the host holds, compares both with what is wanted, and acts on the
// difference. Of its own past it needs only since when a VIP drains.
package bgp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// SchemaVersion is the version of announcer.json that this package reads.
const SchemaVersion = 1

// Limits on announcer.json; beyond them it is refused.
const (
	MaxConfigBytes = 32 << 20
	MaxVIPs        = 100_000
	MaxChecks      = 16 // of one VIP
)

// Config is announcer.json, validated: whoever has one need not check it again.
type Config struct {
	NodeID            string
	Speaker           SpeakerConfig
	ASN               uint32 // what the speaker must say of itself before it counts as ready
	NextHop           NextHop
	Hold              Hold
	DrainDelay        time.Duration // from the path being out of the speaker's table to letting go of the address; of VIPs that are not configured any more
	GracefulShutdown  GracefulShutdown
	ReconcileInterval time.Duration // of the periodic pass; events start one at once
	Metrics           Metrics
	VIPs              []VIP // in the file's order, each address once
}

// SpeakerConfig is how to reach the BGP daemon.
type SpeakerConfig struct {
	Address string        // host:port, or unix:///path
	Timeout time.Duration // of one request
	TLS     speaker.TLS
}

// Metrics is where metrics and status are served.
type Metrics struct{ Listen string } // HOST:PORT; "" is nowhere

// NextHop is the next hop of our paths by family; the zero Addr is the speaker's own address.
type NextHop struct{ IPv4, IPv6 netip.Addr }

// Hold is where VIPs are bound.
type Hold struct {
	Interface string
	NetNS     string // path of a network namespace; "" is our own
	// Lifetime is after how long an address ends that nobody renews any more; 0: never.
	Lifetime time.Duration
	// Sysctls is whether the announcer sets the kernel's settings of ARP that VIPs of a
	// network of the host itself need.
	Sysctls bool
}

// MinLifetime is the least Lifetime. A third of it is left whenever the announcer dies:
// time for the next one to start, and for a release that waits a minute for that.
const MinLifetime = 5 * time.Minute

// VIP is one address to announce.
type VIP struct {
	Address          netip.Addr // never IPv4-mapped, never with a zone
	Communities      []speaker.Community
	LargeCommunities []speaker.LargeCommunity
	MED, LocalPref   *uint32 // nil: not set
	Prepend          int     // times that our own ASN is put before the path once more, towards eBGP peers
	DrainDelay       time.Duration
	Hold             vip.How // Address, Route or None
	Checks           []health.Check
	Require          int           // how many of Checks must be up; 0: all
	StartDelay       time.Duration // see vips[].start_delay; 0: none
	Damping          Damping
}

// Path is what is announced for v.
func (c *Config) Path(v *VIP) speaker.Path {
	nextHop := c.NextHop.IPv6
	if v.Address.Is4() {
		nextHop = c.NextHop.IPv4
	}
	return speaker.Path{Prefix: speaker.HostPrefix(v.Address), NextHop: nextHop, ASPath: slices.Repeat([]uint32{c.ASN}, v.Prepend),
		Communities: v.Communities, LargeCommunities: v.LargeCommunities, MED: v.MED, LocalPref: v.LocalPref}
}

var errTooLarge = fmt.Errorf("is larger than %d MiB", MaxConfigBytes>>20)

// LoadConfig reads and validates the file. Its error is one line that names the
// file, the place in it, and the mend.
func LoadConfig(file string) (*Config, error) {
	data, err := ReadConfig(file)
	if err != nil {
		return nil, err
	}
	cfg, err := ParseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return cfg, nil
}

// ReadConfig reads the bytes of the file, for ParseConfig.
func ReadConfig(file string) ([]byte, error) {
	f, err := os.Open(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w; write it first, or name another file", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w; let the user of this program read it", err)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	var data bytes.Buffer
	if info, err := f.Stat(); err == nil {
		data.Grow(int(min(info.Size(), MaxConfigBytes)) + bytes.MinRead)
	}
	if _, err := data.ReadFrom(io.LimitReader(f, MaxConfigBytes+1)); err != nil {
		return nil, err
	}
	if data.Len() > MaxConfigBytes {
		return nil, fmt.Errorf("%s: %w", file, errTooLarge)
	}
	return data.Bytes(), nil
}

// ParseConfig is LoadConfig for bytes; its error names no file.
func ParseConfig(data []byte) (*Config, error) {
	if len(data) > MaxConfigBytes {
		return nil, errTooLarge
	}
	tree, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	r := &reader{}
	cfg := r.config(tree)
	if err := r.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

func (r *reader) config(tree any) *Config {
	o := r.object("", tree)
	cfg := &Config{}
	if v := o.number("schema_version", 1<<16); o.has("schema_version") && len(r.problems) == 0 && v != SchemaVersion {
		r.add("schema_version", "is %d, and this program reads %d; use an announcer and a configuration of the same release", v, SchemaVersion)
	}
	cfg.NodeID = o.text("node_id")
	before := len(r.problems)
	cfg.ASN = uint32(o.number("asn", 1<<32-1))
	if o.has("asn") && cfg.ASN == 0 && len(r.problems) == before {
		r.add("asn", "is 0, which is no ASN")
	}
	cfg.DrainDelay = o.duration("drain_delay", 5*time.Second)
	cfg.ReconcileInterval = o.duration("reconcile_interval", 10*time.Second)

	if value, ok := o.optional("graceful_shutdown"); ok {
		g := r.object("graceful_shutdown", value)
		cfg.GracefulShutdown = GracefulShutdown{Delay: g.duration("delay", 10*time.Second), OnHealth: g.flag("on_health")}
		switch by := g.textOr("by", "community"); by {
		case "community":
		case "med":
			cfg.GracefulShutdown.ByMED = true
		default:
			r.add(g.at("by"), "%s is not known; want \"community\" or \"med\"", quote(by))
		}
		g.end()
	}

	sp := o.optionalObject("speaker")
	cfg.Speaker.Address = sp.textOr("address", "127.0.0.1:50051")
	if err := checkDialAddress(cfg.Speaker.Address, true); err != nil {
		r.add("speaker.address", "%v", err)
	}
	cfg.Speaker.Timeout = sp.duration("timeout", 2*time.Second)
	if value, ok := sp.optional("tls"); ok {
		cfg.Speaker.TLS = r.tls(value, strings.HasPrefix(cfg.Speaker.Address, "unix://"))
	}
	sp.end()

	nh := o.optionalObject("next_hop")
	cfg.NextHop.IPv4 = nh.optionalAddr("ipv4", netip.Addr.Is4, "an IPv4 address, such as \"10.0.0.11\"")
	cfg.NextHop.IPv6 = nh.optionalAddr("ipv6", netip.Addr.Is6, "an IPv6 address, such as \"2001:db8::11\"")
	nh.end()

	hold := o.optionalObject("hold")
	cfg.Hold.Interface = hold.textOr("interface", "lo")
	if n := len(cfg.Hold.Interface); n == 0 || n > 15 || strings.ContainsAny(cfg.Hold.Interface, "/: \t\n") {
		r.add("hold.interface", "%s is no interface name: want 1 to 15 characters, none of them a slash, a colon or a space", quote(cfg.Hold.Interface))
	}
	if cfg.Hold.NetNS = hold.textOr("netns", ""); cfg.Hold.NetNS != "" && !filepath.IsAbs(cfg.Hold.NetNS) {
		r.add("hold.netns", "%s is no absolute path; want one such as \"/run/netns/edge\"", quote(cfg.Hold.NetNS))
	}
	if cfg.Hold.Lifetime = hold.duration("lifetime", 0); cfg.Hold.Lifetime > 0 && cfg.Hold.Lifetime < MinLifetime {
		r.add("hold.lifetime", "%s is too short for the next announcer to take over; make it at least %s, or remove it", cfg.Hold.Lifetime, "5m")
	}
	cfg.Hold.Sysctls = hold.flag("sysctls")
	hold.end()

	m := o.optionalObject("metrics")
	if cfg.Metrics.Listen = m.textOr("listen", ""); cfg.Metrics.Listen != "" {
		if err := checkDialAddress(cfg.Metrics.Listen, false); err != nil {
			r.add("metrics.listen", "%v", err)
		}
	}
	m.end()

	vips := o.list("vips")
	if len(vips) > MaxVIPs {
		r.add("vips", "has %d entries; at most %d are allowed", len(vips), MaxVIPs)
		vips = nil
	}
	cfg.VIPs = slices.Grow(cfg.VIPs, len(vips))
	first := make(map[netip.Addr]int, len(vips))
	for i, item := range vips {
		path := "vips[" + strconv.Itoa(i) + "]"
		v := r.vip(path, item, cfg)
		if !v.Address.IsValid() {
			continue
		}
		if j, dup := first[v.Address]; dup {
			r.add(path+".address", "%s is already vips[%d]; remove one", v.Address, j)
		}
		first[v.Address] = i
		cfg.VIPs = append(cfg.VIPs, v)
	}
	o.end()
	return cfg
}

func (r *reader) tls(value any, unix bool) speaker.TLS {
	o := r.object("speaker.tls", value)
	t := speaker.TLS{Use: true, ServerName: o.textOr("server_name", "")}
	file := func(key string) string {
		path := o.textOr(key, "")
		if path != "" && !filepath.IsAbs(path) {
			r.add(o.at(key), "%s is no absolute path", quote(path))
		}
		return path
	}
	t.CA, t.Cert, t.Key = file("ca"), file("cert"), file("key")
	switch {
	case t.Cert != "" && t.Key == "":
		r.add(o.at("key"), "is missing, and cert is there; name both, or neither")
	case t.Cert == "" && t.Key != "":
		r.add(o.at("cert"), "is missing, and key is there; name both, or neither")
	}
	if unix && t.ServerName == "" && !o.bad {
		r.add(o.at("server_name"), "is missing; a Unix socket has no name to look for in a certificate")
	}
	o.end()
	return t
}

func (r *reader) vip(path string, item any, cfg *Config) VIP {
	o := r.object(path, item)
	var v VIP
	if s := o.text("address"); s != "" {
		addr, err := parseAddr(s)
		if err == nil {
			err = speaker.Path{Prefix: speaker.HostPrefix(addr)}.Validate()
		}
		if err != nil {
			r.add(o.at("address"), "%v", err)
		} else {
			v.Address = addr
		}
	}
	for i, item := range o.optionalList("communities") {
		at := fmt.Sprintf("%s[%d]", o.at("communities"), i)
		s, ok := item.(string)
		if !ok {
			r.add(at, "is %s; want a string, such as \"65001:100\"", kindOf(item))
			continue
		}
		s = cut(s, 60) // longer than any community, so what is cut is wrong already
		if c, err := speaker.ParseCommunity(s); err == nil {
			v.Communities = append(v.Communities, c)
		} else if large, largeErr := speaker.ParseLargeCommunity(s); largeErr == nil {
			v.LargeCommunities = append(v.LargeCommunities, large)
		} else {
			r.add(at, "%v", err)
		}
	}
	v.MED = o.optionalNumber("med", 1<<32-1)
	v.LocalPref = o.optionalNumber("local_pref", 1<<32-1)
	if n := o.optionalNumber("prepend", speaker.MaxASPath); n != nil {
		v.Prepend = int(*n)
	}
	v.DrainDelay = o.duration("drain_delay", cfg.DrainDelay)
	switch how := o.textOr("hold", "address"); how {
	case "address":
		v.Hold = vip.Address
	case "route":
		v.Hold = vip.Route
		if cfg.Hold.Lifetime > 0 {
			r.add(o.at("hold"), "is \"route\", and hold.lifetime is set, which routes do not have: those of IPv4 never end by themselves; make it \"address\", or remove hold.lifetime")
		}
	case "none":
		v.Hold = vip.None
	default:
		r.add(o.at("hold"), "%s is no way to hold a VIP; want \"address\", \"route\" or \"none\"", quote(how))
	}
	checks := o.optionalList("checks")
	if len(checks) > MaxChecks {
		r.add(o.at("checks"), "has %d entries; at most %d are allowed", len(checks), MaxChecks)
		checks = nil
	}
	for i, item := range checks {
		v.Checks = append(v.Checks, r.check(fmt.Sprintf("%s.checks[%d]", path, i), item, v.Address))
	}
	v.Require = r.require(o, len(checks))
	v.StartDelay = o.duration("start_delay", 0)
	if value, ok := o.optional("damping"); ok {
		v.Damping = r.damping(o.at("damping"), value)
	}
	o.end()
	return v
}

// require reads how many of n checks must be up; 0 is all.
func (r *reader) require(o *object, n int) int {
	value, ok := o.optional("require")
	if !ok {
		return 0
	}
	var need int
	switch v := value.(type) {
	case string:
		switch v {
		case "all":
			return 0
		case "any":
			need = 1
		default:
			r.add(o.at("require"), "%s is not known; want \"all\", \"any\" or a number of checks", quote(v))
			return 0
		}
	case json.Number:
		if need = o.count("require", 0); need == 0 {
			return 0
		}
	default:
		r.add(o.at("require"), "is %s; want \"all\", \"any\" or a number of checks", kindOf(value))
		return 0
	}
	if need > n {
		r.add(o.at("require"), "wants %d checks up, and there are %d; make it at most that", need, n)
	}
	return need
}

func (r *reader) damping(path string, value any) Damping {
	o := r.object(path, value)
	d := DefaultDamping
	d.Penalty = o.points("penalty", d.Penalty)
	d.Suppress = o.points("suppress", d.Suppress)
	d.Reuse = o.points("reuse", d.Reuse)
	d.HalfLife = o.duration("half_life", d.HalfLife)
	if d.Reuse >= d.Suppress && d.Suppress > 0 {
		r.add(o.at("reuse"), "is %d, and suppress is %d; make it less than that", d.Reuse, d.Suppress)
	}
	o.end()
	return d
}
