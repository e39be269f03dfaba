package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store/bolt"
	"github.com/centra/plasmacloud/deployer/tokens"
)

// guardedCluster is a deployer with operators and four declared nodes, of which the first two are
// in rack a1.
type guardedCluster struct {
	t        *testing.T
	url      string
	client   *api.Client
	flags    []string // of an admin
	registry *deployer.Registry
	away     atomic.Bool // another program is at its address
}

const adminToken = "admin-0123456789abcdef0123456789abcdef"

func newCluster4(t *testing.T) *guardedCluster {
	dir := t.TempDir()
	s, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "state.db")})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	log := slog.New(slog.DiscardHandler)
	registry, err := deployer.New(t.Context(), deployer.Config{Store: s, Logger: log, Approval: node.ApproveUndeclared, AllowUnknownNodes: true})
	require.NoError(t, err)
	var nodes []node.Declaration
	for i := range 4 {
		rack := map[string]string{"rack": fmt.Sprintf("a%d", 1+i/2), "ssd": ""}
		nodes = append(nodes, node.Declaration{ID: fmt.Sprintf("node%02d", i+1), Role: "worker", Labels: rack})
	}
	_, err = registry.Declare(t.Context(), nodes)
	require.NoError(t, err)
	operators, token := filepath.Join(dir, "operators"), filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(operators, []byte("alice "+adminToken+" role=admin\n"), 0o600))
	require.NoError(t, os.WriteFile(token, []byte(adminToken+"\n"), 0o600))
	file, err := tokens.Open(tokens.Operators, operators)
	require.NoError(t, err)
	f := &guardedCluster{t: t, registry: registry}
	whole := server.New(server.Config{Registry: registry, Logger: log, Version: "v1", Operators: file})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.away.Load() {
			http.NotFound(w, r)
			return
		}
		whole.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	f.client, err = api.NewClient(web.URL, 10*time.Second, http.DefaultTransport)
	require.NoError(t, err)
	f.url, f.flags = web.URL, []string{"--deployer-url", web.URL, "--token-file", token}
	return f
}

func (f *guardedCluster) says(id string, phase node.Phase) {
	f.t.Helper()
	request := api.PhoneHomeRequest{NodeID: id, Phase: phase, Role: "worker", MachineID: "machine-of-" + id}
	if phase == node.PhaseFailed {
		request.Error = "no disk larger than 20 GB was found in this machine, which has none at all"
	}
	_, err := f.client.PhoneHome(f.t.Context(), request)
	require.NoError(f.t, err)
}

// run is a command line that has to succeed.
func (f *guardedCluster) run(args ...string) string {
	f.t.Helper()
	out, _, _, err := plasmactl(f.t, append(args, f.flags...)...)
	require.NoError(f.t, err, args)
	return out
}

func (f *guardedCluster) fails(status int, args ...string) (out string, err error) {
	f.t.Helper()
	out, _, got, err := plasmactl(f.t, append(args, f.flags...)...)
	require.Error(f.t, err, args)
	assert.Equal(f.t, status, got, err)
	return out, err
}

