package vmtests

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/nixeval"
)

// isoCluster is the example with what an ISO for all nodes needs: two of its nodes
// say how their machines are known.
const isoCluster = `{ lib, ... }: {
  imports = [ ./cluster.nix { plasmacloud.cluster.deployer.url = lib.mkDefault "https://deployer.example.org"; } ];
  plasmacloud.cluster.nodes = {
    node01 = {
      identity.macs = [ "52:54:00:00:00:01" ];
      deployment.provision = { mode = "install"; disk = "/dev/vda"; script = "true"; };
    };
    node02.identity.serial = "CZ3412X0PQ";
  };
  MORE
}`

// clusterFlake is a flake of a user's, beside which the project's checkout lies.
func clusterFlake(t *testing.T, more string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS("../nix/examples/three-nodes")))
	for name, text := range map[string]string{
		"more.nix":  strings.Replace(isoCluster, "MORE", more, 1),
		"flake.nix": `{ inputs.nixpkgs.url = "nixpkgs"; inputs.plasmacloud.url = "plasmacloud"; inputs.plasmacloud.inputs.nixpkgs.follows = "nixpkgs"; outputs = { plasmacloud, ... }: plasmacloud.lib.mkCluster { modules = [ ./more.nix ]; nixosModules = [ ./machine.nix ]; }; }`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

// isoAttr evaluates a part of the ISO's configuration into v.
func isoAttr(t *testing.T, flake, attr string, v any) {
	t.Helper()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	eval := nixeval.New(nixeval.Config{Lib: nixeval.LibOffline, OverrideInputs: map[string]string{"plasmacloud": "path:" + root}})
	text, err := eval.EvalAttr(t.Context(), flake+"#nixosConfigurations.plasmacloud-iso.config."+attr)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, v))
}

// TestISOIdentifies: the table that Nix writes is the one that plasmacloud-phone-home
// reads, and a machine becomes the node that the cluster says.
func TestISOIdentifies(t *testing.T) {
	t.Parallel()
	var table string
	flake := clusterFlake(t, "")
	isoAttr(t, flake, `environment.etc."plasmacloud/nodes.json".text`, &table)
	dir := t.TempDir()
	file := filepath.Join(dir, "nodes.json")
	require.NoError(t, os.WriteFile(file, []byte(table), 0o600))
	result, err := nixeval.New(nixeval.Config{Lib: nixeval.LibOffline}).Eval(t.Context(), "..#three-nodes")
	require.NoError(t, err)

	for id, machine := range map[string]map[string]string{
		"node01": {"sys/class/net/eth0/device/vendor": "", "sys/class/net/eth0/address": "52:54:00:00:00:01\n"},
		"node02": {"sys/class/dmi/id/product_serial": "CZ3412X0PQ\n"},
		"":       {"sys/class/net/eth0/device/vendor": "", "sys/class/net/eth0/address": "52:54:00:00:00:03\n"},
	} {
		root, out := t.TempDir(), t.TempDir()
		for name, text := range machine {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o600))
		}
		said, err := exec.Command(filepath.Join(bin, "plasmacloud-phone-home"), "identify", "--nodes", file, "--out", out, "--root", root, "--wait", "1ms").CombinedOutput() //nolint:gosec // ours
		if id == "" {
			assert.Error(t, err)
			assert.Contains(t, string(said), `identity.macs = [ "52:54:00:00:00:03" ];`)
			continue
		}
		require.NoError(t, err, "%s", said)
		assert.Contains(t, string(said), "This machine is "+id)
		config, err := os.ReadFile(filepath.Join(out, "cluster-config.json"))
		require.NoError(t, err)
		want := strings.Replace(result.Manifest.Nodes[id].ClusterConfig, "http://deployer:8080", "https://deployer.example.org", 1)
		assert.Equal(t, want, string(config))
		install, err := os.ReadFile(filepath.Join(out, "install.env"))
		if id == "node02" {
			assert.ErrorIs(t, err, os.ErrNotExist)
			continue
		}
		require.NoError(t, err)
		assert.Regexp(t, `^DISK=/dev/vda\nNODE=node01\nPARTITION=/nix/store/\S+-partition-node01\nSYSTEM=/nix/store/\S+\n$`, string(install))
	}
}

