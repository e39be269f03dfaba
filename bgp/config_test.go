package bgp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

const fullConfig = `{ "schema_version": 1,
  "node_id": "node01",
  "speaker": { "address": "127.0.0.1:50051", "timeout": "2s" },
  "asn": 65001,
  "next_hop": { "ipv4": "10.0.0.11", "ipv6": null },
  "hold": { "interface": "lo", "netns": "" },
  "drain_delay": "5s", "graceful_shutdown": { "on_health": true },
  "reconcile_interval": "10s",
  "vips": [
    { "address": "203.0.113.10",
      "communities": [ "65001:100", "65001:1:2" ], "med": null, "local_pref": 200, "prepend": 2, "drain_delay": "30s", "hold": "route",
      "checks": [
        { "type": "http", "url": "http://127.0.0.1:8080/healthz", "interval": "2s", "timeout": "1s", "rise": 2, "fall": 3 },
        { "type": "tcp", "address": "localhost:80", "interval": "500ms", "timeout": "500ms", "rise": 1, "fall": 1 } ] },
    { "address": "2001:db8::10", "communities": [], "med": 0, "local_pref": null, "checks": [] } ] }`

func TestParseConfig(t *testing.T) {
	got, err := ParseConfig([]byte(fullConfig))
	if err != nil {
		t.Fatal(err)
	}
	pref, med := uint32(200), uint32(0)
	addr := netip.MustParseAddr("203.0.113.10")
	want := &Config{
		NodeID: "node01", ASN: 65001,
		Speaker:    SpeakerConfig{Address: "127.0.0.1:50051", Timeout: 2 * time.Second},
		NextHop:    NextHop{IPv4: netip.MustParseAddr("10.0.0.11")},
		Hold:       Hold{Interface: "lo"},
		DrainDelay: 5 * time.Second, ReconcileInterval: 10 * time.Second, GracefulShutdown: GracefulShutdown{10 * time.Second, true, false},
		VIPs: []VIP{
			{Address: addr, LocalPref: &pref, Prepend: 2, DrainDelay: 30 * time.Second, Hold: vip.Route,
				Communities: []speaker.Community{65001<<16 | 100}, LargeCommunities: []speaker.LargeCommunity{{Global: 65001, Local1: 1, Local2: 2}},
				Checks: []health.Check{
					{Kind: health.HTTP, URL: "http://127.0.0.1:8080/healthz", Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3},
					{Kind: health.TCP, Address: "localhost:80", Interval: 500 * time.Millisecond, Timeout: 500 * time.Millisecond, Rise: 1, Fall: 1, NotAddr: addr},
				}},
			{Address: netip.MustParseAddr("2001:db8::10"), MED: &med, DrainDelay: 5 * time.Second, Hold: vip.Address},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	p := got.Path(&got.VIPs[0])
	if p.Prefix.String() != "203.0.113.10/32" || p.NextHop != got.NextHop.IPv4 || *p.LocalPref != 200 || !slices.Equal(p.ASPath, []uint32{65001, 65001}) {
		t.Errorf("path is %+v", p)
	}
	if p := got.Path(&got.VIPs[1]); p.NextHop.IsValid() {
		t.Errorf("path is %+v", p)
	}
}

func TestConfigDefaults(t *testing.T) {
	got, err := ParseConfig([]byte(`{"schema_version": 1, "node_id": "n", "asn": 4200000000, "vips": [
		{"address": "203.0.113.10", "checks": [{"type": "tcp", "address": "[::1]:80"}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	check := got.VIPs[0].Checks[0]
	if got.Speaker.Address != "127.0.0.1:50051" || got.Speaker.Timeout != 2*time.Second || got.Hold.Interface != "lo" ||
		got.DrainDelay != 5*time.Second || got.ReconcileInterval != 10*time.Second ||
		check.Interval != 2*time.Second || check.Timeout != time.Second || check.Rise != 2 || check.Fall != 3 {
		t.Errorf("got %+v", got)
	}
}

// Every mistake is refused with its place and its mend. Each case replaces a piece of fullConfig.
func TestConfigMistakes(t *testing.T) {
	for _, test := range []struct{ old, new, want string }{
		{`"schema_version": 1`, `"schema_version": 2`, `schema_version: is 2, and this program reads 1; use an announcer and a configuration of the same release`},
		{`"schema_version": 1,`, ``, `schema_version: is missing`},
		{`"asn": 65001`, `"asn": null`, `asn: is null; want a number`},
		{`"node_id": "node01"`, `"node_id": ""`, `node_id: is empty`},
		{`"on_health": true`, `"on_health": "yes"`, `graceful_shutdown.on_health: is the string "yes"; want true or false`},
		{`"on_health": true`, `"health": true`, `graceful_shutdown.health: is not known here; known are by, delay, on_health`},
		{`"on_health": true`, `"by": "MED"`, `graceful_shutdown.by: "MED" is not known; want "community" or "med"`},
		{`"node_id": "node01"`, `"node_id": 7`, `node_id: is the number 7; want a string`},
		{`"asn": 65001`, `"asn": 0`, `asn: is 0, which is no ASN`},
		{`"asn": 65001`, `"asn": "65001"`, `asn: is the string "65001"; want a number`},
		{`"asn": 65001`, `"asn": 4294967296`, `asn: 4294967296 is not a whole number from 0 to 4294967295`},
		{`"asn": 65001`, `"asn": 65001, "as": 1`, `as: is not known here; known are asn, drain_delay, graceful_shutdown, hold, metrics, next_hop, node_id, reconcile_interval, schema_version, speaker, vips`},
		{`"asn": 65001`, `"asn": 65001, "asn": 65002`, `asn: is written twice; remove one`},
		{`"asn": 65001`, `"ASN": 65001`, `asn: is missing; ASN: is not known here`},
		{`127.0.0.1:50051`, `127.0.0.1`, `speaker.address: "127.0.0.1" is not an address and a port`},
		{`127.0.0.1:50051`, `unix://run/x`, `speaker.address: "unix://run/x" has no absolute path`},
		{`127.0.0.1:50051`, `127.0.0.1:99999`, `port "99999" is not a number from 1 to 65535`},
		{`"timeout": "2s" }`, `"timeout": 2 }`, `speaker.timeout: is the number 2; want a number with a unit, such as "500ms", "5s" or "1m", as a string`},
		{`"timeout": "2s" }`, `"timout": "2s" }`, `speaker.timout: is not known here; known are address, timeout, tls`},
		{`"timeout": "2s" }`, `"timeout": "2s", "tls": {"ca": "ca.pem"} }`, `speaker.tls.ca: "ca.pem" is no absolute path`},
		{`"timeout": "2s" }`, `"timeout": "2s", "tls": {"cert": "/c.pem"} }`, `speaker.tls.key: is missing, and cert is there; name both, or neither`},
		{`"timeout": "2s" }`, `"timeout": "2s", "tls": {"key": "/k.pem"} }`, `speaker.tls.cert: is missing, and key is there`},
		{`"timeout": "2s" }`, `"timeout": "2s", "tls": {"crt": "/k.pem"} }`, `speaker.tls.crt: is not known here; known are ca, cert, key, server_name`},
		{`"timeout": "2s" }`, `"timeout": "2s", "tls": true }`, `speaker.tls: is true; want an object in braces`},
		{`127.0.0.1:50051", "timeout": "2s" }`, `unix:///run/x", "tls": {} }`, `speaker.tls.server_name: is missing; a Unix socket has no name to look for in a certificate`},
		{`"2s" },
  "asn"`, `"2s" }, "metrics": {"listen": ":9479"},
  "asn"`, `metrics.listen: ":9479" is not an address and a port`},
		{`"10.0.0.11"`, `"2001:db8::1"`, `next_hop.ipv4: "2001:db8::1" is no next hop; want an IPv4 address`},
		{`"10.0.0.11"`, `"127.0.0.1"`, `next_hop.ipv4: "127.0.0.1" is no next hop`},
		{`"ipv6": null`, `"ipv6": "fe80::1"`, `next_hop.ipv6: "fe80::1" is no next hop; want an IPv6 address`},
		{`"10.0.0.11"`, `""`, `next_hop.ipv4: is empty; want an IPv4 address`},
		{`"interface": "lo"`, `"interface": "a-name-that-is-too-long"`, `hold.interface: "a-name-that-is-too-long" is no interface name`},
		{`"interface": "lo"`, `"interface": "lo 1"`, `hold.interface: "lo 1" is no interface name`},
		{`"netns": ""`, `"netns": "edge"`, `hold.netns: "edge" is no absolute path; want one such as "/run/netns/edge"`},
		{`"netns": ""`, `"netns": "", "lifetime": "4m59s"`, `hold.lifetime: 4m59s is too short for the next announcer to take over; make it at least 5m, or remove it`},
		{`"netns": ""`, `"netns": "", "lifetime": "5m"`, `vips[0].hold: is "route", and hold.lifetime is set, which routes do not have: those of IPv4 never end by themselves; make it "address", or remove hold.lifetime`},
		{`"drain_delay": "5s"`, `"drain_delay": "5"`, `drain_delay: "5" is not a duration; want a number with a unit`},
		{`"drain_delay": "5s"`, `"drain_delay": "-5s"`, `drain_delay: "-5s" is out of range; want from 1ms to 24h`},
		{`"drain_delay": "5s"`, `"drain_delay": "0s"`, `drain_delay: "0s" is out of range`},
		{`"2001:db8::10"`, `"203.0.113.10"`, `vips[1].address: 203.0.113.10 is already vips[0]; remove one`},
		{`"2001:db8::10"`, `"203.0.113.10/32"`, `vips[1].address: "203.0.113.10/32" has a prefix length; write the address alone`},
		{`"2001:db8::10"`, `"::ffff:203.0.113.11"`, `vips[1].address: "::ffff:203.0.113.11" is an IPv4 address written as IPv6; write 203.0.113.11`},
		{`"2001:db8::10"`, `"fe80::1%eth0"`, `vips[1].address: "fe80::1%eth0" has a zone`},
		{`"2001:db8::10"`, `"255.255.255.255"`, `cannot be announced: not a global unicast address`},
		{`"2001:db8::10"`, `"127.0.0.1"`, `cannot be announced: not a global unicast address`},
		{`"2001:db8::10"`, `"vip.example"`, `vips[1].address: "vip.example" is not an IP address`},
		{`"65001:100"`, `"65001"`, `vips[0].communities[0]: "65001" is not a community`},
		{`"65001:100"`, `"70000:1"`, `vips[0].communities[0]: "70000:1" is not a community`},
		{`"65001:100"`, `65001`, `vips[0].communities[0]: is the number 65001; want a string`},
		{`"med": 0`, `"med": -1`, `vips[1].med: -1 is not a whole number from 0 to 4294967295`},
		{`"med": 0`, `"med": 1.5`, `vips[1].med: 1.5 is not a whole number`},
		{`"prepend": 2`, `"prepend": 256`, `vips[0].prepend: 256 is not a whole number from 0 to 255`},
		{`"hold": "route"`, `"hold": "arp"`, `vips[0].hold: "arp" is no way to hold a VIP; want "address", "route" or "none"`},
		{`"hold": "route"`, `"hold": ""`, `vips[0].hold: "" is no way to hold a VIP`},
		{`"drain_delay": "30s"`, `"drain_delay": 30`, `vips[0].drain_delay: is the number 30; want a number with a unit`},
		{`"type": "http"`, `"type": "icmp"`, `vips[0].checks[0].type: "icmp" is not a type of check; want "http", "tcp", "grpc", "exec" or "systemd"`},
		{`"type": "http", `, ``, `vips[0].checks[0].type: is missing`},
		{`"url": "http://127.0.0.1:8080/healthz"`, `"address": "127.0.0.1:8080"`, `vips[0].checks[0].url: is missing; vips[0].checks[0].address: is not known here`},
		{`http://127.0.0.1:8080/healthz`, `ftp://127.0.0.1/`, `vips[0].checks[0].url: "ftp://127.0.0.1/" is not an http or https URL`},
		{`http://127.0.0.1:8080/healthz`, `http://u:p@127.0.0.1/`, `no place for secrets; remove it`},
		{`http://127.0.0.1:8080/healthz`, `http://203.0.113.10:8080/`, `vips[0].checks[0].url: dials the VIP itself`},
		{`http://127.0.0.1:8080/healthz`, `http://[::ffff:203.0.113.10]/`, `vips[0].checks[0].url: dials the VIP itself`},
		{`localhost:80`, `203.0.113.10:80`, `vips[0].checks[1].address: dials the VIP itself`},
		{`localhost:80`, `localhost`, `vips[0].checks[1].address: "localhost" is not an address and a port`},
		{`"interval": "500ms"`, `"interval": "soon"`, `vips[0].checks[1].interval: "soon" is not a duration`},
		{`"interval": "500ms"`, `"interval": "400ms"`, `vips[0].checks[1].timeout: 500ms is longer than the interval, 400ms; make it at most that`},
		{`"rise": 2`, `"rise": 0`, `vips[0].checks[0].rise: is 0; want at least 1`},
		{`"fall": 3`, `"fall": 3, "retries": 3`, `vips[0].checks[0].retries: is not known here; known are body, body_regex, ca_file, fall, fast_interval, headers, host, interval, redirects, rise, status, timeout, type, url`},
		{`"checks": [] }`, `"checks": {} }`, `vips[1].checks: is an object; want a list in brackets`},
		{`"checks": [] }`, `"checks": [3] }`, `vips[1].checks[0]: is the number 3; want an object in braces`},
		{`"asn": 65001,`, `"asn": 65001 }` + "\n\n", `line 7: not valid JSON: something follows`},
		{`] } ] }`, `] } ] } {}`, `something follows after the end of the JSON object`},
		{`] } ] }`, `] } ]`, `not valid JSON: ends too early; is it cut off?`},
		{`"node_id": "node01",`, `"node_id": "node01"`, `line 3: not valid JSON`},
	} {
		if !strings.Contains(fullConfig, test.old) {
			t.Fatalf("test is wrong: no %s", test.old)
		}
		i := strings.LastIndex(fullConfig, test.old)
		if strings.Count(fullConfig, test.old) > 1 {
			i = strings.Index(fullConfig, test.old)
		}
		_, err := ParseConfig([]byte(fullConfig[:i] + test.new + fullConfig[i+len(test.old):]))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s -> %s:\n got %v\nwant %s", test.old, test.new, err, test.want)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s -> %s: more than one line: %v", test.old, test.new, err)
		}
	}
}

func TestConfigLimits(t *testing.T) {
	if _, err := ParseConfig(make([]byte, MaxConfigBytes+1)); err == nil || !strings.Contains(err.Error(), "larger than 32 MiB") {
		t.Error(err)
	}
	keys := []string{}
	for i := range maxKeys + 1 {
		keys = append(keys, fmt.Sprintf(`"k%d": 1`, i))
	}
	if _, err := ParseConfig([]byte(`{"speaker": {` + strings.Join(keys, ",") + "}}")); err == nil || !strings.Contains(err.Error(), "speaker: has more than 256 keys") {
		t.Error(err)
	}
	for _, depth := range []int{maxDepth + 1, 1 << 20} {
		text := strings.Repeat("[", depth) + strings.Repeat("]", depth)
		if _, err := ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), "nested too deeply") && !strings.Contains(err.Error(), "exceeded max depth") {
			t.Error(err)
		}
	}
	checks := strings.Repeat(`{"type": "tcp", "address": "127.0.0.1:80"},`, MaxChecks+1)
	text := strings.Replace(fullConfig, `"checks": [] }`, `"checks": [`+strings.TrimSuffix(checks, ",")+`] }`, 1)
	if _, err := ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), "vips[1].checks: has 17 entries; at most 16 are allowed") {
		t.Error(err)
	}
}

func TestLoadConfigNamesTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "announcer.json")
	if err := os.WriteFile(file, []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(file); err == nil || err.Error() != file+": is a list; want an object in braces" {
		t.Error(err)
	}
	if _, err := LoadConfig(file + ".absent"); err == nil || !strings.Contains(err.Error(), file+".absent") {
		t.Error(err)
	}
}

// asMaps is tree as encoding/json makes it.
func asMaps(tree any) any {
	switch tree := tree.(type) {
	case fields:
		object := map[string]any{}
		for _, f := range tree {
			object[f.key] = asMaps(f.value)
		}
		return object
	case []any:
		for i := range tree {
			tree[i] = asMaps(tree[i])
		}
	}
	return tree
}

// Whatever is in the file: no panic, and what is accepted can be announced.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(fullConfig))
	f.Add([]byte(checksConfig))
	f.Add([]byte(`{"schema_version": 1, "node_id": "n", "asn": 1, "vips": [{"address": "::1"}]}`))
	f.Add([]byte(`{"vips": [{"checks": [{"type": "http", "url": "http://[::1]"}]}]}`))
	f.Add([]byte(`[[[`))
	f.Add([]byte(`{"node_id": "\"\\\u00e9é\xff", "asn": -1.5e+3, "hold": [true , false, null, {}, []]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if tree, err := parseJSON(data); err == nil {
			d := json.NewDecoder(bytes.NewReader(data))
			d.UseNumber()
			var want any
			if err := d.Decode(&want); err != nil || !reflect.DeepEqual(asMaps(tree), want) {
				t.Errorf("read as %#v, want %#v (%v)", tree, want, err)
			}
		}
		cfg, err := ParseConfig(data)
		if err != nil {
			return
		}
		if cfg.ASN == 0 || cfg.DrainDelay <= 0 || cfg.ReconcileInterval <= 0 || cfg.Speaker.Timeout <= 0 {
			t.Errorf("accepted %+v", cfg)
		}
		seen := map[netip.Addr]bool{}
		for _, v := range cfg.VIPs {
			if err := cfg.Path(&v).Validate(); err != nil {
				t.Errorf("accepted %v", err)
			}
			if seen[v.Address] {
				t.Errorf("accepted %s twice", v.Address)
			}
			seen[v.Address] = true
			if v.Require < 0 || v.Require > len(v.Checks) || v.Damping.Reuse > v.Damping.Suppress || v.Damping.HalfLife < 0 {
				t.Errorf("accepted %+v", v)
			}
			for _, c := range v.Checks {
				if words := c.Command.Words(); c.Kind == health.Exec && (len(words) == 0 || !filepath.IsAbs(words[0])) || c.Fast < 0 || c.Fast > c.Interval {
					t.Errorf("accepted %+v", c)
				}
				if _, err := regexp.Compile(c.BodyRegex); err != nil {
					t.Errorf("accepted %v", err)
				}
				if c.Interval <= 0 || c.Timeout <= 0 || c.Timeout > c.Interval || c.Rise < 1 || c.Fall < 1 || c.Target() == "" {
					t.Errorf("accepted %+v", c)
				}
			}
		}
	})
}

// A message stays readable, whatever is in the file.
func TestLongValuesAreCut(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for _, text := range []string{
		`"hold": {"interface": "` + long + `"}`, `"drain_delay": "` + long + `"`, `"` + long + `": 1`, `"asn": 1` + strings.Repeat("0", 10_000),
		`"speaker": {"address": "` + long + `"}`, `"next_hop": {"ipv4": "` + long + `"}`, `"node_id": ["` + long + `"]`, `"drain_delay": 1` + strings.Repeat("0", 10_000),
		`"vips": [{"address": "fe80::1%` + long + `", "communities": ["` + long + `"], "checks": [{"type": "` + long + `"}, {"type": "http", "url": "` + long + `"}]}]`,
	} {
		_, err := ParseConfig([]byte("{" + text + "}"))
		if err == nil || len(err.Error()) > 1500 {
			t.Errorf("%.40s: %.2000v", text, err)
		}
	}
}
