package vmtests

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/bootsite"
	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/qemu"
)

// systemdNode is what nix/tests/machine.nix says of the example's node01.
type systemdNode struct {
	Units  map[string]string `json:"units"`
	Etc    map[string]string `json:"etc"`
	Groups []string          `json:"groups"`
}

// webUnit is the service behind the VIPs, which their checks ask.
const webUnit = `[Service]
ExecStart=/bin/busybox httpd -f -p [::]:8080 -h /srv
[Install]
WantedBy=multi-user.target
`

var ofStore = regexp.MustCompile(`/nix/store/[^/\s]+/bin/[^\s]+`)

// systemdImage is a Debian with systemd and the services of node01, as Nix wrote
// them, and every program where they look for it.
func systemdImage(t *testing.T) string {
	t.Helper()
	repo, err := filepath.Abs("..")
	require.NoError(t, err)
	guest, err := bootsite.Guest(t.Context(), repo)
	require.NoError(t, err)
	debian := filepath.Join(repo, ".cache", "userland")
	out, err := exec.Command("../.ci/userland", debian).CombinedOutput()
	require.NoError(t, err, string(out))
	var node systemdNode
	nix(t, fmt.Sprintf(`
		let
		  bare = import %[1]s/nix/offline/lib;
		  lib = bare // { nixosSystem = import %[1]s/nix/offline/nixos.nix { lib = bare; }; };
		  mkCluster = import %[1]s/nix/lib/mk-cluster.nix {
		    inherit lib;
		    nixosModule.imports = [ %[1]s/nix/nix-nos/modules %[1]s/nix/modules/plasmacloud-cluster.nix %[1]s/nix/modules/plasmacloud-deployer.nix
		      %[1]s/nix/modules/plasmacloud-network.nix %[1]s/nix/modules/plasmacloud-phone-home.nix ];
		  };
		in import %[1]s/nix/tests/machine.nix { inherit lib mkCluster; }`, repo), &node)
	u := qemu.Userland{
		Guest: guest, Debian: debian, Programs: map[string]string{}, Groups: node.Groups,
		Files:   map[string]string{"/etc/hosts": "127.0.0.1 localhost\n10.0.0.100 deployer\n", "/etc/hostname": "node01\n", "/srv/healthz": "ok\n"},
		Units:   map[string]string{"web.service": webUnit},
		Network: []string{"address add 10.0.0.11/24 dev eth0", "-6 address add 2001:db8:0:1::11/64 dev eth0", "route add default via 10.0.0.1"},
	}
	for name, text := range node.Etc {
		u.Files["/etc/"+name] = text
	}
	for name, text := range node.Units {
		u.Units[name+".service"] = text
		for _, program := range ofStore.FindAllString(text, -1) {
			found := filepath.Join(bin, filepath.Base(program))
			switch filepath.Base(program) {
			case "gobgpd":
				found = filepath.Join(bin, "v4", "gobgpd")
			case "kill":
				found = filepath.Join(debian, "root/bin/busybox")
			}
			u.Programs[program] = found
		}
	}
	dir := t.TempDir()
	require.NoError(t, u.Build(dir))
	return dir
}