// TestISOUnits: systemd takes the ISO's units as they are. What they start is not
// here, and stands as true(1).
func TestISOUnits(t *testing.T) {
	t.Parallel()
	var services map[string]struct {
		Description                      string
		After, Wants, Requires, WantedBy []string
		Environment                      map[string]string
		UnitConfig, ServiceConfig        map[string]any
		StartLimitIntervalSec            *int
		Documentation                    []string
	}
	isoAttr(t, "..", "systemd.services", &services)
	dir := t.TempDir()
	var files []string
	for _, name := range slices.Sorted(maps.Keys(services)) {
		s := services[name]
		var b strings.Builder
		line := func(key string, values ...any) {
			for _, value := range values {
				if list, ok := value.([]any); ok {
					for _, v := range list {
						fmt.Fprintf(&b, "%s=%v\n", key, v)
					}
					continue
				}
				fmt.Fprintf(&b, "%s=%v\n", key, value)
			}
		}
		fmt.Fprintln(&b, "[Unit]")
		line("Description", s.Description)
		line("Documentation", strings.Join(s.Documentation, " "))
		line("After", strings.Join(s.After, " "))
		line("Wants", strings.Join(s.Wants, " "))
		line("Requires", strings.Join(s.Requires, " "))
		line("StartLimitIntervalSec", *s.StartLimitIntervalSec)
		for key, value := range s.UnitConfig {
			line(key, value)
		}
		fmt.Fprintln(&b, "[Service]")
		for key, value := range s.Environment {
			line("Environment", key+"="+value)
		}
		for key, value := range s.ServiceConfig {
			line(key, value)
		}
		fmt.Fprintln(&b, "[Install]")
		line("WantedBy", strings.Join(s.WantedBy, " "))
		text := regexp.MustCompile(`ExecStart=/nix/store/\S+`).ReplaceAllString(b.String(), "ExecStart=/bin/true")
		file := filepath.Join(dir, name+".service")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		files = append(files, file)
	}
	require.Len(t, files, 3)
	out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, files...)...).CombinedOutput() //nolint:gosec // ours
	require.NoError(t, err, "%s", out)
	for text := range strings.Lines(string(out)) {
		// What it says of this machine's own units is none of ours.
		assert.NotContains(t, text, "plasmacloud", "%s", out)
	}
}

// isoBuilder runs build-iso.sh with the real nix for the evaluation. The build
// itself needs nixpkgs: in its place a stub of nix-store hands over a small ISO,
// which xorriso made bootable in the ways that NixOS' is.
type isoBuilder struct {
	t      *testing.T
	dir    string // where it runs
	flake  string
	stub   string // folder of nix and nix-store
	source string // the ISO of the stub
	env    []string
}

// isoNix is nix, which notes its arguments, and what else there is to see where the
// ISO is evaluated.
const isoNix = `#!/usr/bin/env bash
printf '%s\n' "$@" >> STUB/nix.args
what=.config.system.build.isoImage.drvPath
if [[ "${*: -1}" == *$what ]]; then
  args=("${@:1:$#-1}" "${*: -1}")
  args[-1]=${args[-1]%"$what"}.config.users.users.root
  NIX "${args[@]/--raw/--json}" > STUB/root.json || exit
fi
exec NIX "$@"
`

func newISOBuilder(t *testing.T, flake string) *isoBuilder {
	t.Helper()
	b := &isoBuilder{t: t, dir: t.TempDir(), flake: flake, stub: t.TempDir(), env: os.Environ()}
	built := filepath.Join(b.stub, "built")
	b.source = filepath.Join(built, "iso", "plasmacloud-three-nodes.iso")
	b.write("tree/nix-store.squashfs", strings.Repeat("store", 60<<10), 0o600)
	b.write("tree/boot/efi.img", strings.Repeat("efi\n", 16<<10), 0o600)
	loader, err := os.ReadFile("/usr/lib/ISOLINUX/isolinux.bin")
	require.NoError(t, err)
	b.write("tree/isolinux/isolinux.bin", string(loader), 0o600)
	require.NoError(t, os.MkdirAll(filepath.Dir(b.source), 0o700))
	b.image("/usr/lib/ISOLINUX/isohdpfx.bin")
	nix, err := exec.LookPath("nix")
	require.NoError(t, err)
	b.write("nix", strings.NewReplacer("STUB", b.stub, "NIX", nix).Replace(isoNix), 0o700)
	b.write("nix-store", "#!/bin/sh\nprintf '%s\\n' \"$@\" > "+b.stub+"/nix-store.args\necho "+built+"\n", 0o700)
	return b
}

