package vmtests

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// plasmactlLab runs plasmactl lab with gobgpd v4, and returns its stdout, stderr and status.
func plasmactlLab(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	verb := args[0]
	args = append([]string{"lab"}, args...)
	if verb == "run" || verb == "up" {
		args = append(args, "--lib", "offline", "--gobgpd", filepath.Join(bin, "v4", "gobgpd"))
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(bin, "plasmactl"), args...)
	var out, errs = new(tail), new(tail)
	cmd.Stdout, cmd.Stderr = out, errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	return string(*out), string(*errs), cmd.ProcessState.ExitCode()
}

type tail []byte

func (b *tail) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// labReport is what the tests look at of `lab run -o json`.
type labReport struct {
	OK     bool `json:"ok"`
	Checks []struct {
		Where, What, Reason string
		OK                  bool `json:"ok"`
	} `json:"checks"`
	Routers map[string]string `json:"routers"`
	Instead []string          `json:"instead"`
}

// The example as it is, with each kind of router.
func TestLabRun(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"bird", "frr", "gobgp"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			out, errs, status := plasmactlLab(t, "run", "--flake", "..#three-nodes", "--routers", kind, "--name", "t-"+kind, "-o", "json")
			require.Zero(t, status, "%s%s", out, errs)
			var report labReport
			require.NoError(t, json.Unmarshal([]byte(out), &report))
			assert.True(t, report.OK)
			assert.Equal(t, map[string]string{"router1": kind, "router2": kind}, report.Routers)
			// Of each router its links, three VIPs and nothing else; of each node what it
			// holds, and what the deployer says of the nodes and of the VIPs.
			assert.Len(t, report.Checks, 2*(1+3+1)+3*(1+2)+3)
		})
	}
}

// A machine whose daemon is told something else than the cluster says: each thing that
// is not so is told with its reason, and what is left is kept.
func TestLabRunOfABrokenMachine(t *testing.T) {
	t.Parallel()
	flake := flakeOf(t, `{ lib, ... }: {
		plasmacloud.cluster = {
			name = "broken";
			nodes.a = { role = "control-plane"; ip = "192.0.2.5"; services = [ "fiberlb" ]; };
			nodes.b = { role = "worker"; ip = "192.0.2.6"; services = [ "fiberlb" ]; };
			bootstrap.initialPeers = [ "a" ];
			bgp = { asn = 65001; peers.r = { address = "192.0.2.1"; asn = 65000; }; };
		};
		plasmacloud.network.fiberlbBgp = { enable = true; vips = [ { address = "198.51.100.7"; communities = [ "65001:7" ]; } ]; };
	}`)
	text, err := os.ReadFile(filepath.Join(flake[1], "flake.nix"))
	require.NoError(t, err)
	broken := []byte(replaceOnce(t, string(text), "modules = [ ./cluster.nix ];", `modules = [ ./cluster.nix ];
      nodeModules.b = { lib, ... }: { services.gobgpd.settings.neighbors = lib.mkForce [ ]; };`))
	require.NoError(t, os.WriteFile(filepath.Join(flake[1], "flake.nix"), broken, 0o600))
	artifacts, junit := t.TempDir(), filepath.Join(t.TempDir(), "lab.xml")
	out, errs, status := plasmactlLab(t, append(append([]string{"run"}, flake...), "--patience", "3s", "--artifacts", artifacts, "--junit", junit)...)
	require.Equal(t, 1, status, "%s%s", out, errs)
	assert.Regexp(t, `(?m)^FAIL  r +2 BGP sessions are up\n +1 are up$`, out)
	assert.Regexp(t, `(?m)^FAIL  r +198.51.100.7/32 via a, b: AS path 65001, communities 65001:7\n +no route via b \(192.0.2.6\)$`, out)
	assert.Regexp(t, `(?m)^ok    r +no other route$`, out)
	assert.Contains(t, out, "2 of 10 checks failed")
	assert.Contains(t, errs, "the cluster does not do what its definition says")
	for _, file := range []string{"a/gobgpd.json", "a/announcer.log", "b/network.txt", "r/table.txt", "r/bird.conf"} {
		assert.FileExists(t, filepath.Join(artifacts, "lab", file))
	}
	assertBGP(t, filepath.Join(artifacts, "lab", "r", "bgp.pcap"), netip.MustParsePrefix("198.51.100.7/32"))

	var suites struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
	}
	text, err = os.ReadFile(junit)
	require.NoError(t, err)
	require.NoError(t, xml.Unmarshal(text, &suites))
	assert.Equal(t, 10, suites.Tests)
	assert.Equal(t, 2, suites.Failures)
}

// assertBGP looks whether a capture has messages of BGP (RFC 4271), and one with the prefix.
func assertBGP(t *testing.T, file string, prefix netip.Prefix) {
	t.Helper()
	packets, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Greater(t, len(packets), 24)
	assert.Equal(t, "\xd4\xc3\xb2\xa1", string(packets[:4]), "of pcap")
	assert.Contains(t, string(packets), strings.Repeat("\xff", 16)+"\x00", "the marker of a message")
	assert.Contains(t, string(packets), string(append([]byte{byte(prefix.Bits())}, prefix.Addr().AsSlice()...)))
}

