package vmtests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// provisionLab is a machine that runs the ISO's provision.sh against a real
// deployer that asks for tokens. The disk is a file, which a real script partitions
// and formats. Three things are stand-ins, since there is no NixOS here:
// nixos-install, the mount of the disk (a folder takes its place) and systemctl,
// which only notes the reboot.
type provisionLab struct {
	t    *testing.T
	host *lab.Host
	dir  string // of the machine
	node string
	disk string
	url  string // the deployer's
	env  map[string]string

	machine string // its id
}

const (
	deployerListen = "127.0.0.1:8080"
	emptyDisk      = 64 << 20
)

// layout is a deployment.provision.script as an operator writes it, but for the
// mount at its end.
const layout = `
sgdisk --clear --new 1:0:+8M --typecode 1:ef00 --change-name 1:boot --new 2:0:0 --change-name 2:nixos "$DISK"
mkfs.ext4 -q -F -L nixos -E offset=$((9 << 20)) "$DISK" 50M
mount --bind "$DIR/target" "$MNT"
`

const (
	joinToken     = "a-token-for-the-provisioning-test"
	operatorToken = "an-operators-token-for-this-test"
)

// nixosInstall notes its arguments and fills the target.
const nixosInstall = `
echo "$@" > "$DIR/nixos-install.args"
mkdir -p "$MNT/etc" "$MNT/nix"
echo "copying paths..."
`

func startProvisionLab(t *testing.T, name string) *lab.Host {
	t.Helper()
	l, err := lab.New(name)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	host, err := l.Host("machine")
	require.NoError(t, err)
	manifest, err := os.ReadFile("../nix/tests/good/three-nodes.json")
	require.NoError(t, err)
	file, config := filepath.Join(host.Dir, "manifest.json"), filepath.Join(host.Dir, "deployer.json")
	require.NoError(t, os.WriteFile(file, manifest, 0o600))
	tokens, operators := filepath.Join(host.Dir, "join-tokens"), filepath.Join(host.Dir, "operators")
	require.NoError(t, os.WriteFile(operators, []byte("op "+operatorToken+" role=admin\n"), 0o600))
	text, err := json.Marshal(map[string]any{
		"listen": deployerListen, "store": map[string]any{"path": filepath.Join(host.Dir, "state.db")}, "manifest": file, "heartbeat_interval": "1s",
		"tokens": map[string]any{"join_file": tokens, "operators_file": operators},
	})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(tokens, []byte("iso "+joinToken+"\n"), 0o600))
	require.NoError(t, os.WriteFile(config, text, 0o600))
	p, err := host.Start("deployer", filepath.Join(bin, "plasmacloud-deployer"), "serve", "--config", config)
	require.NoError(t, err)
	require.NoError(t, lab.Eventually(patience, func() error {
		if !strings.Contains(p.Output(), "listening") {
			return fmt.Errorf("the deployer says: %s", p.Output())
		}
		return nil
	}))
	return host
}

// provisioned is a machine that identified itself as that node.
func provisioned(t *testing.T, host *lab.Host, id string) *provisionLab {
	t.Helper()
	p := &provisionLab{t: t, host: host, dir: filepath.Join(host.Dir, id), node: id, url: "http://" + deployerListen, machine: "machine-of-" + id}
	p.disk = filepath.Join(p.dir, "disk")
	state := filepath.Join(p.dir, "run")
	for _, dir := range []string{"run", "bin", "mnt", "target"} {
		require.NoError(t, os.MkdirAll(filepath.Join(p.dir, dir), 0o700))
	}
	require.NoError(t, os.WriteFile(p.disk, nil, 0o600))
	require.NoError(t, os.Truncate(p.disk, emptyDisk))

	var manifest struct {
		Data struct {
			Nodes map[string]struct{ ClusterConfig string }
		}
	}
	text, err := os.ReadFile("../nix/tests/good/three-nodes.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &manifest))
	require.NoError(t, os.WriteFile(filepath.Join(state, "cluster-config.json"), []byte(manifest.Data.Nodes[id].ClusterConfig), 0o600))

	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "join-token"), []byte(joinToken), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "operator"), []byte(operatorToken), 0o600))
	p.script("layout", layout)
	p.script("bin/nixos-install", nixosInstall)
	p.script("bin/systemctl", `echo "$@" >> "$DIR/systemctl.args"`)
	p.phoneHome()
	p.env = map[string]string{
		"NODE": id, "DISK": p.disk, "PARTITION": filepath.Join(p.dir, "layout"), "SYSTEM": "/nix/store/x-system",
		"STATE": state, "MNT": filepath.Join(p.dir, "mnt"), "ISO": filepath.Join(p.dir, "no-iso"),
		"PHONE_HOME": filepath.Join(p.dir, "phone-home"),
		"DIR":        p.dir, "URL": p.url, "PATH": filepath.Join(p.dir, "bin") + ":" + os.Getenv("PATH"),
	}
	return p
}

