package nixeval

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// flakeWith makes a folder with a flake that has no inputs and these outputs.
func flakeWith(t *testing.T, outputs string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "flake.nix"), []byte("{ outputs = { self }: {\n"+outputs+"\n}; }\n"), 0o600))
	return dir
}

func manifestNix(t *testing.T) string {
	t.Helper()
	quoted, err := json.Marshal(goodManifest)
	require.NoError(t, err)
	return "builtins.fromJSON " + string(quoted)
}

func TestEval(t *testing.T) {
	dir := flakeWith(t, "plasmacloud.c = builtins.trace \"progress\" ("+manifestNix(t)+");")
	result, err := New(Config{}).Eval(t.Context(), dir)
	require.NoError(t, err)
	assert.Equal(t, []string{"n1", "n2"}, result.Manifest.NodeIDs())
	assert.Equal(t, LibNixpkgs, result.Lib)
	assert.NotEmpty(t, result.Nix)
	assert.Positive(t, result.Took)
	assert.Greater(t, result.Memory, int64(1<<20))
}

func TestEvalChoosesTheCluster(t *testing.T) {
	dir := flakeWith(t, "plasmacloud = { c = "+manifestNix(t)+"; other = throw \"not asked for\"; };"+
		"packages.x86_64-linux.plasmacloud = { a = 1; package = 2; }; packages.aarch64-linux = { plasmacloud = 3; };")

	_, err := New(Config{}).Eval(t.Context(), dir+"#c")
	require.NoError(t, err)

	_, err = New(Config{}).Eval(t.Context(), dir)
	assert.ErrorContains(t, err, "several clusters, name one after '#': c, other")
	_, err = New(Config{}).Eval(t.Context(), dir+"#nope")
	assert.ErrorContains(t, err, "no cluster nope; it has: c, other")
	_, err = New(Config{}).Eval(t.Context(), dir+`#"${x}`)
	assert.ErrorContains(t, err, "is no cluster name")
}

// The errors that a user meets name the thing and the mend, without a trace and
// without store paths in place of the user's own.
func TestEvalErrors(t *testing.T) {
	cases := map[string]struct {
		outputs  string
		says     []string
		saysNot  []string
		ownFiles bool
	}{
		"syntax error":     {outputs: "plasmacloud = {", says: []string{"syntax error", "flake.nix:3:"}, ownFiles: true},
		"throw":            {outputs: `plasmacloud.c = throw "the reason\nin two lines";`, says: []string{"the reason\nin two lines"}},
		"throw in a depth": {outputs: `plasmacloud.c = { data.cluster = throw "deep"; };`, says: []string{"deep"}},
		"no manifest":      {outputs: `x = 1;`, says: []string{"does not provide attribute", "mkCluster"}},
		"undefined name":   {outputs: `plasmacloud.c = oops;`, says: []string{"undefined variable 'oops'", "flake.nix:2:17"}, ownFiles: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := flakeWith(t, c.outputs)
			_, err := New(Config{}).Eval(t.Context(), dir)
			var failed *EvalError
			require.ErrorAs(t, err, &failed)
			for _, part := range c.says {
				assert.ErrorContains(t, err, part)
			}
			assert.NotContains(t, err.Error(), "show-trace")
			assert.NotContains(t, err.Error(), "…")
			if c.ownFiles {
				assert.ErrorContains(t, err, filepath.Join(dir, "flake.nix"))
				assert.NotContains(t, err.Error(), "/nix/store")
			}
		})
	}
}

func TestEvalPartOfTheOutputIsNoResult(t *testing.T) {
	// Nix has printed `{"data":` when it comes to the throw.
	dir := flakeWith(t, `plasmacloud.c = { data = 1; failedAssertions = throw "late"; };`)
	_, err := New(Config{}).Eval(t.Context(), dir)
	require.ErrorContains(t, err, "late")
	assert.NotContains(t, err.Error(), "JSON")
}

func TestEvalWithoutNix(t *testing.T) {
	dir := flakeWith(t, "plasmacloud.c = 1;")
	_, err := New(Config{Nix: "/nowhere/nix"}).Eval(t.Context(), dir)
	require.ErrorIs(t, err, exec.ErrNotFound)
	assert.ErrorContains(t, err, "/nowhere/nix")
	assert.ErrorContains(t, err, "apt-get install nix-bin")

	t.Setenv("PATH", t.TempDir())
	_, err = New(Config{}).Eval(t.Context(), dir)
	require.ErrorIs(t, err, exec.ErrNotFound)
}

func TestEvalWithoutFlake(t *testing.T) {
	dir := t.TempDir()
	_, err := New(Config{}).Eval(t.Context(), dir)
	assert.ErrorContains(t, err, "no flake.nix in "+dir)
}

func TestEvalTimeout(t *testing.T) {
	dir := flakeWith(t, "plasmacloud.c = let again = f: builtins.foldl' (a: _: f a) 0 (builtins.genList (n: n) 10000); in again (_: again (_: again (a: a)));")
	begin := time.Now()
	_, err := New(Config{Timeout: time.Second}).Eval(t.Context(), dir)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, "1s")
	assert.Less(t, time.Since(begin), 10*time.Second)
}