// Scenarios that pass and that fail, through plasmactl: how often each was played, what it
// lost, its picture, and what is left of each failure. A cluster that changes under load, by
// communities, a drain delay and a VIP more, loses nothing.
func TestLabRunPlays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cluster, err := os.ReadFile("../nix/examples/three-nodes/cluster.nix")
	require.NoError(t, err)
	changed := replaceOnce(t, string(cluster), `"203.0.113.20"`, `{ address = "203.0.113.20"; communities = [ "64496:1" ]; drainDelay = "9s"; } "203.0.113.21"`)
	stories := map[string]string{
		"change": "# All changes.\ncluster start\ncluster settled\nclient pulls $VIP\ncluster reload new.nix\nrouter has 203.0.113.21 via all\ncluster settled\nwait 500ms\nclient stops\nclient lost none\n-- new.nix --\n" + changed,
		"fails":  "cluster start\ncluster settled\ncheck fail node01 /nothing\nwait 1h\n",
		"again":  "cluster start\ncluster settled\nrouter has 203.0.113.21\n",
	}
	args := append(append([]string{"run"}, flakeOf(t, string(cluster))...), "--name", "t-plays", "--runs", "2", "--svg", filepath.Join(dir, "it.svg"),
		"--junit", filepath.Join(dir, "it.xml"), "--artifacts", filepath.Join(dir, "left"), "-o", "json")
	for _, name := range []string{"change", "fails", "again"} {
		file := filepath.Join(dir, name+".txtar")
		require.NoError(t, os.WriteFile(file, []byte(stories[name]), 0o600))
		args = append(args, file)
	}
	out, errs, status := plasmactlLab(t, args...)
	require.Equal(t, 1, status, "%s%s", out, errs)
	var report struct {
		OK        bool
		Artifacts []string
		Scenarios []struct {
			Name, Error string
			Run         int
			Clients     []struct{ Tally labcluster.Tally }
		}
		Times []struct {
			Scenario string
			Runs     int
		}
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	assert.False(t, report.OK)
	var played []string
	for _, s := range report.Scenarios {
		played = append(played, fmt.Sprintf("%s-%d %s", s.Name, s.Run, s.Error))
		for _, client := range s.Clients {
			assert.Greater(t, client.Tally.Requests, 10)
			assert.Zero(t, client.Tally.Lost)
		}
	}
	require.Len(t, played, 4, "what failed is not played again: %s", errs)
	assert.Equal(t, []string{"change-1 ", "change-2 "}, played[:2])
	assert.Contains(t, played[2], "fails-1 line 3: check fail node01 /nothing: no check of node01 asks /nothing; they ask: ")
	assert.Contains(t, played[3], "again-1 line 3: router has 203.0.113.21: no router is ever told of 203.0.113.21")
	assert.Len(t, report.Scenarios[0].Clients, 2, "behind each router")
	require.NotEmpty(t, report.Times)
	for _, times := range report.Times {
		assert.Equal(t, "change", times.Scenario)
		assert.Equal(t, 2, times.Runs)
	}
	assert.Equal(t, []string{filepath.Join(dir, "left", "fails-1"), filepath.Join(dir, "left", "again-1")}, report.Artifacts)
	for _, left := range report.Artifacts {
		for _, router := range []string{"router1", "router2"} {
			assertBGP(t, filepath.Join(left, router, "bgp.pcap"), netip.MustParsePrefix("203.0.113.20/32"))
		}
	}
	picture, err := os.ReadFile(filepath.Join(dir, "it.svg"))
	require.NoError(t, err)
	assert.Contains(t, string(picture), "All changes.")
	junit, err := os.ReadFile(filepath.Join(dir, "it.xml"))
	require.NoError(t, err)
	assert.Contains(t, string(junit), `<testsuites tests="`)
	assert.Contains(t, string(junit), `name="line 3: check fail node01 /nothing"`)
	assert.Empty(t, left(t, "t-plays"))
}

func TestLabRunOfAWrongCluster(t *testing.T) {
	t.Parallel()
	_, errs, status := plasmactlLab(t, append([]string{"run"}, flakeOf(t, `{ plasmacloud.cluster = { name = "mine"; nodes.a = { role = "worker"; ip = "10.0.0.1"; }; }; }`)...)...)
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, "fails its assertions")
	assert.Contains(t, errs, "control-plane")

	_, errs, status = plasmactlLab(t, "run", "--flake", t.TempDir())
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, "no flake.nix")

	_, errs, status = plasmactlLab(t, "run", "--flake", "..#three-nodes", "no-such-story")
	assert.Equal(t, 64, status)
	assert.Contains(t, errs, `there is no scenario "no-such-story"`)
}

func replaceOnce(t *testing.T, text, old, replacement string) string {
	t.Helper()
	require.Contains(t, text, old)
	return strings.Replace(text, old, replacement, 1)
}

