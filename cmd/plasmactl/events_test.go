package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// realDeployer is one in a process of its own, with any node let in.
func realDeployer(t *testing.T) (url string, client *api.Client) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "plasmacloud-deployer")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../plasmacloud-deployer").CombinedOutput()
	require.NoError(t, err, string(out))
	config := filepath.Join(dir, "deployer.json")
	require.NoError(t, os.WriteFile(config, []byte(`{"manifest": "", "allow_unknown_nodes": true}`), 0o600))
	cmd := exec.CommandContext(t.Context(), program, "serve", "--config", config, "--listen", "127.0.0.1:0", "--store", filepath.Join(dir, "state.db"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if at := regexp.MustCompile(`msg=listening addr=(\S+)`).FindStringSubmatch(lines.Text()); at != nil {
			url = "http://" + at[1]
			client, err = api.NewClient(url, 10*time.Second, http.DefaultTransport)
			require.NoError(t, err)
			return url, client
		}
	}
	t.Fatal("the deployer does not listen")
	return "", nil
}

// lockedBuffer may be written and read at the same time.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestEvents(t *testing.T) {
	url, client := realDeployer(t)
	report := func(id string, phase node.Phase) {
		t.Helper()
		_, err := client.PhoneHome(t.Context(), api.PhoneHomeRequest{NodeID: id, Phase: phase, Role: "worker"})
		require.NoError(t, err)
	}
	report("node01", node.PhaseBooted)
	report("node02", node.PhaseReady)
	_, err := client.PhoneHome(t.Context(), api.PhoneHomeRequest{NodeID: "node02", Phase: node.PhaseInstalling})
	require.Error(t, err)

	out, _, _, err := plasmactl(t, "events", "--deployer-url", url)
	require.NoError(t, err)
	assert.Regexp(t, `(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  node01        booted        Pending -> Provisioning {5}\S`, out)
	assert.Regexp(t, `(?m)^.{19}  node02        refused       already_provisioned {9}\S`, out)
	out, _, _, err = plasmactl(t, "events", "--deployer-url", url, "--node", "node01")
	require.NoError(t, err)
	assert.Equal(t, 1, strings.Count(out, "\n"), out)

	out, _, _, err = plasmactl(t, "events", "--deployer-url", url, "-o", "json")
	require.NoError(t, err)
	first, _, _ := strings.Cut(out, "\n")
	var e api.Event
	require.NoError(t, json.Unmarshal([]byte(first), &e))
	assert.Equal(t, "node01", e.NodeID)

	var followed lockedBuffer
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	root := rootCommand()
	root.SetArgs([]string{"events", "--deployer-url", url, "--follow", "--after", e.Cursor, "-o", "json"})
	root.SetOut(&followed)
	go func() { ended <- root.ExecuteContext(ctx) }()
	has := func(text string) func() bool { return func() bool { return strings.Contains(followed.String(), text) } }
	require.Eventually(t, has("already_provisioned"), 20*time.Second, 5*time.Millisecond)
	report("node03", node.PhaseReady)
	require.Eventually(t, has(`"node03"`), 20*time.Second, 5*time.Millisecond)
	stop()
	require.NoError(t, <-ended)
	assert.NotContains(t, followed.String(), `"node01"`)

	for args, want := range map[string]string{"x": "bad_request", "another.1": "cursor_gone"} {
		for _, more := range [][]string{nil, {"--follow"}} {
			_, _, status, err := plasmactl(t, append([]string{"events", "--deployer-url", url, "--after", args}, more...)...)
			require.ErrorContains(t, err, want)
			assert.Equal(t, daemon.ExitFailure, status)
		}
	}
	out, _, _, err = plasmactl(t, "__complete", "events", "--deployer-url", url, "--node", "")
	require.NoError(t, err)
	assert.Contains(t, out, "node01\nnode02\nnode03\n")
}
