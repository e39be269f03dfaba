package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/control"
	"github.com/centra/plasmacloud/bgp/metrics"
	"github.com/centra/plasmacloud/cmd/internal/command/commandtest"
	process "github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/phonehome"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

const clusterConfig = `{ "schema_version": 1, "cluster_name": "c", "node_id": "NODE", "node_role": "worker", "node_ip": "10.0.0.11",
  "services": [], "bootstrap": false, "initial_peers": [], "bgp_asn": null, "deployer_url": "http://127.0.0.1:1" }`

// realDeployer serves the API over a real file, with node01 declared.
func realDeployer(t *testing.T) (url string, registry *deployer.Registry) {
	store, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	quiet := slog.New(slog.DiscardHandler)
	registry, err = deployer.New(t.Context(), deployer.Config{Store: store, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Declare(t.Context(), []node.Declaration{{ID: "node01", Role: "worker"}}); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(server.New(server.Config{Registry: registry, Logger: quiet}))
	t.Cleanup(srv.Close)
	return srv.URL, registry
}

func configFor(t *testing.T, id string) string {
	path := filepath.Join(t.TempDir(), "cluster-config.json")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(clusterConfig, "NODE", id)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const machine = "4c4c4544-0044-4a10-8052-b4c04f503532"

func phoneHome(args ...string) (code int, stdout string, err error) {
	var out strings.Builder
	err = run(append([]string{"--machine-id", machine}, args...), &out, io.Discard)
	var coded *process.ExitError
	switch {
	case errors.As(err, &coded):
		code = coded.Code
	case err != nil:
		code = process.ExitFailure
	}
	return code, out.String(), err
}

// TestLifeOfANode runs the commands that the ISO, the installer and the installed
// system run, against a real deployer.
func TestLifeOfANode(t *testing.T) {
	url, registry := realDeployer(t)
	config := configFor(t, "node01")
	for _, step := range []struct {
		args  []string
		code  int
		says  string // on stdout, or as the error
		state node.State
	}{
		{[]string{"--phase", "booted"}, 0, "node01: Provisioning, attempt 1", node.Provisioning},
		{[]string{"--phase", "installing"}, 0, "node01: Provisioning", node.Provisioning},
		{[]string{"--phase", "failed", "--error", "no disk"}, 0, "node01: Failed: no disk", node.Failed},
		{[]string{"--phase", "installing"}, 0, "node01: Provisioning, attempt 2", node.Provisioning},
		{[]string{"--phase", "installed"}, 0, "node01: Provisioning, attempt 2", node.Provisioning},
		{[]string{"--phase", "installing"}, exitRefused, "409 already_provisioned", node.Provisioning},
		{nil, 0, "node01: Active\n", node.Active},
		{[]string{"--phase", "installing"}, exitRefused, "409 already_provisioned", node.Active},
		{[]string{"--machine-id", "4c4c4544-0044-4a10-8052-b4c04f503599"}, exitRefused, "409 machine_conflict", node.Active},
	} {
		code, out, err := phoneHome(append([]string{"--config", config, "--deployer-url", url}, step.args...)...)
		said := out
		if err != nil {
			said = err.Error()
		}
		if code != step.code || !strings.Contains(said, step.says) {
			t.Errorf("%v: exit %d, %q; want %d, %q", step.args, code, said, step.code, step.says)
		}
		if v, err := registry.Node(t.Context(), "node01"); err != nil || v.State != step.state || v.MachineID != machine {
			t.Errorf("%v: the node is %s of %s, %v; want %s", step.args, v.State, v.MachineID, err, step.state)
		}
	}
}

// TestVIPs: what the node announces is what the deployer shows, and no longer than
// it says so.
func TestVIPs(t *testing.T) {
	url, registry := realDeployer(t)
	config := configFor(t, "node01")
	for _, step := range []struct{ args, want []string }{
		{[]string{"--vip", "203.0.113.10", "--vip", "2001:DB8::10/128"}, []string{"203.0.113.10/32", "2001:db8::10/128"}},
		{nil, nil},
	} {
		if _, _, err := phoneHome(append([]string{"--config", config, "--deployer-url", url}, step.args...)...); err != nil {
			t.Fatalf("%v: %v", step.args, err)
		}
		if v, err := registry.Node(t.Context(), "node01"); err != nil || !slices.Equal(v.VIPs, step.want) {
			t.Errorf("%v: %v, %v", step.args, v.VIPs, err)
		}
	}
}

// What the announcer's own socket answers is what the deployer shows.
func TestVIPsOfTheAnnouncer(t *testing.T) {
	dir, err := os.MkdirTemp("", "phone") // t.TempDir() may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := time.Now()
	status := metrics.Status{At: &at, TableRead: true, VIPs: []metrics.VIP{
		{Address: "203.0.113.10", Want: bgp.Announce.String(), Cause: string(bgp.CauseHealth), Announced: true},
		{Address: "203.0.113.11", Want: bgp.Withdraw.String(), Cause: string(bgp.CauseDrained), Why: "drained by uid 0: new kernel"},
		{Address: "2001:db8::10", Want: bgp.Announce.String(), Cause: string(bgp.CauseHealth), Why: "all up"},
	}}
	socket := dir + "/s"
	quiet := slog.New(slog.DiscardHandler)
	announcer := bgp.New(bgp.Options{Config: &bgp.Config{}})
	controlled, err := control.Listen(socket, dir+"/drains.json", announcer, func() metrics.Status { return status }, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer controlled.Close()
	url, registry := realDeployer(t)
	code, _, err := phoneHome("--config", configFor(t, "node01"), "--deployer-url", url, "--announcer-socket", socket, "--service", "no-such-unit")
	if code != 0 {
		t.Fatal(code, err)
	}
	v, err := registry.Node(t.Context(), "node01")
	want := "[{203.0.113.11/32 drained drained by uid 0: new kernel} {2001:db8::10/128 missing all up}]"
	if err != nil || fmt.Sprint(v.VIPs) != "[203.0.113.10/32]" || fmt.Sprint(v.VIPStates) != want ||
		len(v.Services) != 1 || v.Services[0].Name != "no-such-unit.service" {
		t.Errorf("%v %v %v %v", v.VIPs, v.VIPStates, v.Services, err)
	}
	if code, _, err := phoneHome("--service", "a b"); code != 64 || !strings.Contains(err.Error(), "gobgpd.service") {
		t.Errorf("a unit that is none: %d %v", code, err)
	}
}

func TestExitStatus(t *testing.T) {
	url, _ := realDeployer(t)
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"not reached":       {[]string{"--config", configFor(t, "node01"), "--attempts", "1"}, process.ExitFailure, "not reached in 1 attempts"},
		"unknown node":      {[]string{"--config", configFor(t, "node99"), "--deployer-url", url}, exitRefused, "plasmacloud.cluster.nodes"},
		"no config":         {[]string{"--config", "/nowhere.json"}, process.ExitConfig, "/nowhere.json"},
		"bad config":        {[]string{"--config", configFor(t, "Node 1")}, process.ExitConfig, "node_id: want"},
		"bad url":           {[]string{"--config", configFor(t, "node01"), "--deployer-url", "x"}, process.ExitConfig, "want a base URL"},
		"shared id":         {[]string{"--config", configFor(t, "node01"), "--machine-id", "00000000-0000-0000-0000-000000000000"}, process.ExitConfig, "cannot tell"},
		"no token":          {[]string{"--config", configFor(t, "node01"), "--join-token-file", "/nowhere"}, process.ExitConfig, "join token: open /nowhere"},
		"no CA":             {[]string{"--config", configFor(t, "node01"), "--ca-file", "/nowhere.pem"}, process.ExitConfig, "CA: open /nowhere.pem"},
		"key without cert":  {[]string{"--config", configFor(t, "node01"), "--key-file", "/nowhere.pem"}, process.ExitConfig, "go together"},
		"bad phase":         {[]string{"--phase", "done"}, process.ExitUsage, "booted, installing, installed, ready, failed"},
		"failed, no error":  {[]string{"--phase", "failed"}, process.ExitUsage, "--error"},
		"error, not failed": {[]string{"--error", "x"}, process.ExitUsage, "--phase failed"},
		"retry of what":     {[]string{"--until-retry"}, process.ExitUsage, "--phase failed"},
		"bad attempts":      {[]string{"--attempts", "-1"}, process.ExitUsage, "--attempts"},
		"bad timeout":       {[]string{"--timeout", "0s"}, process.ExitUsage, "--timeout"},
		"bad vip":           {[]string{"--vip", "203.0.113.10", "--vip", "203.0.113.0/24"}, process.ExitUsage, `--vip "203.0.113.0/24": want an address`},
		"unknown flag":      {[]string{"--fase", "x"}, process.ExitUsage, "--help"},
		"extra argument":    {[]string{"x"}, process.ExitUsage, "--help"},
		"bad log format":    {[]string{"--log-format", "xml"}, process.ExitUsage, "--log-format"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, err := phoneHome(test.args...)
			if err == nil || code != test.code || !strings.Contains(err.Error(), test.says) {
				t.Errorf("exit %d, %v; want %d, %q", code, err, test.code, test.says)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	_, help, err := phoneHome("--help")
	commandtest.Fits(t, name, help)
	for _, want := range []string{
		"Examples:", "Exit status:", phonehome.DefaultConfigPath, "--deployer-url", "--phase", "--error", "--attempts", "--heartbeat",
		"--machine-id", "--vip ADDRESS", "--join-token-file FILE", "--secret-file FILE", "--ca-file FILE", "--timeout", "--log-level", "--version", "  77  ",
	} {
		if err != nil || !strings.Contains(help, want) {
			t.Errorf("%v: the help has no %q:\n%s", err, want, help)
		}
	}
	if _, version, err := phoneHome("--version"); err != nil || !strings.HasPrefix(version, "plasmacloud-phone-home ") {
		t.Errorf("%q, %v", version, err)
	}
}

// TestNotify: systemd hears of it once the deployer accepted.
func TestNotify(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notified.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	url, _ := realDeployer(t)
	for _, id := range []string{"node99", "node01"} { // refused, accepted
		_, _, _ = phoneHome("--config", configFor(t, id), "--deployer-url", url, "--timeout", "20s")
	}
	_ = notified.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 64)
	if n, err := notified.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("heard %q, %v", buf[:n], err)
	}
	_ = notified.SetReadDeadline(time.Now())
	if n, err := notified.Read(buf); err == nil {
		t.Errorf("heard %q as well", buf[:n])
	}
}

// TestIdentify is the command as the ISO runs it, but for the machine's name.
func TestIdentify(t *testing.T) {
	out, machine := t.TempDir(), t.TempDir()
	card := filepath.Join(machine, "sys/class/net/eth0")
	if err := os.MkdirAll(filepath.Join(card, "device"), 0o700); err != nil {
		t.Fatal(err)
	}
	table := filepath.Join(out, "nodes.json")
	config := strings.ReplaceAll(clusterConfig, "NODE", "node01")
	text, err := json.Marshal(phonehome.NodeTable{SchemaVersion: 1, Nodes: []phonehome.TableNode{{ClusterConfig: config, MACs: []string{"52:54:00:00:00:01"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{table: text, filepath.Join(card, "address"): []byte("52:54:00:00:00:01\n")} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"found":     {[]string{"--nodes", table, "--out", out, "--root", machine}, 0, "This machine is node01 (MAC address 52:54:00:00:00:01)."},
		"not found": {[]string{"--nodes", table, "--out", out, "--root", out, "--wait", "1ms"}, process.ExitFailure, "This ISO is for the node node01"},
		"no table":  {[]string{"--nodes", "/nowhere.json", "--out", out}, process.ExitConfig, "/nowhere.json"},
		"no nodes":  {[]string{"--out", out}, process.ExitUsage, "--nodes FILE"},
		"no out":    {[]string{"--nodes", table}, process.ExitUsage, "--out DIR"},
		"bad wait":  {[]string{"--nodes", table, "--out", out, "--wait", "-1s"}, process.ExitUsage, "--wait"},
		"argument":  {[]string{"x"}, process.ExitUsage, "--help"},
		"flag":      {[]string{"--node", "x"}, process.ExitUsage, "--help"},
		"help":      {[]string{"--help"}, 0, "Exit status:"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			err := run(append([]string{"identify"}, test.args...), &stdout, &stderr)
			code := 0
			var coded *process.ExitError
			if errors.As(err, &coded) {
				code = coded.Code
			} else if err != nil {
				code = process.ExitFailure
			}
			said := stdout.String() + stderr.String()
			if name == "help" {
				commandtest.Fits(t, "identify", said)
			}
			if err != nil {
				said += err.Error()
			}
			if code != test.code || !strings.Contains(said, test.says) {
				t.Errorf("exit %d, %q; want %d, %q", code, said, test.code, test.says)
			}
		})
	}
	if data, err := os.ReadFile(filepath.Join(out, phonehome.ConfigFile)); err != nil || string(data) != config {
		t.Errorf("%q, %v", data, err)
	}
}