// In CI: what the daemons say of their files too, with what was evaluated before, as
// lib.labCheck does in a virtual machine without Nix.
func TestLabOfWhatWasEvaluated(t *testing.T) {
	t.Parallel()
	file := evaluatedWith(t, "{ }")
	run := func(credential *syscall.Credential) (stdout, stderr string, status int) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "plasmactl"), "test", "--evaluated", file, "--name", "t-evaluated",
			"--gobgpd", filepath.Join(bin, "v4", "gobgpd"), "-o", "json")
		cmd.Env = append(os.Environ(), "NIX_REMOTE=", "HOME=/nonexistent")
		cmd.Dir = filepath.Dir(file)
		return runAs(t, cmd, credential)
	}
	out, errs, status := run(nil)
	require.Zero(t, status, "%s%s", out, errs)
	var report labReport
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	assert.True(t, report.OK)
	assert.Equal(t, "gobgpd takes its configuration", report.Checks[0].What)
	assert.Equal(t, "plasmacloud-announcer takes its configuration", report.Checks[1].What)

	// And the same for a user who is not root, in a user namespace, or a word about it
	// where the kernel gives none.
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	_, _, refused := runAs(t, exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--net", "--mount", "true"), nobody)
	out, errs, status = run(nobody)
	if refused != 0 {
		assert.Equal(t, 1, status)
		assert.Contains(t, errs, "this kernel gives no user namespace to others: run it as root")
		return
	}
	require.Zero(t, status, "%s%s", out, errs)
	assert.Contains(t, errs, "the lab runs in a user namespace")
	report = labReport{}
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	assert.True(t, report.OK)
	assert.Empty(t, left(t, "t-evaluated"))

	// A lab stands for this user too; killed, it goes away from outside, and leaves alone
	// who looks at its files.
	home := readableDir(t)
	require.NoError(t, os.Chmod(home, 0o777))
	t.Cleanup(func() {
		_, _, _ = runAs(t, exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(bin, "plasmactl"), "lab", "down", "--name", "t-user"), nobody)
	})
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", `
		lab() { verb=$1; shift; "$PLASMACTL" lab $verb --name t-user "$@"; }
		lab up --evaluated "$EVALUATED" --gobgpd "$GOBGPD"
		lab status
		lab exec node01 -- ip -o address show dev eth0
		lab capture node01:mgmt --for 1500ms --write it.pcap
		grep -c "POST /api/v1/phone-home" it.pcap
		dir=/tmp/plasmacloud-lab-t-user-0
		tail -f $dir/node01/announcer.log > tail.log & looks=$!
		kill -9 $(cat $dir/lab.pid)
		lab down
		kill $looks
		wait $looks || echo "ended by $?"`)
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR=/tmp", "PLASMACTL="+filepath.Join(bin, "plasmactl"), "EVALUATED="+file, "GOBGPD="+filepath.Join(bin, "v4", "gobgpd"))
	cmd.Dir = home
	out, errs, status = runAs(t, cmd, nobody)
	require.Zero(t, status, "%s%s", out, errs)
	assert.Contains(t, out, "10.0.0.11/24")
	assert.Contains(t, out, "lab t-user is down\nended by 143\n", "by the test's own signal")
	assert.Empty(t, left(t, "t-user"))
}

// readableDir is a folder for the test that other users can look into.
func readableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "plasmacloud-vmtests-")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// runAs runs a command as another user. Where the tests run in a user namespace that
// has no other one, the command gets a namespace in which it is not root.
func runAs(t *testing.T, cmd *exec.Cmd, credential *syscall.Credential) (stdout, stderr string, status int) {
	t.Helper()
	if ids, err := os.ReadFile("/proc/self/uid_map"); err == nil && credential != nil && len(strings.Fields(string(ids))) == 3 && strings.Fields(string(ids))[2] == "1" {
		path, err := exec.LookPath("unshare")
		require.NoError(t, err)
		cmd.Args = append([]string{path, "--user", fmt.Sprintf("--map-user=%d", credential.Uid), "--", cmd.Path}, cmd.Args[1:]...)
		cmd.Path, credential = path, nil
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	out, errs := new(tail), new(tail)
	cmd.Stdout, cmd.Stderr = out, errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	return string(*out), string(*errs), cmd.ProcessState.ExitCode()
}

// What is not done in time has failed, with all that was found until then.
func TestLabRunOutOfTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	story := filepath.Join(dir, "long.txtar")
	require.NoError(t, os.WriteFile(story, []byte("# It never ends.\ncluster start\ncluster settled\nwait 1h\n"), 0o600))
	junit := filepath.Join(dir, "lab.xml")
	begin := time.Now()
	out, errs, status := plasmactlLab(t, "run", "--flake", "..#three-nodes", "--name", "t-long", story, "--timeout", "12s", "--junit", junit, "--artifacts", dir)
	assert.Equal(t, 1, status, "%s%s", out, errs)
	assert.Less(t, time.Since(begin), time.Minute)
	text, err := os.ReadFile(junit)
	require.NoError(t, err)
	assert.Contains(t, string(text), "not done after 12s, the --timeout")
	assert.Empty(t, left(t, "t-long"))
}
