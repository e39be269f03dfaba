package bgp

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
)

const checksConfig = `{ "schema_version": 1, "node_id": "node01", "asn": 65001, "vips": [
  { "address": "203.0.113.10", "require": 2, "start_delay": "30s",
    "damping": { "penalty": 500, "suppress": 1200, "reuse": 300, "half_life": "2m" },
    "checks": [
      { "type": "http", "url": "https://127.0.0.1:8080/healthz", "status": [204, "300-399"], "body": "ok", "body_regex": "^o[k]$",
        "headers": { "x-probe": "1", "Accept": "text/plain" }, "redirects": 3, "host": "www.example.org", "ca_file": "/etc/ca.pem",
        "interval": "10s", "fast_interval": "1s" },
      { "type": "grpc", "address": "localhost:443", "service": "shop.Cart", "tls": true, "host": "cart", "ca_file": "/etc/grpc.pem" },
      { "type": "exec", "command": ["/bin/test", "-e", "", "/run/ready"], "fast_interval": "2s" },
      { "type": "systemd", "unit": "shop@1.service" } ] },
  { "address": "203.0.113.11", "require": "any", "damping": {}, "checks": [ { "type": "tcp", "address": "127.0.0.1:80" } ] },
  { "address": "203.0.113.12", "require": "all", "damping": null } ] }`

func TestParseChecks(t *testing.T) {
	got, err := ParseConfig([]byte(checksConfig))
	if err != nil {
		t.Fatal(err)
	}
	base := health.Check{Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3}
	web, grpc, program, unit := base, base, base, base
	web.Kind, web.URL, web.Status, web.Body, web.BodyRegex, web.Redirects = health.HTTP, "https://127.0.0.1:8080/healthz", "204,300-399", "ok", "^o[k]$", 3
	web.Headers, web.Host, web.CAFile = health.ListOf("Accept", "text/plain", "X-Probe", "1"), "www.example.org", "/etc/ca.pem"
	web.Interval, web.Fast = 10*time.Second, time.Second
	grpc.Kind, grpc.Address, grpc.Service, grpc.TLS, grpc.Host, grpc.CAFile = health.GRPC, "localhost:443", "shop.Cart", true, "cart", "/etc/grpc.pem"
	grpc.NotAddr = got.VIPs[0].Address
	program.Kind, program.Command = health.Exec, health.ListOf("/bin/test", "-e", "", "/run/ready")
	unit.Kind, unit.Unit = health.Systemd, "shop@1.service"
	if want := []health.Check{web, grpc, program, unit}; !reflect.DeepEqual(got.VIPs[0].Checks, want) {
		t.Errorf("got  %+v\nwant %+v", got.VIPs[0].Checks, want)
	}
	for i, want := range []struct {
		require int
		delay   time.Duration
		damping Damping
	}{
		{2, 30 * time.Second, Damping{500, 1200, 300, 2 * time.Minute}},
		{1, 0, DefaultDamping},
		{0, 0, Damping{}},
	} {
		if v := got.VIPs[i]; v.Require != want.require || v.StartDelay != want.delay || v.Damping != want.damping {
			t.Errorf("VIP %d: %+v", i, v)
		}
	}
	for i, want := range []string{"https://127.0.0.1:8080/healthz", "localhost:443/shop.Cart", "/bin/test -e  /run/ready", "shop@1.service"} {
		if got := got.VIPs[0].Checks[i].Target(); got != want {
			t.Errorf("target is %q, want %q", got, want)
		}
	}
}

