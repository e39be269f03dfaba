package vmtests

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/deployer/certtest"
)

// joinWorld is a deployer with TLS and tokens, and the files of one node.
type joinWorld struct {
	t   *testing.T
	dir string
	ca  *certtest.CA
	url string
	cmd *exec.Cmd
}

func (w *joinWorld) path(name string) string { return filepath.Join(w.dir, name) }

func (w *joinWorld) write(name, text string) string {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(w.path(name), []byte(text), 0o600))
	return w.path(name)
}

// start runs the deployer until it listens. Its log goes on into a file.
func (w *joinWorld) start() {
	w.t.Helper()
	w.cmd = exec.CommandContext(w.t.Context(), filepath.Join(bin, "plasmacloud-deployer"), "serve", "--config", w.path("deployer.json"))
	log, err := w.cmd.StderrPipe()
	require.NoError(w.t, err)
	require.NoError(w.t, w.cmd.Start())
	kept, err := os.OpenFile(w.path("deployer.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(w.t, err)
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			before, _ := os.ReadFile(kept.Name())
			require.NoError(w.t, err, "the deployer ended: %s%s", before, line)
		}
		_, _ = kept.WriteString(line)
		if found := regexp.MustCompile(`msg=listening addr=(\S+) scheme=https`).FindStringSubmatch(line); found != nil {
			w.url = "https://" + found[1]
			break
		}
	}
	go func() {
		_, _ = io.Copy(kept, lines)
		kept.Close()
	}()
}

func (w *joinWorld) stop() {
	w.t.Helper()
	require.NoError(w.t, w.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(w.t, w.cmd.Wait())
}

// run is the exit status of a program of ours, and what it said.
func (w *joinWorld) run(program string, args ...string) (status int, said string) {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), filepath.Join(bin, program), args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	}
	require.NoError(w.t, err)
	return 0, string(out)
}

const joinMachine = "4c4c4544-0044-4a10-8052-b4c04f503532"

// phoneHome is a report of node01.
func (w *joinWorld) phoneHome(secret string, args ...string) (status int, said string) {
	w.t.Helper()
	return w.run("plasmacloud-phone-home", append([]string{
		"--config", w.path("cluster-config.json"), "--deployer-url", w.url, "--machine-id", joinMachine,
		"--ca-file", w.ca.File, "--secret-file", w.path(secret), "--attempts", "1",
	}, args...)...)
}