func TestEvalMemoryCeiling(t *testing.T) {
	dir := flakeWith(t, "plasmacloud.c = builtins.genList (n: n) 500000000;")
	_, err := New(Config{Memory: 100 << 20}).Eval(t.Context(), dir)
	assert.ErrorContains(t, err, "more than its ceiling of 100 MiB")
}

func TestEvalOverrideInput(t *testing.T) {
	other := flakeWith(t, "made = "+manifestNix(t)+";")
	dir := t.TempDir()
	flake := `{ inputs.lib.url = "path:/nowhere"; outputs = { self, lib }: { plasmacloud.c = lib.made; }; }`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(flake), 0o600))

	_, err := New(Config{}).Eval(t.Context(), dir)
	require.ErrorContains(t, err, "/nowhere")
	_, err = New(Config{OverrideInputs: map[string]string{"lib": "path:" + other}}).Eval(t.Context(), dir)
	require.NoError(t, err)
}

func TestEvalAttr(t *testing.T) {
	dir := flakeWith(t, `a.b = { c = [ 1 "two" ]; };`)
	raw, err := New(Config{}).EvalAttr(t.Context(), dir+"#a.b")
	require.NoError(t, err)
	assert.JSONEq(t, `{"c": [1, "two"]}`, string(raw))

	_, err = New(Config{}).EvalAttr(t.Context(), dir+"#a.x")
	assert.ErrorContains(t, err, "attribute")
}

// A checkout whose lock has a relative path input, as Nix 2.26 writes it,
// evaluates on every Nix, and only with the files that git tracks.
func TestEvalRelativeInput(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o600))
	}
	write("sub/flake.nix", "{ outputs = { self }: { made = "+manifestNix(t)+"; }; }")
	write("flake.nix", `{ inputs.sub.url = "path:./sub"; outputs = { self, sub }: { plasmacloud.c = assert !(builtins.pathExists ./untracked); sub.made; }; }`)
	write("flake.lock", `{"nodes": {"root": {"inputs": {"sub": "sub"}}, "sub": {
		"locked": {"path": "./sub", "type": "path"}, "original": {"path": "./sub", "type": "path"}, "parent": []}}, "root": "root", "version": 7}`)
	write("untracked", "")
	for _, args := range [][]string{{"init", "-q"}, {"add", "flake.nix", "flake.lock", "sub"}} {
		out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", root}, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
	}

	_, err := New(Config{}).Eval(t.Context(), root)
	require.NoError(t, err)
	_, err = New(Config{}).Eval(t.Context(), "path:"+root)
	if err != nil { // a path flake of a later Nix sees the untracked file, which the flake asserts against
		assert.ErrorContains(t, err, "assertion")
	}
	lock, err := os.ReadFile(filepath.Join(root, "flake.lock"))
	require.NoError(t, err)
	assert.Contains(t, string(lock), `"parent": []`, "an evaluation never writes the lock file")
}