func (p *provisionLab) phoneHome() {
	p.t.Helper()
	p.script("phone-home", `case " $* " in *" --attempts 5 "*) set -- "$@" --attempts 2 ;; esac
exec `+bin+`/plasmacloud-phone-home --config "$STATE/cluster-config.json" --deployer-url "$URL" --machine-id `+p.machine+` --join-token-file "$DIR/join-token" --secret-file "$STATE/secret" "$@"`)
}

// script writes one of the machine's programs.
func (p *provisionLab) script(name, text string) {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(filepath.Join(p.dir, name), []byte("#!/usr/bin/env bash\nset -euo pipefail\n"+text), 0o700)) //nolint:gosec // a program
}

func (p *provisionLab) command() []string {
	script, err := filepath.Abs("../nix/iso/provision.sh")
	require.NoError(p.t, err)
	args := []string{"env", "-i"}
	for key, value := range p.env {
		args = append(args, key+"="+value)
	}
	// Mounts that are left behind go with the namespace, as with the power.
	return append(args, "unshare", "--mount", script)
}

// run provisions, and returns the exit status and what the console showed.
func (p *provisionLab) run() (status int, console string) {
	p.t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", p.host.Namespace}, p.command()...)...).CombinedOutput() //nolint:gosec // ours
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	}
	require.NoError(p.t, err)
	return 0, string(out)
}

func (p *provisionLab) plasmactl(args ...string) string {
	p.t.Helper()
	out, err := p.host.Run(append(append([]string{filepath.Join(bin, "plasmactl")}, args...), "--deployer-url", p.url, "--token-file", filepath.Join(p.dir, "operator"))...)
	require.NoError(p.t, err)
	return out
}

// fails provisions in vain until an operator has it retried, and returns what the
// deployer knew then and what the console showed.
func (p *provisionLab) fails() (n api.Node, console string) {
	p.t.Helper()
	var status int
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		status, console = p.run()
	}()
	require.NoError(p.t, lab.Eventually(patience, func() error {
		if n = p.known(); n.State != node.Failed {
			return fmt.Errorf("the node is %s", n.State)
		}
		return nil
	}))
	p.plasmactl("node", "retry", p.node)
	<-ended
	assert.Equal(p.t, 75, status, console)
	assert.Contains(p.t, console, "plasmactl node retry "+p.node)
	assert.Equal(p.t, node.Provisioning, p.known().State)
	return n, console
}

func (p *provisionLab) known() api.Node {
	p.t.Helper()
	out := p.plasmactl("node", "show", p.node, "-o", "json")
	var n api.Node
	require.NoError(p.t, json.Unmarshal([]byte(out), &n))
	return n
}

func (p *provisionLab) untouched() bool {
	p.t.Helper()
	data, err := os.ReadFile(p.disk)
	require.NoError(p.t, err)
	return bytes.Equal(data, make([]byte, emptyDisk))
}

func (p *provisionLab) file(name string) string {
	data, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		return ""
	}
	return string(data)
}