func (b *isoBuilder) write(name, text string, mode os.FileMode) string {
	b.t.Helper()
	path := filepath.Join(b.stub, name)
	require.NoError(b.t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(b.t, os.WriteFile(path, []byte(text), mode))
	return path
}

func (b *isoBuilder) read(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.stub, name))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	require.NoError(b.t, err)
	return string(data)
}

func (b *isoBuilder) xorriso(args ...string) string {
	b.t.Helper()
	cmd := exec.Command("xorriso", args...) //nolint:gosec // ours
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(b.t, err, "xorriso %v: %s", args, stderr.String())
	return string(out)
}

// run builds, and returns the exit status and what was said on both outputs.
func (b *isoBuilder) run(args ...string) (status int, stdout, stderr string) {
	b.t.Helper()
	script, err := filepath.Abs("../nix/iso/build-iso.sh")
	require.NoError(b.t, err)
	cmd := exec.Command(script, args...) //nolint:gosec // ours
	cmd.Dir, cmd.Env = b.dir, b.env
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		require.NoError(b.t, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// build is run with what every evaluation here needs: no network.
func (b *isoBuilder) build(args ...string) (status int, stdout, stderr string) {
	b.t.Helper()
	root, err := filepath.Abs("..")
	require.NoError(b.t, err)
	return b.run(append([]string{"--flake", b.flake, "--nix", filepath.Join(b.stub, "nix"),
		"--override-input", "plasmacloud=path:" + root, "--override-input", "nixpkgs=path:" + root + "/nix/offline"}, args...)...)
}

// printed is the value after "name:" on stdout.
func printed(stdout, name string) string {
	for line := range strings.Lines(stdout) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

const (
	publicKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0lUPX2Dq5yRPXJTQnTBEPYhKJ5cJqUuBtmXJbEPRzo an \"operator\" of ${this} \\o/"
	isoToken    = "a-token-that-must-not-be-in-the-store"
	certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
)

// image makes the stub's ISO, with that boot sector for USB sticks.
func (b *isoBuilder) image(sector string) {
	b.t.Helper()
	b.xorriso("-as", "mkisofs", "-V", "plasmacloud-three-nodes", "-r", "-b", "isolinux/isolinux.bin", "-c", "boot/boot.cat", "-no-emul-boot",
		"-boot-load-size", "4", "-boot-info-table", "-isohybrid-mbr", sector,
		"-eltorito-alt-boot", "-e", "boot/efi.img", "-no-emul-boot", "-isohybrid-gpt-basdat", "-o", b.source, filepath.Join(b.stub, "tree"))
}

// root is what the configuration that the ISO was built of says of the user root.
func (b *isoBuilder) root() (root struct {
	InitialHashedPassword string
	OpenSSH               struct{ AuthorizedKeys struct{ Keys []string } }
}) {
	b.t.Helper()
	require.NoError(b.t, json.Unmarshal([]byte(b.read("root.json")), &root))
	return root
}

func TestBuildISO(t *testing.T) {
	t.Parallel()

	t.Run("for all nodes, with a key", func(t *testing.T) {
		t.Parallel()
		b := newISOBuilder(t, clusterFlake(t, ""))
		status, stdout, stderr := b.build("--ssh-key", b.write("key.pub", "# mine\n"+publicKey+"\n", 0o600))
		require.Equal(t, 0, status, stderr)
		path := printed(stdout, "path")
		assert.Equal(t, filepath.Join(b.dir, "plasmacloud-three-nodes.iso"), path)
		original, err := os.ReadFile(b.source)
		require.NoError(t, err)
		copied, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, original, copied)
		assert.Equal(t, fmt.Sprintf("%d bytes", len(original)), printed(stdout, "size"))
		assert.Equal(t, fmt.Sprintf("%x", sha256.Sum256(original)), printed(stdout, "sha256"))
		assert.Empty(t, printed(stdout, "password"))
		for _, said := range []string{"cluster three-nodes, 2 nodes", "no machine will be node03", "https://deployer.example.org", "evaluating", "building /nix/store/", "dd if=" + path} {
			assert.Contains(t, stderr, said)
		}
		assert.Regexp(t, `^--realise\n/nix/store/\S+-plasmacloud-three-nodes.iso.drv\n$`, b.read("nix-store.args"))
		assert.Equal(t, "!", b.root().InitialHashedPassword)
		assert.Equal(t, []string{publicKey}, b.root().OpenSSH.AuthorizedKeys.Keys)
	})

	t.Run("for one node, with token, certificates and password", func(t *testing.T) {
		t.Parallel()
		b := newISOBuilder(t, clusterFlake(t, ""))
		before, err := os.ReadFile(b.source)
		require.NoError(t, err)
		records := func(iso string) string {
			report := b.xorriso("-indev", iso, "-report_el_torito", "plain", "-report_system_area", "plain")
			// Where it lies, and what is made at random, may change. What boots may not.
			return regexp.MustCompile(`(?m)^(El Torito catalog|ISO image size|GPT (disk|partition) GUID|GPT lba range|GPT entry array|GPT start and size).*\n|`+
				`(^El Torito boot img .*) [0-9]+$|(^MBR partition  .*) [0-9]+ +[0-9]+$`).ReplaceAllString(report, "$3$4")
		}
		token, ca := b.write("token", isoToken+"\n", 0o600), b.write("ca.pem", certificate, 0o600)
		out := filepath.Join(b.dir, "node03.iso")
		status, stdout, stderr := b.build("--node", "node03", "--join-token-file", token, "--ca-file", ca, "--out", out)
		require.Equal(t, 0, status, stderr)
		assert.Equal(t, out, printed(stdout, "path"))
		assert.Contains(t, stderr, "adding the join token and the certificates")
		assert.Contains(t, stderr, "node node03, which runs from the ISO")

		after, err := os.ReadFile(b.source)
		require.NoError(t, err)
		assert.Equal(t, before, after, "the ISO in the store was changed")
		info, err := os.Stat(out)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

		for _, record := range []string{"El Torito img path :   1  /isolinux/isolinux.bin", "El Torito img path :   2  /boot/efi.img", "MBR isohybrid", "MBR partition path :   2  /boot/efi.img", "GPT"} {
			assert.Contains(t, records(b.source), record)
		}
		assert.Equal(t, records(b.source), records(out))
		to := t.TempDir()
		b.xorriso("-osirrox", "on", "-indev", out, "-extract", "/", to)
		for name, want := range map[string]string{
			"plasmacloud/join-token": isoToken + "\n", "plasmacloud/ca.pem": certificate,
			"boot/efi.img": b.read("tree/boot/efi.img"), "nix-store.squashfs": b.read("tree/nix-store.squashfs"),
		} {
			data, err := os.ReadFile(filepath.Join(to, name))
			require.NoError(t, err)
			assert.True(t, want == string(data), "%s differs", name)
		}
		// xorriso gives what it extracts the mode that the ISO says.
		info, err = os.Stat(filepath.Join(to, "plasmacloud/join-token"))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o400), info.Mode().Perm())
		assert.Equal(t, b.volume(b.source), b.volume(out))

		password := strings.TrimSuffix(printed(stdout, "password"), " (root; shown only now)")
		assert.Len(t, password, 20)
		assert.NotContains(t, stderr, password)
		root := b.root()
		part := strings.Split(root.InitialHashedPassword, "$")
		require.Len(t, part, 4)
		again, err := exec.Command("openssl", "passwd", "-6", "-salt", part[2], password).Output() //nolint:gosec // ours
		require.NoError(t, err)
		assert.Equal(t, root.InitialHashedPassword, strings.TrimSpace(string(again)))

		// What nix saw may be in the store, or in its log.
		for _, secret := range []string{password, isoToken, "BEGIN CERTIFICATE"} {
			assert.NotContains(t, b.read("nix.args")+b.read("nix-store.args"), secret)
		}
	})

	t.Run("keys of the cluster", func(t *testing.T) {
		t.Parallel()
		b := newISOBuilder(t, clusterFlake(t, `plasmacloud.iso.sshKeys = [ "ssh-ed25519 AAAA of-the-cluster" ];`))
		// From a folder below that has no ./ in front.
		b.dir, b.flake = filepath.Dir(b.flake), filepath.Base(b.flake)
		status, stdout, stderr := b.build("--out", t.TempDir(), "--ssh-key", b.write("key.pub", publicKey, 0o600))
		require.Equal(t, 0, status, stderr)
		assert.Empty(t, printed(stdout, "password"))
		assert.ElementsMatch(t, []string{"ssh-ed25519 AAAA of-the-cluster", publicKey}, b.root().OpenSSH.AuthorizedKeys.Keys)
	})
}