// The copy of a flake has the tracked files, in any kind of work tree, and all
// files of a folder that is none.
func TestCopyFlake(t *testing.T) {
	first := t.TempDir()
	write := func(dir, name string) {
		t.Helper()
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	write(first, "flake.nix")
	write(first, "sub/flake.nix")
	second := filepath.Join(t.TempDir(), "second")
	for _, args := range [][]string{
		{"init", "-q"}, {"add", "."},
		{"-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "x"},
		{"worktree", "add", "-q", second},
	} {
		out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", first}, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	none := t.TempDir()
	write(none, "flake.nix")
	for _, dir := range []string{first, second, none} {
		write(dir, "untracked")
	}
	cases := map[string]struct {
		dir  string
		want []string
	}{
		"checkout":     {first, []string{"flake.nix", "sub/flake.nix"}},
		"worktree":     {second, []string{"flake.nix", "sub/flake.nix"}},
		"part of it":   {filepath.Join(second, "sub"), []string{"flake.nix", "sub/flake.nix"}},
		"plain folder": {none, []string{"flake.nix", "untracked"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			into := t.TempDir()
			_, err := copyFlake(c.dir, into, true)
			require.NoError(t, err)
			var got []string
			require.NoError(t, fs.WalkDir(os.DirFS(into), ".", func(path string, entry fs.DirEntry, err error) error {
				if err == nil && !entry.IsDir() {
					got = append(got, path)
				}
				return err
			}))
			assert.Equal(t, c.want, got)
		})
	}
}

// A folder is a folder, also where Nix would take its name for another thing.
func TestEvalFolderNames(t *testing.T) {
	dir := flakeWith(t, "plasmacloud.c = "+manifestNix(t)+";")
	t.Chdir(filepath.Dir(dir))
	require.NoError(t, os.MkdirAll("a/b", 0o755))
	require.NoError(t, os.Rename(dir, "a/b/c"))
	for _, ref := range []string{"a/b/c", "./a/b/c", "path:a/b/c", "a/b/c#c"} {
		_, err := New(Config{}).Eval(t.Context(), ref)
		assert.NoError(t, err, ref)
	}
	t.Chdir("a/b/c")
	_, err := New(Config{}).Eval(t.Context(), ".")
	assert.NoError(t, err)
}

// The lock file of an overridden input is no obstacle either.
func TestEvalOverrideWithRelativeInput(t *testing.T) {
	input, flake := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
	write(filepath.Join(input, "sub/flake.nix"), "{ outputs = { self }: { made = "+manifestNix(t)+"; }; }")
	write(filepath.Join(input, "flake.nix"), `{ inputs.sub.url = "path:./sub"; outputs = { self, sub }: { inherit (sub) made; }; }`)
	write(filepath.Join(input, "flake.lock"), `{"nodes": {"root": {"inputs": {"sub": "sub"}}, "sub": {
		"locked": {"path": "./sub", "type": "path"}, "original": {"path": "./sub", "type": "path"}, "parent": []}}, "root": "root", "version": 7}`)
	write(filepath.Join(flake, "flake.nix"), `{ inputs.lib.url = "path:/nowhere"; outputs = { self, lib }: { plasmacloud.c = lib.made; }; }`)

	_, err := New(Config{OverrideInputs: map[string]string{"lib": "path:" + input}}).Eval(t.Context(), flake)
	require.NoError(t, err)
}

func TestVersion(t *testing.T) {
	for text, want := range map[string]version{
		"nix (Nix) 2.8.0":                    {number: "2.8.0"},
		"nix (Nix) 2.30pre20250901_abc":      {number: "2.30pre20250901"},
		"nix (Determinate Nix 3.1.0) 2.28.2": {number: "2.28.2"},
		"nix (Lix, like Nix) 2.91.1":         {number: "2.91.1", lix: true},
	} {
		fake := filepath.Join(t.TempDir(), "nix")
		require.NoError(t, os.WriteFile(fake, []byte("#!/bin/sh\necho '"+text+"'\n"), 0o700))
		got, err := New(Config{Nix: fake}).version(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := New(Config{Nix: "/bin/true"}).version(t.Context())
	assert.ErrorContains(t, err, "/bin/true is not Nix")
	assert.False(t, version{number: "2.8.0"}.locksRelativeInputs())
	assert.True(t, version{number: "2.28.2"}.locksRelativeInputs())
	assert.False(t, version{number: "2.91.1", lix: true}.locksRelativeInputs())
}

func TestPins(t *testing.T) {
	var lock lockFile
	require.NoError(t, json.Unmarshal([]byte(`{"root": "root", "nodes": {
		"root": {"inputs": {"nixpkgs": "nixpkgs_2", "own": "own", "same": ["own", "nixpkgs"], "g": "g", "t": "t"}},
		"own": {"locked": {"type": "path", "path": "./own"}, "parent": []},
		"nixpkgs_2": {"locked": {"type": "github", "owner": "NixOS", "repo": "nixpkgs", "rev": "abc", "narHash": "sha256-x"}},
		"g": {"locked": {"type": "git", "url": "https://example.org/x.git", "rev": "def"}},
		"t": {"locked": {"type": "tarball", "url": "https://example.org/x.tar.gz"}}}}`), &lock))
	assert.True(t, lock.hasRelativeInputs())
	assert.Equal(t, map[string]string{
		"nixpkgs": "github:NixOS/nixpkgs/abc",
		"g":       "git+https://example.org/x.git?rev=def",
		"t":       "https://example.org/x.tar.gz",
	}, lock.pins())
}

func TestMessage(t *testing.T) {
	cases := map[string]struct{ stderr, want string }{
		"2.8": {
			"warning: Git tree '/x' is dirty\nerror: The option `a.b' is wrong.\n       Definition values:\n       - In `/x'\n(use '--show-trace' to show detailed location information)\n",
			"The option `a.b' is wrong.\nDefinition values:\n- In `/x'",
		},
		"2.26": {
			"error:\n       … while evaluating a\n         at /nix/store/x:1:2:\n            1| a\n\n       (stack trace truncated; use '--show-trace')\n\n       error: The option `a.b' is wrong.\n       - In `/x'\n",
			"The option `a.b' is wrong.\n- In `/x'",
		},
		"colours": {"\x1b[31;1merror:\x1b[0m red\n", "red"},
		"nothing": {"killed\n", "killed"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, message(c.stderr)) })
	}
}

func TestWarnings(t *testing.T) {
	assert.Equal(t, []string{"the module's", "of 2.26"}, warnings(strings.Join([]string{
		"warning: Git tree '/x' is dirty",
		"warning: the flag '--override-input nixpkgs path:/x' does not match any input",
		"trace: noise",
		"warning: the module's",
		"evaluation warning: of 2.26",
	}, "\n")))
}

func TestAtLeast(t *testing.T) {
	for version, want := range map[string]bool{"2.8.0": false, "2.25.9": false, "2.26.3": true, "2.30pre20250901": true, "3.0": true, "": false} {
		assert.Equal(t, want, atLeast(version, 2, 26), version)
	}
}
