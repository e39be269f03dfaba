package vmtests

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A user's lab has no network, and its evaluation may need one. And a user of NixOS has
// all programs below /run.
func TestLabOfAUserNeedsTheNetwork(t *testing.T) {
	t.Parallel()
	dir := readableDir(t)
	plasmacloud, mine := filepath.Join(dir, "plasmacloud"), filepath.Join(dir, "mine")
	require.NoError(t, os.CopyFS(filepath.Join(plasmacloud, "nix"), os.DirFS("../nix")))
	flake, err := os.ReadFile("../flake.nix")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(plasmacloud, "flake.nix"), flake, 0o644))

	var input bytes.Buffer
	archive := tar.NewWriter(&input)
	module := []byte(`{ plasmacloud.network.fiberlbBgp.vips = [ "203.0.113.77" ]; }`)
	require.NoError(t, archive.WriteHeader(&tar.Header{Name: "input/vip.nix", Mode: 0o644, Size: int64(len(module))}))
	_, err = archive.Write(module)
	require.NoError(t, err)
	require.NoError(t, archive.Close())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(input.Bytes()) }))
	defer server.Close()

	require.NoError(t, os.CopyFS(mine, os.DirFS("../nix/examples/three-nodes")))
	own, err := os.ReadFile(filepath.Join(mine, "flake.nix"))
	require.NoError(t, err)
	text := replaceOnce(t, string(own), "inputs = {", fmt.Sprintf("inputs = { vip = { url = %q; flake = false; };", server.URL+"/input.tar"))
	text = replaceOnce(t, text, "{ nixpkgs, plasmacloud, ... }", "{ nixpkgs, plasmacloud, vip, ... }")
	text = replaceOnce(t, text, "[ ./cluster.nix ]", `[ ./cluster.nix "${vip}/vip.nix" ]`)
	require.NoError(t, os.WriteFile(filepath.Join(mine, "flake.nix"), []byte(text), 0o644))

	programs := fmt.Sprintf("/run/plasmacloud-vmtests-%d", os.Getpid())
	require.NoError(t, os.Symlink("/", programs))
	t.Cleanup(func() { assert.NoError(t, os.Remove(programs)) })
	home := filepath.Join(dir, "home")
	require.NoError(t, os.Mkdir(home, 0o777))
	require.NoError(t, os.Chmod(home, 0o777))

	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "plasmactl"), "lab", "run", "--flake", mine, "--override-input", "plasmacloud=path:"+plasmacloud,
		"--lib", "offline", "--name", "t-user", "--gobgpd", filepath.Join(bin, "v4", "gobgpd"))
	cmd.Env = append(os.Environ(), "NIX_REMOTE=", "HOME="+home, "XDG_CACHE_HOME="+home, "TMPDIR="+home,
		"PATH="+strings.ReplaceAll("/run/usr/sbin:/run/usr/bin", "/run", programs))
	cmd.Dir = mine
	out, errs, status := runAs(t, cmd, &syscall.Credential{Uid: 65534, Gid: 65534})
	if strings.Contains(errs, "this kernel gives no user namespace to others: run it as root") {
		assert.Equal(t, 1, status)
		return
	}
	require.Zero(t, status, "%s%s", out, errs)
	assert.Contains(t, errs, "the lab runs in a user namespace")
	assert.Contains(t, out, "203.0.113.77/32 via node01, node02, node03")
	assert.Empty(t, left(t, "t-user"))
	scratch, err := filepath.Glob(filepath.Join(home, "plasmacloud-*"))
	require.NoError(t, err)
	assert.Empty(t, scratch)
}