// volume is the label by which the boot finds the ISO again.
func (b *isoBuilder) volume(iso string) string {
	b.t.Helper()
	out, err := exec.Command("blkid", "--probe", "--output", "value", "--match-tag", "LABEL", iso).Output() //nolint:gosec // ours
	require.NoError(b.t, err)
	return string(out)
}

func TestBuildISORefuses(t *testing.T) {
	t.Parallel()
	b := newISOBuilder(t, clusterFlake(t, ""))
	token, key := b.write("token", isoToken, 0o600), b.write("key.pub", publicKey, 0o600)
	ca := b.write("ca.pem", certificate, 0o600)
	private := "-----BEGIN " + "OPENSSH PRIVATE KEY-----\n"
	for name, test := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"unknown flag":         {[]string{"--fake"}, 64, "there is no flag --fake"},
		"argument":             {[]string{"node01"}, 64, `unexpected argument "node01"`},
		"flag without value":   {[]string{"--node"}, 64, "--node needs a value"},
		"empty value":          {[]string{"--node", ""}, 64, "--node: empty"},
		"value by equals sign": {[]string{"--node=node01"}, 64, "write it as --node node01"},
		"fragment":             {[]string{"--flake", ".#x"}, 64, "without a #"},
		"node name":            {[]string{"--node", "a b"}, 64, "no name of a node"},
		"override":             {[]string{"--override-input", "nixpkgs"}, 64, "want INPUT=REF"},
		"out on a device":      {[]string{"--out", "/dev/null"}, 64, "neither a folder nor a file"},
		"out nowhere":          {[]string{"--out", "/nowhere/x.iso"}, 64, "there is no folder /nowhere"},
		"no key file":          {[]string{"--ssh-key", "/nowhere"}, 78, "--ssh-key /nowhere: cannot be read"},
		"private key":          {[]string{"--ssh-key", b.write("key", private, 0o600)}, 78, "that is a private key"},
		"no key":               {[]string{"--ssh-key", b.write("empty", "\n", 0o600)}, 78, "there is no key in it"},
		"broken key":           {[]string{"--ssh-key", b.write("broken", "ssh-ed25519\n", 0o600)}, 78, "is no public key"},
		"no token":             {[]string{"--join-token-file", b.write("blank", "\n", 0o600)}, 78, "want one token"},
		"two tokens":           {[]string{"--join-token-file", b.write("two", isoToken+"\n"+isoToken+"\n", 0o600)}, 78, "want one token"},
		"no certificate":       {[]string{"--ca-file", token}, 78, "there is no certificate in it"},
		"certificate and key":  {[]string{"--ca-file", b.write("both", certificate+private, 0o600)}, 78, "it has a private key"},
		"no nix":               {[]string{"--nix", "/nowhere/nix"}, 1, "there is no /nowhere/nix here"},
	} {
		status, stdout, stderr := b.run(test.args...)
		assert.Equal(t, test.status, status, "%s: %s", name, stderr)
		assert.Contains(t, stderr, test.says, name)
		assert.Empty(t, stdout, name)
	}
	plain := b.env
	b.env = append(slices.Clone(plain), "PLASMACLOUD_OVERRIDE_INPUTS=nixpkgs=path:/a,plasmacloud=path:/b")
	status, stdout, _ := b.run("--override-input", "plasmacloud=path:/c", "--dry-run")
	assert.Equal(t, 0, status)
	assert.Contains(t, stdout, "--override-input plasmacloud path:/c --override-input nixpkgs path:/a ")
	assert.NotContains(t, stdout, "path:/b")
	b.env = append(slices.Clone(plain), "PLASMACLOUD_OVERRIDE_INPUTS=nixpkgs")
	status, _, stderr := b.run("--dry-run")
	assert.Equal(t, 64, status)
	assert.Contains(t, stderr, `PLASMACLOUD_OVERRIDE_INPUTS: "nixpkgs" is not INPUT=REF`)
	b.env = plain

	status, help, _ := b.run("--help")
	assert.Equal(t, 0, status)
	for _, want := range []string{"Usage:", "Examples:", "--flake REF", "--node NAME", "--ssh-key FILE", "--password", "--join-token-file FILE", "--ca-file FILE", "--out PATH", "--dry-run", "Exit status:"} {
		assert.Contains(t, help, want)
	}

	// A dry run runs nothing, and shows no secret.
	status, stdout, stderr = b.build("--node", "node01", "--ssh-key", key, "--password", "--join-token-file", token, "--ca-file", ca, "--dry-run")
	assert.Equal(t, 0, status, stderr)
	for _, want := range []string{" eval --raw ", "nixosConfigurations.plasmacloud-iso", "node01", "HASH-OF-A-NEW-PASSWORD", "nix-store --realise", "-boot_image any replay", "-map " + token + " /plasmacloud/join-token", "/plasmacloud/ca.pem"} {
		assert.Contains(t, stdout, want)
	}
	assert.NotContains(t, stdout, isoToken)
	assert.Empty(t, b.read("nix.args")+b.read("nix-store.args"))

	// What only the evaluation finds.
	status, _, stderr = b.build("--node", "node09")
	assert.Equal(t, 78, status)
	assert.Contains(t, stderr, "the cluster three-nodes has no such node; it has node01, node02, node03")

	// One that xorriso does not know, and does not write again as it was.
	require.NoError(t, os.Remove(b.source))
	b.image(b.write("mbr", strings.Repeat("m\x01", 216), 0o600))
	status, stdout, stderr = b.build("--ssh-key", key, "--join-token-file", token)
	assert.Equal(t, 1, status)
	assert.Contains(t, stderr, "what the ISO boots by did not survive")
	assert.Empty(t, stdout)

	b.write("nix-store", "#!/bin/sh\necho 'error: the disk is full' >&2\nexit 1\n", 0o700)
	status, stdout, stderr = b.build("--ssh-key", key)
	assert.Equal(t, 1, status)
	assert.Contains(t, stderr, "the disk is full")
	assert.Empty(t, stdout)
	left, err := os.ReadDir(b.dir)
	require.NoError(t, err)
	assert.Empty(t, left, "something is left of a build that failed")

	b.flake = clusterFlake(t, `plasmacloud.cluster.nodes.node03.ip = lib.mkForce "10.0.0.300";`)
	status, _, stderr = b.build()
	assert.Equal(t, 78, status)
	assert.Contains(t, stderr, `"10.0.0.300" is not an IP address`)

	b.flake = t.TempDir()
	status, _, stderr = b.build()
	assert.Equal(t, 78, status)
	assert.Contains(t, stderr, "is no flake of a cluster")
}

// TestBuildISONeedsMore: what a cluster lacks for an ISO is said before anything
// is built.
func TestBuildISONeedsMore(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	b := newISOBuilder(t, filepath.Join(root, "nix/examples/three-nodes"))
	status, _, stderr := b.build()
	assert.Equal(t, 78, status)
	assert.Contains(t, stderr, "could not tell one machine from another")
	status, _, stderr = b.build("--node", "node01", "--ca-file", b.write("ca.pem", certificate, 0o600))
	assert.Equal(t, 78, status)
	assert.Contains(t, stderr, "http://deployer:8080, which is not https")
	assert.Empty(t, b.read("nix-store.args"))
}