// partitions is what is on the disk, and the label of its file system.
func (p *provisionLab) partitions() string {
	p.t.Helper()
	table, err := exec.Command("sgdisk", "--print", p.disk).CombinedOutput()
	require.NoError(p.t, err, "%s", table)
	label, err := exec.Command("blkid", "--probe", "--offset", fmt.Sprint(9<<20), "--output", "value", "--match-tag", "LABEL", p.disk).CombinedOutput() //nolint:gosec // ours
	require.NoError(p.t, err, "%s", label)
	return string(table) + string(label)
}

func (p *provisionLab) assertInstalled(console string) {
	p.t.Helper()
	n := p.known()
	assert.Equal(p.t, node.Provisioning, n.State)
	assert.Equal(p.t, node.PhaseInstalled, n.Phase)
	assert.Contains(p.t, console, p.node+" is installed; rebooting")
	assert.Equal(p.t, "reboot\n", p.file("systemctl.args"))
	assert.Equal(p.t, "--root "+p.env["MNT"]+" --no-root-passwd --no-channel-copy --system /nix/store/x-system\n", p.file("nixos-install.args"))
	disk := p.partitions()
	assert.Contains(p.t, disk, "EF00")
	assert.Contains(p.t, disk, "nixos")

	// What boots from the disk is this node, without a token.
	_, err := p.host.Run(filepath.Join(bin, "plasmacloud-phone-home"), "--config", filepath.Join(p.env["STATE"], "cluster-config.json"),
		"--deployer-url", p.url, "--machine-id", p.machine, "--secret-file", filepath.Join(p.dir, "target/var/lib/plasmacloud-phone-home/secret"))
	require.NoError(p.t, err)
	assert.Equal(p.t, node.Active, p.known().State)
}

// assertNotStarted: nothing happened to the disk, and the console says why.
func (p *provisionLab) assertNotStarted(console string, says ...string) {
	p.t.Helper()
	assert.True(p.t, p.untouched(), "the disk was written to")
	assert.Empty(p.t, p.file("nixos-install.args"))
	assert.Empty(p.t, p.file("systemctl.args"))
	for _, want := range append(says, p.node+" is NOT installed", "The disk is untouched") {
		assert.Contains(p.t, console, want)
	}
}

func TestProvision(t *testing.T) {
	t.Parallel()
	host := startProvisionLab(t, "provision")

	t.Run("installs, and tells each step", func(t *testing.T) {
		t.Parallel()
		p := provisioned(t, host, "node01")
		// The deployer hears of the node while it installs, for longer than it takes
		// to be offline (three heartbeats of 1s).
		p.script("bin/nixos-install", nixosInstall+`
until [ -e "$DIR/go-on" ]; do sleep 0.05; done
`)
		began := time.Now()
		done := make(chan struct{})
		var status int
		var console string
		go func() { defer close(done); status, console = p.run() }()
		require.NoError(t, lab.Eventually(patience, func() error {
			if p.file("nixos-install.args") == "" {
				return errors.New("nixos-install does not run yet")
			}
			n := p.known()
			if n.LastSeen == nil || n.LastSeen.Before(began.Add(3500*time.Millisecond)) {
				return fmt.Errorf("last seen %v", n.LastSeen)
			}
			if n.State != node.Provisioning || n.Phase != node.PhaseInstalling || n.Reachability != node.Online || n.Attempt != 1 {
				return fmt.Errorf("%s, %s, %s, attempt %d", n.State, n.Phase, n.Reachability, n.Attempt)
			}
			return nil
		}))
		require.NoError(t, os.WriteFile(filepath.Join(p.dir, "go-on"), nil, 0o600))
		<-done
		assert.Equal(t, 0, status, console)
		p.assertInstalled(console)
		var events []string
		for _, e := range p.known().History {
			events = append(events, string(e.Event))
		}
		assert.Equal(t, []string{"declared", "installing", "installing", "installed", "ready"}, events)
	})

	t.Run("refused where the node is active", func(t *testing.T) {
		t.Parallel()
		p := provisioned(t, host, "node02")
		_, err := p.host.Run("env", "DIR="+p.dir, "STATE="+p.env["STATE"], "URL="+p.url, "NODE=node02", p.env["PHONE_HOME"], "--phase", "ready")
		require.NoError(t, err)
		status, console := p.run()
		assert.Equal(t, 77, status, console)
		p.assertNotStarted(console, "already_provisioned", "plasmactl node reinstall node02")
		assert.Equal(t, node.Active, p.known().State)

		// Another machine, with a secret of its own, since that one is dead.
		require.NoError(t, os.Remove(filepath.Join(p.env["STATE"], "secret")))
		p.machine = "machine-in-the-place-of-node02"
		p.phoneHome()
		require.NoError(t, lab.Eventually(patience, func() error {
			if n := p.known(); n.Reachability != node.Offline {
				return fmt.Errorf("the old machine is %s", n.Reachability)
			}
			return nil
		}))
		status, console = p.run()
		assert.Equal(t, 77, status, console)
		p.assertNotStarted(console, "This is another machine", "switch that one off, then plasmactl node reset node02")
		p.plasmactl("node", "reset", "node02")
		status, console = p.run()
		assert.Equal(t, 0, status, console)
		p.assertInstalled(console)
	})

	t.Run("waits where the deployer is away, and where it is another", func(t *testing.T) {
		t.Parallel()
		p := provisioned(t, host, "node03")
		p.env["URL"] = "http://127.0.0.1:1"
		status, console := p.run()
		assert.Equal(t, 1, status, console)
		p.assertNotStarted(console, "not reached")

		p.env["URL"] = "http://" + deployerListen + "/elsewhere"
		status, console = p.run()
		assert.NotEqual(t, 0, status, console)
		p.assertNotStarted(console)

		// Once it is there, the same machine is installed.
		p.env["URL"] = p.url
		status, console = p.run()
		assert.Equal(t, 0, status, console)
		p.assertInstalled(console)
	})
}

