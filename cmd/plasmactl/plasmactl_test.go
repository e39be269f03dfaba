package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
)

// plasmactl runs a command line and returns its stdout, stderr and exit status.
func plasmactl(t *testing.T, args ...string) (stdout, stderr string, status int, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(t.Context())
	var coded *daemon.ExitError
	switch {
	case errors.As(err, &coded):
		status = coded.Code
	case err != nil:
		status = daemon.ExitFailure
	}
	return out.String(), errs.String(), status, err
}

const exampleFlake = "../..#three-nodes"

func TestEvalTable(t *testing.T) {
	out, _, status, err := plasmactl(t, "eval", "--flake", exampleFlake, "--lib", "offline")
	require.NoError(t, err)
	assert.Zero(t, status)
	assert.Contains(t, out, "cluster three-nodes, AS 65001, deployer http://deployer:8080")
	assert.Contains(t, out, "with the stand-in for nixpkgs' lib")
	assert.Regexp(t, `(?m)^node01  control-plane  10\.0\.0\.11  fiberlb   sha256:[0-9a-f]{12}$`, out)
	assert.Regexp(t, `(?m)^203\.0\.113\.10/32 +node01,node02,node03$`, out)
}

func TestEvalJSONAndFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "manifest.json")
	out, _, _, err := plasmactl(t, "eval", "--flake", exampleFlake, "--lib", "offline", "-o", "json", "--out", file)
	require.NoError(t, err)
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, out, string(written))
	assert.True(t, json.Valid(written))

	entries, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "no temporary file is left")
}

func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "m.json"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o600))
	require.NoError(t, os.Symlink(file, link))
	require.NoError(t, replaceFile(link, []byte("new")))

	info, err := os.Lstat(link)
	require.NoError(t, err)
	assert.NotZero(t, info.Mode()&os.ModeSymlink, "a link stays one")
	info, err = os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode(), "and its file keeps its mode")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "new", string(text))

	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	read := make(chan string)
	go func() {
		text, err := os.ReadFile(pipe)
		read <- fmt.Sprint(string(text), err)
	}()
	require.NoError(t, replaceFile(pipe, []byte("through")))
	assert.Equal(t, "through<nil>", <-read)
}

func TestACellIsOneLine(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, printTable(&out, "A\tB", [][]any{{"x\nnode02\tActive\x1b[2J", "y"}}))
	assert.Equal(t, "A                    B\nx·node02·Active·[2J  y\n", out.String())
}

// With no network, the cluster evaluates all the same and says with what.
func TestEvalFallsBackToTheStandIn(t *testing.T) {
	// A proxy that is not there makes nixpkgs unreachable wherever the test runs.
	t.Setenv("https_proxy", "http://127.0.0.1:9")
	t.Setenv("NIX_CACHE_HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	out, stderr, _, err := plasmactl(t, "eval", "--flake", exampleFlake)
	require.NoError(t, err)
	assert.Contains(t, out, "with the stand-in for nixpkgs' lib")
	assert.Contains(t, stderr, "nixpkgs cannot be reached")
}

func TestMistakes(t *testing.T) {
	broken := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(broken, "flake.nix"), []byte("{ outputs = "), 0o600))
	stranger := httptest.NewTLSServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer stranger.Close()
	cases := map[string]struct {
		args   []string
		status int
		says   []string
	}{
		"unknown command":    {[]string{"evaluate"}, 64, []string{`plasmactl has no command "evaluate"; name a command: audit, demo, eval`, "--help"}},
		"unknown subcommand": {[]string{"node", "lst"}, 64, []string{`"lst"`, "decommission, hold, list", "plasmactl node --help"}},
		"no subcommand":      {[]string{"node"}, 64, []string{"name a command: approve, decommission, hold, list"}},
		"unknown flag":       {[]string{"eval", "--flak", "."}, 64, []string{"--flak", "plasmactl eval --help"}},
		"extra argument":     {[]string{"eval", "x"}, 64, []string{"x"}},
		"output format":      {[]string{"eval", "-o", "yaml"}, 64, []string{"yaml", "table or json"}},
		"lib":                {[]string{"eval", "--lib", "x"}, 64, []string{"--lib", "auto, nixpkgs or offline"}},
		"memory":             {[]string{"eval", "--eval-memory", "1"}, 64, []string{"--eval-memory", "64 MiB"}},
		"timeout":            {[]string{"eval", "--eval-timeout", "0s"}, 64, []string{"--eval-timeout"}},
		"no flake":           {[]string{"eval", "--flake", t.TempDir()}, 1, []string{"no flake.nix", "nix/examples/three-nodes"}},
		"broken Nix":         {[]string{"eval", "--flake", broken}, 1, []string{"syntax error", "flake.nix:1"}},
		"no nix":             {[]string{"eval", "--flake", exampleFlake, "--nix", "/nowhere/nix"}, 1, []string{"/nowhere/nix", "apt-get install nix-bin"}},
		"no deployer":        {[]string{"node", "list", "--deployer-url", "http://127.0.0.1:9"}, 1, []string{"127.0.0.1:9", "refused", "--deployer-url"}},
		"nobody to follow":   {[]string{"events", "--follow", "--deployer-url", "http://127.0.0.1:9"}, 1, []string{"127.0.0.1:9", "refused", "--deployer-url"}},
		"deployer URL":       {[]string{"node", "list", "--deployer-url", "deployer:8080"}, 64, []string{"--deployer-url", "http://deployer:8080"}},
		"a CA not known":     {[]string{"node", "list", "--deployer-url", stranger.URL}, 1, []string{"no TLS with the deployer", "unknown authority; name the CA of the deployer's certificate with --ca-file"}},
		"no token file":      {[]string{"node", "list", "--token-file", "/nowhere"}, 78, []string{"--token-file or $PLASMACLOUD_TOKEN_FILE: open /nowhere"}},
		"no such state":      {[]string{"node", "list", "--state", "up"}, 64, []string{`--state "up": want Pending, Provisioning, Active, Failed, Decommissioned`}},
		"no CA file":         {[]string{"node", "list", "--ca-file", "/nowhere"}, 78, []string{"CA: open /nowhere"}},
		"node missing":       {[]string{"node", "show"}, 64, []string{"plasmactl node show NODE", "plasmactl node show --help"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			out, _, status, err := plasmactl(t, c.args...)
			require.Error(t, err)
			assert.Equal(t, c.status, status, err)
			for _, part := range c.says {
				assert.ErrorContains(t, err, part)
			}
			assert.Empty(t, out)
		})
	}
}