// TestSystemd boots a Debian whose systemd runs the units of the example's node01. A
// router outside of the machine has to learn the VIPs, and a client to reach them.
func TestSystemd(t *testing.T) {
	t.Parallel()
	dir := systemdImage(t)
	l, err := lab.New("systemd")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	host := func(name string) *lab.Host {
		h, err := l.Host(name)
		require.NoError(t, err)
		return h
	}
	prefixes := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	router, client, deployer := host("router1"), host("client"), host("deployer")
	require.NoError(t, l.Switch(map[*lab.Host][]netip.Prefix{
		router:   prefixes("10.0.0.1/24", "2001:db8:0:1::1/64"),
		deployer: prefixes("10.0.0.100/24"),
	}))
	require.NoError(t, l.Link(router, prefixes("192.0.2.1/24"), client, prefixes("192.0.2.2/24")))
	_, err = client.IP("route", "add", "default", "via", "192.0.2.1")
	require.NoError(t, err)
	require.NoError(t, router.Inside(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600) }))
	bird, err := router.StartBIRD(lab.RouterConfig{ASN: 65000, RouterID: netip.MustParseAddr("10.0.0.1"), Passive: true, Forwards: true,
		Neighbors: []lab.Neighbor{{Address: netip.MustParseAddr("10.0.0.11"), ASN: 65001}}})
	require.NoError(t, err)

	result, err := nixeval.New(nixeval.Config{Lib: nixeval.LibOffline}).Eval(t.Context(), "..#three-nodes")
	require.NoError(t, err)
	files := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(files, name)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	config := write("deployer.json", fmt.Sprintf(`{"listen": "10.0.0.100:8080", "manifest": %q, "store": {"path": %q}}`,
		write("manifest.json", string(result.Manifest.JSON())), filepath.Join(files, "state.db")))
	_, err = deployer.Start("deployer", filepath.Join(bin, "plasmacloud-deployer"), "serve", "--config", config)
	require.NoError(t, err)

	m, err := qemu.Start(t.Context(), l.SwitchHost, qemu.Config{
		Name: "node01", Kernel: filepath.Join(dir, "kernel"), Initrd: filepath.Join(dir, "initrd"), Args: qemu.UserlandArgs,
		Disk: filepath.Join(dir, "disk"), Switch: "br0", UUID: "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a01", Memory: 512,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the console:\n%s", m.Console())
		}
	})
	vips := []string{"203.0.113.10/32", "203.0.113.20/32", "2001:db8:0:2::10/128"}
	learned := func(want bool) func() error {
		return func() error {
			routes, err := bird.Routes()
			has := map[string]bool{}
			for _, r := range routes {
				has[r.Prefix.String()] = true
			}
			for _, vip := range vips {
				if has[vip] != want && err == nil {
					err = fmt.Errorf("the router has %v", routes)
				}
			}
			return err
		}
	}
	active := func() error {
		out, err := deployer.Run(filepath.Join(bin, "plasmactl"), "node", "show", "node01", "-o", "json", "--deployer-url", "http://10.0.0.100:8080")
		if err != nil {
			return err
		}
		var shown struct{ State, Config string }
		if err := json.Unmarshal([]byte(out), &shown); err != nil || shown.State != "Active" || shown.Config != "in_sync" {
			return fmt.Errorf("node01 is %+v: %w", shown, err)
		}
		return nil
	}
	took, err := m.Follow(qemu.Phases(false, qemu.Phase{Name: "routes", Check: learned(true)}, qemu.Phase{Name: "Active", Check: active})...)
	require.NoError(t, err)
	t.Log(took)
	run := func(commands string) string {
		t.Helper()
		out, err := qemu.Shell(deployer, "10.0.0.11", 30*time.Second, commands)
		require.NoError(t, err)
		return out
	}
	await := func(what string, check func() error) {
		t.Helper()
		took, err := m.Follow(qemu.Phase{Name: what, Check: check})
		require.NoError(t, err)
		t.Log(took)
	}
	reached := func() error {
		return client.Inside(func() error {
			line, err := net.DialTimeout("tcp", "203.0.113.10:8080", 5*time.Second)
			if err != nil {
				return err
			}
			defer line.Close()
			if err := line.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				return err
			}
			if _, err := io.WriteString(line, "GET /healthz HTTP/1.0\r\n\r\n"); err != nil {
				return err
			}
			answer, err := io.ReadAll(line)
			if !strings.Contains(string(answer), "200 OK") {
				err = fmt.Errorf("the VIP answers %q: %w", answer, err)
			}
			return err
		})
	}
	await("a client reaches the VIP", reached)

	const units = "gobgpd.service plasmacloud-announcer.service plasmacloud-phone-home.service"
	assert.Equal(t, "active\nactive\nactive\n", run("systemctl is-active "+units))
	verified := run("systemd-analyze verify --man=no --recursive-errors=no " + units + " 2>&1 || true")
	assert.Empty(t, later.ReplaceAllString(verified, ""))
	// What confines them is real: another user, no root's rights, a disk that cannot be written.
	confined := run("for unit in " + units + "; do pid=$(systemctl show -P MainPID $unit); grep -E '^(Uid|NoNewPrivs|Seccomp|CapEff):' /proc/$pid/status; grep -c ' / / ro' /proc/$pid/mountinfo || true; done")
	t.Log(confined)
	assert.Equal(t, 3, strings.Count(confined, "NoNewPrivs:\t1"), confined)
	assert.Equal(t, 3, strings.Count(confined, "Seccomp:\t2"), confined)
	assert.Contains(t, confined, "CapEff:\t0000000000000400", "gobgpd binds a low port")
	assert.Contains(t, confined, "CapEff:\t0000000000001000", "the announcer changes addresses")
	assert.Contains(t, confined, "CapEff:\t0000000000000000", "phone-home may do nothing")

	started := run("systemctl show -P NRestarts gobgpd.service")
	run("systemctl kill -s KILL gobgpd.service")
	await("systemd starts gobgpd again", func() error {
		if again, err := qemu.Shell(deployer, "10.0.0.11", 30*time.Second, "systemctl show -P NRestarts gobgpd.service"); err != nil || again == started {
			return fmt.Errorf("restarts: %s, %w", again, err)
		}
		return nil
	})
	await("the routes are back", learned(true))
	run("systemctl restart plasmacloud-announcer.service")
	await("the routes are there after a restart", learned(true))
	begun := time.Now()
	run("systemctl stop plasmacloud-announcer.service")
	require.NoError(t, learned(false)(), "a stop withdraws")
	t.Logf("a stop took %s", time.Since(begun).Round(time.Millisecond))
	assert.NotContains(t, run("ip address show dev lo"), "203.0.113.")
	require.Error(t, reached())
	run("systemctl start plasmacloud-announcer.service")
	await("the routes are there after a start", learned(true))
}