// Every mistake is refused with its place and its mend. Each case replaces a piece of checksConfig.
func TestCheckMistakes(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, test := range []struct{ old, new, want string }{
		{`204, "300-399"`, `204, "399-300"`, `vips[0].checks[0].status[1]: "399-300" is no HTTP status; want one such as 204, or a range such as "200-299", from 100 to 599`},
		{`204,`, `99,`, `status[0]: "99" is no HTTP status`},
		{`204,`, `600,`, `status[0]: "600" is no HTTP status`},
		{`204,`, `2e2,`, `status[0]: "2e2" is no HTTP status`},
		{`204,`, `"200-",`, `status[0]: "200-" is no HTTP status`},
		{`204,`, `null,`, `status[0]: is null; want a number such as 204, or a string such as "200-299"`},
		{`[204, "300-399"]`, `"200"`, `vips[0].checks[0].status: is the string "200"; want a list in brackets`},
		{`[204, "300-399"]`, `[` + strings.Repeat("200,", 16) + `200]`, `status: has 17 entries; at most 16 are allowed`},
		{`"body": "ok"`, `"body": "` + long + `"`, `vips[0].checks[0].body: has 5000 bytes; at most 1000 are allowed`},
		{`^o[k]$`, `o[k`, `vips[0].checks[0].body_regex: "o[k" is no regular expression of RE2: error parsing regexp: missing closing ]`},
		{`^o[k]$`, `(?=o)`, `is no regular expression of RE2`},
		{`"redirects": 3`, `"redirects": 11`, `vips[0].checks[0].redirects: 11 is not a whole number from 0 to 10`},
		{`"x-probe"`, `"Host"`, `vips[0].checks[0].headers.Host: cannot be set; set host instead`},
		{`"x-probe"`, `"authorization"`, `headers.authorization: cannot be set; this file is no place for secrets`},
		{`"x-probe"`, `"accept"`, `headers.accept: is there already, in other letters; remove one`},
		{`"x-probe"`, `"x probe"`, `headers: "x probe" is no name of an HTTP header`},
		{`"text/plain"`, `"a\nb"`, `headers.Accept: "a\nb" is no value of an HTTP header`},
		{`"text/plain"`, `1`, `headers.Accept: is the number 1; want a string`},
		{`"www.example.org"`, `"www.example.org:80"`, `vips[0].checks[0].host: "www.example.org:80" is no name of a host`},
		{`"/etc/ca.pem"`, `"ca.pem"`, `vips[0].checks[0].ca_file: "ca.pem" is no absolute path`},
		{`https://`, `http://`, `vips[0].checks[0].ca_file: is there, and the check uses no TLS; use https or tls, or remove it`},
		{`"tls": true, `, ``, `vips[0].checks[1].ca_file: is there, and the check uses no TLS`},
		{`"tls": true`, `"tls": "yes"`, `vips[0].checks[1].tls: is the string "yes"; want true or false`},
		{`localhost:443`, `203.0.113.10:443`, `vips[0].checks[1].address: dials the VIP itself`},
		{`"service"`, `"name"`, `vips[0].checks[1].name: is not known here; known are address, ca_file, fall, fast_interval, host, interval, rise, service, timeout, tls, type`},
		{`"/bin/test"`, `"test"`, `vips[0].checks[2].command: "test" is no absolute path; there is no shell that would look for it`},
		{`["/bin/test", "-e", "", "/run/ready"]`, `[]`, `vips[0].checks[2].command: names no program`},
		{`["/bin/test", "-e", "", "/run/ready"]`, `"/bin/test"`, `vips[0].checks[2].command: is the string "/bin/test"; want a list in brackets`},
		{`"-e"`, `"\u0000"`, `vips[0].checks[2].command[1]: is the string "\x00"; want a string without NUL`},
		{`"-e"`, `"` + long + `"`, `vips[0].checks[2].command: is too long; at most 64 words and 4096 bytes are allowed`},
		{`"command"`, `"argv"`, `vips[0].checks[2].command: is missing`},
		{`shop@1.service`, `shop@1`, `vips[0].checks[3].unit: "shop@1" is no name of a unit`},
		{`shop@1.service`, `../x.service`, `is no name of a unit`},
		{`"fast_interval": "1s"`, `"fast_interval": "11s"`, `vips[0].checks[0].fast_interval: 11s is longer than the interval, 10s; make it at most that`},
		{`"require": 2`, `"require": 5`, `vips[0].require: wants 5 checks up, and there are 4; make it at most that`},
		{`"require": 2`, `"require": 0`, `vips[0].require: is 0; want at least 1`},
		{`"require": 2`, `"require": "most"`, `vips[0].require: "most" is not known; want "all", "any" or a number of checks`},
		{`"require": 2`, `"require": [2]`, `vips[0].require: is a list; want "all", "any" or a number of checks`},
		{`"all"`, `"any"`, `vips[2].require: wants 1 checks up, and there are 0`},
		{`"start_delay": "30s"`, `"start_delay": 30`, `vips[0].start_delay: is the number 30; want a number with a unit`},
		{`"penalty": 500`, `"penalty": 0`, `vips[0].damping.penalty: is 0; want at least 1`},
		{`"suppress": 1200`, `"suppress": 300`, `vips[0].damping.reuse: is 300, and suppress is 300; make it less than that`},
		{`"half_life": "2m"`, `"halflife": "2m"`, `vips[0].damping.halflife: is not known here; known are half_life, penalty, reuse, suppress`},
		{`"damping": null`, `"damping": true`, `vips[2].damping: is true; want an object in braces`},
	} {
		if strings.Count(checksConfig, test.old) != 1 {
			t.Fatalf("test is wrong: %s is there %d times", test.old, strings.Count(checksConfig, test.old))
		}
		_, err := ParseConfig([]byte(strings.Replace(checksConfig, test.old, test.new, 1)))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s -> %.100s:\n got %.500v\nwant %s", test.old, test.new, err, test.want)
		}
	}
}
