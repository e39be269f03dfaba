package vmtests

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// left is what there is of a lab of this name: namespaces, files and processes.
func left(t *testing.T, name string) (found []string) {
	t.Helper()
	for _, pattern := range []string{"/run/netns/lab-" + name + "-0.*", os.TempDir() + "/plasmacloud-lab-" + name + "-0", os.TempDir() + "/.making-plasmacloud-lab-" + name + "-*"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		found = append(found, files...)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range lines {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), "plasmacloud-lab-"+name+"-0") {
			found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}

// A lab stands, can be looked into, keeps its name to itself, and leaves nothing.
func TestLabStands(t *testing.T) {
	t.Parallel()
	const name = "t-stands"
	t.Cleanup(func() { _, _, _ = plasmactlLab(t, "down", "--name", name) })
	out, errs, status := plasmactlLab(t, "up", "--flake", "..#three-nodes", "--name", name, "--routers", "frr,bird")
	require.Zero(t, status, "%s%s", out, errs)
	assert.Contains(t, out, "The lab t-stands stands")

	_, errs, status = plasmactlLab(t, "up", "--flake", "..#three-nodes", "--name", name)
	assert.Equal(t, 69, status)
	assert.Contains(t, errs, "a lab of this name runs already: t-stands")

	out, errs, status = plasmactlLab(t, "status", "--name", name, "-o", "json")
	require.Zero(t, status, errs)
	var got struct {
		Lab struct {
			Hosts map[string]struct{ Kind string }
		}
		Report labReport
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	assert.True(t, got.Report.OK)
	assert.Equal(t, "node", got.Lab.Hosts["node02"].Kind)
	assert.Equal(t, "router", got.Lab.Hosts["router1"].Kind)

	out, errs, status = plasmactlLab(t, "exec", "--name", name, "node02", "--", "plasmactl", "vip", "drain", "203.0.113.20", "--reason", "to see it")
	require.Zero(t, status, "%s%s", out, errs)
	require.NoError(t, lab.Eventually(patience, func() error {
		out, _, status := plasmactlLab(t, "status", "--name", name)
		if status != 1 || !strings.Contains(out, "no route via node02") || !strings.Contains(out, "does not hold 203.0.113.20") {
			return fmt.Errorf("status %d: %s", status, out)
		}
		return nil
	}))
	_, _, status = plasmactlLab(t, "exec", "--name", name, "client", "--", "sh", "-c", "exit 7")
	assert.Equal(t, 7, status)
	_, errs, status = plasmactlLab(t, "exec", "--name", name, "node09", "--", "true")
	assert.Equal(t, 64, status)
	assert.Contains(t, errs, "has no host node09")

	// What comes for the deployer is on mgmt, and heartbeats come each second.
	file := filepath.Join(t.TempDir(), "it.pcap")
	_, errs, status = plasmactlLab(t, "capture", "--name", name, "node01:mgmt", "--for", "2500ms", "--write", file)
	require.Zero(t, status, errs)
	packets, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Greater(t, len(packets), 24)
	assert.Equal(t, "\xd4\xc3\xb2\xa1", string(packets[:4]))
	assert.Contains(t, string(packets), "POST /api/v1/phone-home")

	_, errs, status = plasmactlLab(t, "down", "--name", name)
	require.Zero(t, status, errs)
	assert.Empty(t, left(t, name))
	out, _, status = plasmactlLab(t, "down", "--name", name)
	assert.Zero(t, status)
	assert.Contains(t, out, "there is no lab t-stands")
}

// A lab that is killed at any moment leaves nothing behind a `lab down`: while it is
// evaluated, while it is built, and while it stands. One that stands beside it stays.
func TestLabKilled(t *testing.T) {
	t.Parallel()
	const name, beside = "t-killed", "t-beside"
	t.Cleanup(func() {
		for _, n := range []string{name, beside} {
			_, _, _ = plasmactlLab(t, "down", "--name", n)
		}
	})
	_, errs, status := plasmactlLab(t, "up", "--flake", "..#three-nodes", "--name", beside)
	require.Zero(t, status, errs)
	for round := range 4 {
		// FRR's daemons give up root, and with it the signal that a dying parent sends.
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "plasmactl"), "lab", "up", "--foreground", "--flake", "..#three-nodes", "--name", name,
			"--lib", "offline", "--gobgpd", filepath.Join(bin, "v4", "gobgpd"), "--routers", "frr,bird")
		require.NoError(t, cmd.Start())
		if round == 0 { // once when it is certain that it runs
			require.NoError(t, lab.Eventually(patience, func() error {
				if _, err := os.Stat(filepath.Join(os.TempDir(), "plasmacloud-lab-"+name+"-0", "lab.json")); err != nil {
					return err
				}
				return nil
			}))
		} else {
			time.Sleep(time.Duration(300+rand.IntN(2500)) * time.Millisecond)
		}
		require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
		var exit *exec.ExitError
		require.True(t, errors.As(cmd.Wait(), &exit))
		_, errs, status := plasmactlLab(t, "down", "--name", name)
		require.Zero(t, status, errs)
		require.Empty(t, left(t, name))
	}
	_, errs, status = plasmactlLab(t, "status", "--name", beside)
	assert.Zero(t, status, errs)
	_, errs, status = plasmactlLab(t, "down", "--name", beside)
	require.Zero(t, status, errs)
	assert.Empty(t, left(t, beside))
}

// Nix ends with a lab that is killed while it evaluates, and the next one removes its files.
func TestLabKilledWhileItEvaluates(t *testing.T) {
	t.Parallel()
	flake := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(flake, "flake.nix"), []byte(`{
		outputs = _: let
			count = f: builtins.foldl' (sum: i: sum + f i) 0 (builtins.genList (i: i) 100000);
			hours = count (_: count (i: i));
		in { plasmacloud.slow = hours; nixosConfigurations = builtins.seq hours { }; };
	}`), 0o600))
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "plasmactl"), "lab", "run", "--flake", flake, "--name", "t-evaluates", "--lib", "offline")
	require.NoError(t, cmd.Start())
	evaluates := func() bool {
		commands, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is a good one
		for _, file := range commands {
			if text, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(text), "nix\x00") && strings.Contains(string(text), flake) {
				return true
			}
		}
		return false
	}
	require.Eventually(t, evaluates, patience, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.Eventually(t, func() bool { return !evaluates() }, patience, 10*time.Millisecond)

	files := filepath.Join(os.TempDir(), fmt.Sprintf("plasmacloud-eval-%d-*", cmd.Process.Pid))
	found, err := filepath.Glob(files)
	require.NoError(t, err)
	assert.NotEmpty(t, found)
	_, errs, status := plasmactlLab(t, "run", "--flake", filepath.Join(flake, "nowhere"))
	assert.Equal(t, 1, status, errs)
	found, err = filepath.Glob(files)
	require.NoError(t, err)
	assert.Empty(t, found)
}