// TestJoin: a machine joins over TLS with a token, is installed and runs, and
// nothing brings it off its disk or lets another be it but the operator's word.
func TestJoin(t *testing.T) {
	t.Parallel()
	w := &joinWorld{t: t, dir: t.TempDir(), ca: certtest.New(t)}
	cert, key := w.ca.Issue("deployer")
	token := func(name string) string { return name + strings.Repeat(".", 30) }
	joinToken := w.write("token", token("row2")+"\n")
	alone := w.write("alone", token("alone")+"\n")
	old := w.write("old", token("old")+"\n")
	operator := w.write("operator", token("me")+"\n")
	w.write("manifest.json", `{"data": {"schemaVersion": 1, "cluster": {"name": "one", "asn": null, "initialPeers": [], "deployerUrl": "https://deployer:8080"},
		"vips": {}, "nodes": {"node01": {"role": "worker", "ip": "10.0.0.11", "ipv6": null, "services": [], "clusterConfig": "{}",
		"configHash": "sha256:`+strings.Repeat("1", 64)+`", "labels": {}, "site": null, "identity": {"macs": [], "serial": null},
		"deployment": {"targetHost": "10.0.0.11", "targetUser": "root", "targetPort": 22, "tags": [],
			"provision": {"mode": "install", "disk": null, "script": null}}, "bgp": null, "announcer": null}}}, "failedAssertions": [], "warnings": []}`)
	w.write("cluster-config.json", `{"schema_version": 1, "cluster_name": "one", "node_id": "node01", "node_role": "worker", "node_ip": "10.0.0.11",
		"services": [], "bootstrap": false, "initial_peers": [], "bgp_asn": null, "deployer_url": "https://deployer:8080"}`)
	w.write("deployer.json", fmt.Sprintf(`{"listen": "127.0.0.1:0", "manifest": %q, "store": {"path": %q}, "tls": {"cert": %q, "key": %q},
		"tokens": {"join_file": %q, "operators_file": %q}}`, w.path("manifest.json"), w.path("state.db"), cert, key,
		w.write("join", fmt.Sprintf("row2 %s role=worker\nalone %s node=node01\nold %s expires=2026-01-01T00:00:00Z\n", token("row2"), token("alone"), token("old"))),
		w.write("operators", "me "+token("me")+" role=viewer\n")))
	w.start()

	type step struct {
		secret string // its file: the memory of one boot of the ISO, or the disk
		args   []string
		status int
		says   string
	}
	steps := func(steps ...step) {
		t.Helper()
		for _, s := range steps {
			status, said := w.phoneHome(s.secret, s.args...)
			assert.Equal(t, s.status, status, "%v: %s", s.args, said)
			assert.Contains(t, said, s.says, "%v", s.args)
		}
	}
	steps(
		step{"iso", []string{"--phase", "booted"}, 77, "401 join_token_required"},
		step{"iso", []string{"--phase", "booted", "--join-token-file", old}, 77, "401 join_token_expired"},
		step{"iso", []string{"--phase", "booted", "--join-token-file", joinToken}, 0, "node01: Provisioning"},
		// The power fails; the ISO boots anew and has forgotten its secret.
		step{"iso2", []string{"--phase", "booted", "--join-token-file", joinToken}, 0, "node01: Provisioning"},
		step{"iso2", []string{"--phase", "installing"}, 0, "node01: Provisioning"},
		step{"iso", []string{"--phase", "installing"}, 77, "401 node_secret_wrong"},
	)
	require.NoError(t, os.Link(w.path("iso2"), w.path("disk"))) // the installer takes it along
	steps(
		// What is installed is not installed again, also where it never came up.
		step{"iso2", []string{"--phase", "installed"}, 0, "node01: Provisioning"},
		step{"disk", []string{"--phase", "installing"}, 77, "409 already_provisioned"},
		step{"disk", nil, 0, "node01: Active"},
		// The ISO again: nobody installs over an active node, and none but it joins as it.
		step{"disk", []string{"--phase", "installing"}, 77, "409 already_provisioned"},
		step{"iso3", []string{"--phase", "installing", "--join-token-file", joinToken}, 77, "401 node_secret_wrong"},
		step{"iso3", []string{"--phase", "installing", "--join-token-file", alone}, 77, "409 already_provisioned"},
	)
	status, said := w.phoneHome("disk", "--ca-file", certtest.New(t).File, "--phase", "installing")
	assert.Equal(t, 1, status, "another CA: not reached is not allowed")
	assert.Contains(t, said, "certificate signed by unknown authority")

	list := []string{"node", "list", "--deployer-url", w.url, "--ca-file", w.ca.File}
	status, said = w.run("plasmactl", list...)
	assert.Equal(t, 1, status)
	assert.Contains(t, said, "operator_token_required")
	status, said = w.run("plasmactl", append(list, "--token-file", operator)...)
	assert.Equal(t, 0, status, said)
	assert.Regexp(t, `node01 +worker +10\.0\.0\.11 +Active`, said)

	// The operator's word.
	w.stop()
	status, said = w.run("plasmacloud-deployer", "reset", "node01", "--config", w.path("deployer.json"), "--reason", "new disks")
	require.Equal(t, 0, status, said)
	w.start()
	steps(
		step{"iso4", []string{"--phase", "installing"}, 77, "401 join_token_required"},
		step{"iso4", []string{"--phase", "installing", "--join-token-file", joinToken}, 0, "node01: Provisioning"},
		step{"disk", nil, 77, "401 node_secret_wrong"},
	)
	w.stop()

	log, err := os.ReadFile(w.path("deployer.log"))
	require.NoError(t, err)
	assert.Contains(t, string(log), `msg="node refused" node=node01 code=join_token_expired`)
	for _, secret := range []string{"iso", "iso2", "disk", "token", "alone", "operator"} {
		text, err := os.ReadFile(w.path(secret))
		require.NoError(t, err)
		assert.NotContains(t, string(log), strings.TrimSpace(string(text)), "%s is in the log", secret)
	}
	store, err := os.ReadFile(w.path("state.db"))
	require.NoError(t, err)
	disk, err := os.ReadFile(w.path("disk"))
	require.NoError(t, err)
	assert.NotContains(t, string(store), strings.TrimSpace(string(disk)), "the store has a secret, and not its hash")
}