// TestProvisionedStays: a machine reboots only once the deployer knows that it is
// installed, so that the ISO, booted again, leaves its disk alone.
func TestProvisionedStays(t *testing.T) {
	t.Parallel()
	p := provisioned(t, startProvisionLab(t, "provstays"), "node01")
	p.script("bin/nixos-install", nixosInstall+`ip address flush dev lo; ip route flush table local`)
	running, err := p.host.Start("provision", p.command()...)
	require.NoError(t, err)
	require.NoError(t, lab.Eventually(patience, func() error {
		if !strings.Contains(running.Output(), "connect: network is unreachable") {
			return fmt.Errorf("it says %s", running.Output())
		}
		return nil
	}))
	assert.Contains(t, running.Output(), "node01 is installed; telling the deployer")
	assert.Empty(t, p.file("systemctl.args"))
	_, err = p.host.Run("ip", "address", "add", "127.0.0.1/8", "dev", "lo")
	require.NoError(t, err)
	<-running.Done()

	before := p.file("disk")
	require.NoError(t, os.Rename(filepath.Join(p.env["STATE"], "secret"), filepath.Join(p.dir, "secret"))) // it was in memory
	status, console := p.run()
	assert.Equal(t, 77, status, console)
	assert.Contains(t, console, "node01 is NOT installed")
	assert.Contains(t, console, "plasmactl node reinstall node01")
	assert.True(t, before == p.file("disk"), "the disk was written to")
	require.NoError(t, os.Rename(filepath.Join(p.dir, "secret"), filepath.Join(p.env["STATE"], "secret")))
	status, console = p.run()
	assert.Equal(t, 77, status, console)
	assert.Contains(t, console, "already_provisioned")
	assert.True(t, before == p.file("disk"), "the disk was written to")
	p.assertInstalled(running.Output())
}