func TestNodeVerbs(t *testing.T) {
	f := newCluster4(t)
	for _, id := range []string{"node01", "node02"} {
		f.says(id, node.PhaseFailed)
	}
	f.says("node03", node.PhaseReady)
	f.says("stranger1", node.PhaseBooted)
	f.says("stranger2", node.PhaseBooted)

	out := f.run("node", "hold", "node03", "--reason", "new disks")
	assert.Regexp(t, `(?m)^node03  Active  held by alice since \S+: new disks$`, out)
	assert.Regexp(t, `(?m)^node03 .* held: new disks$`, f.run("node", "list"))
	out = f.run("node", "release", "--all", "--yes", "-o", "json")
	var done struct {
		Nodes  []api.Node `json:"nodes"`
		Failed []struct {
			ID   string `json:"node_id"`
			Code string `json:"code"`
		} `json:"failed"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &done))
	require.Len(t, done.Nodes, 1, "of all those that are held")
	assert.Equal(t, "node03", done.Nodes[0].ID)

	out, err := f.fails(daemon.ExitFailure, "node", "retry", "node01", "node03", "--yes")
	assert.ErrorContains(t, err, "retry failed for 1 of 2 nodes")
	assert.Regexp(t, `(?m)^node01  Provisioning`, out)
	assert.Regexp(t, `(?m)^node03  wrong_state .*only a Failed node is retried`, out)
	_, err = f.fails(daemon.ExitFailure, "node", "retry", "node03")
	assert.ErrorContains(t, err, "wrong_state")
	_, err = f.fails(daemon.ExitFailure, "node", "hold", "nope")
	assert.ErrorContains(t, err, "knows no node nope")
	_, err = f.fails(daemon.ExitFailure, "node", "hold", "node01", "nope", "--yes")
	assert.ErrorContains(t, err, "nothing was done")

	out = f.run("node", "approve", "--all", "--yes")
	assert.Equal(t, 3, strings.Count(out, "\n"), out)
	_, stderr, _, err := plasmactl(t, append([]string{"node", "approve", "--all", "--yes"}, f.flags...)...)
	require.NoError(t, err, "once more")
	assert.Equal(t, "there is no node to approve among those that are selected\n", stderr)
	f.says("stranger1", node.PhaseReady)
	assert.Regexp(t, `(?m)^stranger1 .* Active`, f.run("node", "list"))

	out = f.run("node", "decommission", "--selector", "rack=a2", "--reason", "sold", "--yes")
	assert.Regexp(t, `(?m)^node03  Decommissioned.*\nnode04  Decommissioned`, out)
	assert.Regexp(t, `(?m)^node03 .* has not acknowledged it$`, f.run("node", "list", "--state", "decommissioned"))
	out = f.run("node", "show", "node03")
	assert.Regexp(t, `Acknowledged: +never`, out)
	assert.Regexp(t, `Labels: +rack=a2, ssd=`, out)
	assert.Regexp(t, `decommission +alice +sold`, out)
	assert.Contains(t, f.run("node", "reset", "node03"), "Pending")
	out = f.run("events", "--node", "node03")
	assert.Regexp(t, `(?m)decommission  Active -> Decommissioned +by alice: sold$`, out)
	assert.Regexp(t, `(?m)reset         Decommissioned -> Pending +by alice$`, out)

	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"nothing named":   {[]string{"hold"}, "name a node, or select some"},
		"both":            {[]string{"hold", "node01", "--all"}, "not both"},
		"no terminal":     {[]string{"hold", "--all"}, "no terminal to ask on; add --yes"},
		"two, no yes":     {[]string{"hold", "node01", "node02"}, "add --yes"},
		"no such state":   {[]string{"list", "--state", "asleep"}, "--state \"asleep\""},
		"no label":        {[]string{"list", "--selector", "=x"}, "want LABEL=VALUE"},
		"a long reason":   {[]string{"hold", "node01", "--reason", strings.Repeat("x", 513)}, "--reason: at most"},
		"an unknown verb": {[]string{"explode", "node01"}, "explode"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.fails(daemon.ExitUsage, append([]string{"node"}, test.args...)...)
			assert.ErrorContains(t, err, test.says)
		})
	}
	out, _, _, err = plasmactl(t, append(append([]string{"__complete", "node", "hold"}, f.flags...), "")...)
	require.NoError(t, err)
	assert.Contains(t, out, "node01\nnode02\nnode03\nnode04\nstranger1\nstranger2\n")
}

// TestApproveWhatWasSeen: where no machine was seen, one that comes before the order does is
// not approved by it.
func TestApproveWhatWasSeen(t *testing.T) {
	f := newCluster4(t)
	behind, err := url.Parse(f.url)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(behind)
	meanwhile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			f.says("stranger", node.PhaseBooted) // another machine
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(meanwhile.Close)
	f.says("stranger", node.PhaseBooted)
	f.run("node", "reset", "stranger")
	f.flags[1] = meanwhile.URL
	_, err = f.fails(daemon.ExitFailure, "node", "approve", "stranger")
	assert.ErrorContains(t, err, node.CodeWrongMachine)
	f.flags[1] = f.url
	assert.Regexp(t, `(?m)^stranger .* Pending .* waits`, f.run("node", "list"))
	_, err = f.fails(daemon.ExitFailure, "node", "approve", "node04")
	assert.ErrorContains(t, err, node.CodeWrongState)
}

func TestSelectors(t *testing.T) {
	f := newCluster4(t)
	f.says("node02", node.PhaseReady)
	for args, want := range map[string]string{
		"":                               "node01 node02 node03 node04",
		"-l rack=a1":                     "node01 node02",
		"-l rack=a1 -l ssd":              "node01 node02",
		"-l rack=a1 --state active":      "node02",
		"-l rack":                        "node01 node02 node03 node04",
		"-l gpu":                         "",
		"-l rack=":                       "",
		"--role worker --state Pending":  "node01 node03 node04",
		"--role control-plane":           "",
		"--selector rack=a1 -l rack=a2 ": "",
	} {
		var list api.NodeList
		require.NoError(t, json.Unmarshal([]byte(f.run(append([]string{"node", "list", "-o", "json"}, strings.Fields(args)...)...)), &list))
		var ids []string
		for _, n := range list.Nodes {
			ids = append(ids, n.ID)
		}
		assert.Equal(t, want, strings.Join(ids, " "), args)
	}
}

func TestTokenStatusAudit(t *testing.T) {
	f := newCluster4(t)
	f.says("node01", node.PhaseFailed)
	out, stderr, _, err := plasmactl(t, append([]string{"token", "create", "row2", "--expires", "24h", "--uses", "40", "--role", "worker"}, f.flags...)...)
	require.NoError(t, err)
	assert.Regexp(t, `^row2\.[0-9a-f]{64}\n$`, out)
	assert.Regexp(t, `^token row2 for role worker, 40 uses, expires \d{4}-`, stderr)
	assert.NotContains(t, stderr, strings.TrimSpace(out))
	assert.Regexp(t, `(?m)^row2  role worker  0/40  \d{4}-\S+ \S+  \S+ by alice  never$`, f.run("token", "list"))
	assert.NotContains(t, f.run("token", "list", "-o", "json"), out[5:20])
	assert.Equal(t, "row2: revoked\n", f.run("token", "revoke", "row2"))
	_, err = f.fails(daemon.ExitFailure, "token", "revoke", "row2")
	assert.ErrorContains(t, err, "no join token row2; plasmactl token list")
	f.run("token", "create", "row3")
	assert.JSONEq(t, `{"name": "row3", "revoked": true}`, f.run("token", "revoke", "row3", "-o", "json"))
	for _, bad := range [][]string{{"--expires", "soon"}, {"--expires", "-1h"}, {"--uses", "0"}} {
		_, _ = f.fails(daemon.ExitUsage, append([]string{"token", "create", "x"}, bad...)...)
	}

	out = f.run("status")
	assert.Regexp(t, `(?m)^Nodes: +4$`, out)
	assert.Regexp(t, `(?m)^  Failed: +1$`, out)
	assert.Regexp(t, `(?s)TO LOOK AFTER\n1 Failed: node01\n`, out)
	var status api.Status
	require.NoError(t, json.Unmarshal([]byte(f.run("status", "-o", "json")), &status))
	assert.Equal(t, map[node.State]int{node.Failed: 1, node.Pending: 3}, status.States)

	out = f.run("audit")
	assert.Regexp(t, `(?m)alice  127\.0\.0\.1  token-create  row2  done$`, out)
	assert.Regexp(t, `(?m)alice  127\.0\.0\.1  token-revoke  row2  done$`, out)
	assert.Equal(t, 4, strings.Count(f.run("audit", "-o", "json"), "\n"))
}

// at runs a command line on a terminal, and gives its end.
func (f *guardedCluster) at(ctx context.Context, tty *os.File, args ...string) <-chan error {
	root := rootCommand()
	root.SetArgs(append(args, f.flags...))
	root.SetIn(tty)
	root.SetOut(tty)
	root.SetErr(tty)
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()
	return ended
}

// TestTerminal: on a terminal rows fit, colours are there where they are wanted, and what
// is done to many is asked for.
func TestTerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	f := newCluster4(t)
	f.says("node01", node.PhaseFailed)
	const width = 100
	tty, person, types := terminal(t, width, 40)
	require.NoError(t, <-f.at(t.Context(), tty, "node", "list"))
	require.Eventually(t, func() bool { return strings.Contains(person.String(), "node04") }, 10*time.Second, time.Millisecond)
	text := person.String()
	assert.Contains(t, text, "\x1b[31mFailed")
	assert.Contains(t, text, "no disk larger than")
	assert.Contains(t, text, "…")
	for line := range strings.Lines(text) {
		for _, style := range []string{"0", bold, red, green, yellow} {
			line = strings.ReplaceAll(line, "\x1b["+style+"m", "")
		}
		assert.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\r\n"))), width, line)
	}
	t.Setenv("NO_COLOR", "1")
	require.NoError(t, <-f.at(t.Context(), tty, "status"))
	require.Eventually(t, func() bool { return strings.Contains(person.String(), "TO LOOK AFTER") }, 10*time.Second, time.Millisecond)
	assert.NotContains(t, person.String()[len(text):], "\x1b[")

	ended := f.at(t.Context(), tty, "node", "hold", "--selector", "rack=a1")
	require.Eventually(t, func() bool { return strings.Contains(person.String(), "hold these 2 nodes? [y/N]") }, 10*time.Second, time.Millisecond)
	assert.Contains(t, person.String(), "machine-of-node01")
	types("n\n")
	require.ErrorContains(t, <-ended, "nothing was done")
	ended = f.at(t.Context(), tty, "node", "hold", "--selector", "rack=a1")
	types("yes\n")
	require.NoError(t, <-ended)
	assert.Equal(t, 2, strings.Count(f.run("node", "list", "-o", "json"), `"held"`))
}

// TestWatch: what happens is there at once, over what was there before.
func TestWatch(t *testing.T) {
	f := newCluster4(t)
	tty, person, _ := terminal(t, 120, 4)
	var plain, troubles lockedBuffer
	ctx, stop := context.WithCancel(t.Context())
	root := rootCommand()
	root.SetArgs(append([]string{"node", "list", "--watch"}, f.flags...))
	root.SetOut(&plain)
	root.SetErr(&troubles)
	elsewhere := make(chan error, 1)
	go func() { elsewhere <- root.ExecuteContext(ctx) }()
	ended := f.at(ctx, tty, "node", "list", "--watch")
	sees := func(b *lockedBuffer, text string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(b.String(), text) }, 20*time.Second, 5*time.Millisecond)
	}
	sees(person, "… and 3 more")
	sees(&plain, "node04")
	f.says("node01", node.PhaseReady)
	sees(person, "Active")
	sees(&plain, "Active")
	f.away.Store(true) // but for those who follow the events
	_, err := f.registry.Operate(t.Context(), "node02", node.EventHold, deployer.Operator{Name: "bob"}, "")
	require.NoError(t, err)
	sees(person, "not_a_deployer")
	sees(&troubles, "not_a_deployer")
	stop()
	require.NoError(t, <-ended)
	require.NoError(t, <-elsewhere)
	assert.Contains(t, person.String(), "\x1b[H")
	assert.NotContains(t, plain.String(), "\x1b")
	assert.Equal(t, 2, strings.Count(plain.String(), "REMARK"), plain.String())
	assert.NotContains(t, plain.String(), "not_a_deployer", "that is no output")

	_, _, _, err = plasmactl(t, "status", "--watch", "--deployer-url", "http://127.0.0.1:9")
	assert.ErrorContains(t, err, "no answer from a deployer")
}

func TestColumns(t *testing.T) {
	for name, test := range map[string]struct {
		cells [][]string
		width int
		want  []int
	}{
		"no terminal":      {[][]string{{"a", strings.Repeat("b", 500)}}, 0, []int{1, 500}},
		"fits":             {[][]string{{"a", "bbb"}}, 6, []int{1, 3}},
		"the widest gives": {[][]string{{"aaaa", "bbbbbbbbbb", "cc"}}, 16, []int{4, 6, 2}},
		"the last first":   {[][]string{{"aaaaaaaa", "bbbbbbbb"}}, 17, []int{8, 7}},
		"hopeless":         {[][]string{{"aaaaaaaa", "bbbbbbbb"}}, 3, []int{4, 4}},
		"nothing":          {nil, 80, nil},
	} {
		assert.Equal(t, test.want, columns(test.cells, test.width), name)
	}
	assert.Equal(t, "äöü…", cut("äöüßx", 4))
	var out bytes.Buffer
	require.NoError(t, printTable(&out, "", [][]any{{"x", ""}, {"", "y"}}))
	assert.Equal(t, "x\n   y\n", out.String())
}