func deployerStandIn(t *testing.T) string {
	t.Helper()
	node := `{"node_id": "node01", "role": "worker", "ip": "10.0.0.11", "declared": true, "state": "%s", "since": "2026-01-02T03:04:05Z",
		"attempt": 2, "reachability": "offline", "last_seen": "2026-01-02T03:04:05Z", "config": "drifted",
		"config_hash": "sha256:aa", "reported_hash": "sha256:bb", "last_error": {"at": "2026-01-02T03:04:05Z", "message": "no disk"},
		"machine_id": "m1", "hostname": "h1", "facts": {"macs": "52:54:00:00:00:01,52:54:00:00:00:02", "serial": "S1"}, "vips": ["203.0.113.10/32"],
		"history": [{"at": "2026-01-02T03:04:05Z", "from": "a", "to": "b", "event": "failed", "reason": "no disk"}]}`
	node = fmt.Sprintf(node, "Failed")
	mux := http.NewServeMux()
	answer := func(path, kind, body string, status int) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		})
	}
	answer("/api/v1/nodes", "application/json", `{"nodes": [`+node+`]}`, http.StatusOK)
	answer("/api/v1/nodes/node01", "application/json", node, http.StatusOK)
	answer("/", "application/problem+json", `{"title": "Not found", "status": 404, "code": "not_found", "detail": "there is no node nope"}`, http.StatusNotFound)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func TestNode(t *testing.T) {
	url := deployerStandIn(t)

	out, _, _, err := plasmactl(t, "node", "list", "--deployer-url", url)
	require.NoError(t, err)
	assert.Regexp(t, `(?m)^node01  worker  10\.0\.0\.11  Failed  offline +drifted  \d+h.* ago  no disk$`, out)

	out, _, _, err = plasmactl(t, "node", "show", "node01", "--deployer-url", url)
	require.NoError(t, err)
	for _, part := range []string{"Failed since", "sha256:aa", "sha256:bb", "no disk", "h1 m1", "52:54:00:00:00:01, 52:54:00:00:00:02", "S1", "203.0.113.10/32"} {
		assert.Contains(t, out, part)
	}

	out, _, _, err = plasmactl(t, "node", "list", "--deployer-url", url, "-o", "json")
	require.NoError(t, err)
	assert.Contains(t, out, `"last_error"`)

	_, _, status, err := plasmactl(t, "node", "show", "nope", "--deployer-url", url)
	assert.ErrorContains(t, err, "there is no node nope")
	assert.Equal(t, daemon.ExitFailure, status)

	t.Setenv(deployerURLVariable, url)
	out, _, _, err = plasmactl(t, "__complete", "node", "show", "")
	require.NoError(t, err)
	assert.Contains(t, out, "node01\n")
}