// TestProvisionFails: whatever goes wrong, the deployer has the reason, and what
// was half done is no hindrance to the next run.
func TestProvisionFails(t *testing.T) {
	t.Parallel()
	host := startProvisionLab(t, "provfail")

	t.Run("installation", func(t *testing.T) {
		t.Parallel()
		p := provisioned(t, host, "node01")
		p.script("bin/nixos-install", `
for i in $(seq 1 100); do echo "copying path $i"; done
printf '\033[31;1merror:\033[0m no space left on device\n' >&2
exit 3`)
		n, console := p.fails()
		assert.Contains(t, console, "it failed with status 3")
		assert.Contains(t, console, "systemctl restart plasmacloud-provision")
		assert.Empty(t, p.file("systemctl.args"))
		require.NotNil(t, n.LastError)
		assert.True(t, strings.HasSuffix(n.LastError.Message, "copying path 100\nerror: no space left on device"), "%q", n.LastError.Message)
		assert.NotContains(t, n.LastError.Message, "copying path 50\n")

		// An operator mends it and tries again, on the mounts of the first try.
		p.script("bin/nixos-install", nixosInstall)
		p.env["BASH_ENV"] = filepath.Join(p.dir, "leftover")
		p.script("leftover", `unset BASH_ENV; mount -t tmpfs tmpfs "$MNT"; mkdir -p "$MNT/etc"; mount -t tmpfs tmpfs "$MNT/etc"; touch "$MNT/old"`)
		p.script("bin/nixos-install", `[ ! -e "$MNT/old" ] || { echo "the old target"; exit 1; }`+nixosInstall)
		status, console := p.run()
		assert.Equal(t, 0, status, console)
		p.assertInstalled(console)
	})

	t.Run("layout", func(t *testing.T) {
		t.Parallel()
		p := provisioned(t, host, "node02")
		for script, reason := range map[string]string{
			`sgdisk --new 1:0:+1G "$DISK"; mount -t tmpfs tmpfs "$MNT"`: "Could not create partition 1",
			`true`: "nothing is mounted at " + p.env["MNT"],
		} {
			p.script("layout", script)
			n, _ := p.fails()
			require.NotNil(t, n.LastError)
			assert.Contains(t, n.LastError.Message, reason)
			assert.Empty(t, p.file("nixos-install.args"))
		}

		p.env["DISK"] = "/dev/no-such-disk"
		n, _ := p.fails()
		assert.Contains(t, n.LastError.Message, "there is no /dev/no-such-disk")

		// The stick that it booted from. That /iso is of it, these two say in its place.
		before := p.file("disk")
		p.env["DISK"] = p.disk
		p.script("bin/findmnt", `echo "  8:17 "`)
		p.script("bin/lsblk", `[ "${!#}" = /dev/block/8:17 ] && printf '%s\n' /dev/sdb1 "$DISK"`)
		n, _ = p.fails()
		assert.Contains(t, n.LastError.Message, p.disk+" is the medium that this machine booted from")
		assert.True(t, before == p.file("disk"), "the stick was written to")

		p.env["SYSTEM"] = ""
		status, console := p.run()
		assert.Equal(t, 78, status, console)
		assert.Contains(t, console, "what to install")
	})

	t.Run("power cut", func(t *testing.T) {
		t.Parallel()
		p := provisioned(t, host, "node03")
		p.script("bin/nixos-install", nixosInstall+`sleep 1000`)
		running, err := p.host.Start("node03-provision", p.command()...)
		require.NoError(t, err)
		require.NoError(t, lab.Eventually(patience, func() error {
			if p.file("nixos-install.args") == "" {
				return errors.New("nixos-install does not run yet")
			}
			return nil
		}))
		// Two at once is none: the first one works on the disk.
		status, console := p.run()
		assert.Equal(t, 78, status, console)
		assert.Contains(t, console, "another installation is running")

		require.NoError(t, killGroup(running))
		require.NoError(t, os.Remove(filepath.Join(p.env["STATE"], "secret"))) // it was in memory
		assert.Equal(t, node.PhaseInstalling, p.known().Phase)
		p.script("bin/nixos-install", nixosInstall)
		status, console = p.run()
		assert.Equal(t, 0, status, console)
		p.assertInstalled(console)
	})
}

// killGroup cuts the power of all that the process started.
func killGroup(p *lab.Process) error {
	if err := p.SignalGroup(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.Done()
	return nil
}
