package vmtests

import (
	"encoding/json"
	"errors"
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
	Users  map[string]string `json:"users"`
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
		Guest: guest, Debian: debian, Programs: map[string]string{"/usr/bin/gobgp": filepath.Join(bin, "v4", "gobgp")}, Groups: node.Groups, Users: node.Users,
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
			case "systemctl":
				found = filepath.Join(debian, "root/bin/systemctl")
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
	expect := expectations(t)
	wanted := expect.routes(t, "node01")
	learned := func(want ...lab.Route) func() error {
		return func() error {
			routes, err := bird.Routes()
			if err == nil && !assert.ElementsMatch(new(assert.CollectT), want, routes) {
				err = fmt.Errorf("the router has %+v, want %+v", routes, want)
			}
			return err
		}
	}
	active := func() error {
		out, err := deployer.Run(filepath.Join(bin, "plasmactl"), "node", "show", "node01", "-o", "json", "--deployer-url", "http://10.0.0.100:8080")
		if err != nil {
			return err
		}
		var shown shownNode
		if err := json.Unmarshal([]byte(out), &shown); err != nil || shown != expect.After {
			return fmt.Errorf("node01 is %+v: %w", shown, err)
		}
		return nil
	}
	took, err := m.Follow(qemu.Phases(false, qemu.Phase{Name: "routes", Check: learned(wanted...)}, qemu.Phase{Name: "Active", Check: active})...)
	require.NoError(t, err)
	t.Log(took)
	const node, asking = "10.0.0.11", 90 * time.Second
	run := func(commands string) string {
		t.Helper()
		out, err := qemu.Shell(deployer, node, asking, commands)
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
			line, err := net.DialTimeout("tcp", net.JoinHostPort(expect.VIPs["web"].Address.String(), "8080"), 5*time.Second)
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

	const announcer = "plasmacloud-announcer.service"
	show := func(unit, property string) string {
		return strings.TrimSpace(run("systemctl show -P " + property + " " + unit))
	}
	serves := func() error {
		status, err := qemu.Shell(deployer, node, asking, "systemctl show -P StatusText "+announcer)
		if want := "announced 3 of 3 healthy VIPs; speaker: ready"; err == nil && strings.TrimSpace(status) != want {
			err = fmt.Errorf("the announcer's status is %q, want %q", status, want)
		}
		return err
	}

	await("the announcer has settled", serves)
	heard, err := bird.Updates()
	require.NoError(t, err)
	for range 3 {
		before := show(announcer, "MainPID")
		run("systemctl restart " + announcer)
		assert.NotEqual(t, before, show(announcer, "MainPID"))
		await("the next announcer has settled", serves)
	}
	now, err := bird.Updates()
	require.NoError(t, err)
	assert.Equal(t, heard, now, "the router hears nothing of a restart")
	assert.Equal(t, 3, strings.Count(m.Console(), "handed over: all stays as it is, for the next announcer"))

	// A router keeps the routes of a gobgpd that is killed, so what counts is the table
	// of the next one, and that the router heard of them again.
	killed := show("gobgpd.service", "MainPID")
	run("systemctl kill -s KILL gobgpd.service")
	await("the next gobgpd has the routes", func() error {
		out, err := qemu.Shell(deployer, node, asking, "systemctl show -P MainPID gobgpd.service; for family in ipv4 ipv6; do gobgp global rib -a $family; done")
		if err == nil && strings.HasPrefix(out, killed+"\n") {
			err = errors.New("it runs as before")
		}
		for _, route := range wanted {
			if err == nil && !strings.Contains(out, route.Prefix.String()) {
				err = fmt.Errorf("gobgpd has %s", out)
			}
		}
		return err
	})
	await("the router has heard them again", func() error {
		now, err := bird.Updates()
		if err == nil && now < heard+len(wanted) {
			err = fmt.Errorf("it has heard %d, before %d", now, heard)
		}
		return err
	})
	await("the session is up for gobgpd too", func() error {
		out, err := qemu.Shell(deployer, node, asking, "gobgp neighbor 10.0.0.1")
		if err == nil && !strings.Contains(out, "ESTABLISHED") {
			err = fmt.Errorf("gobgpd says %s", out)
		}
		return err
	})
	await("the routes are back", learned(wanted...))

	held := "ip address show dev lo | grep -c -F"
	for _, route := range wanted {
		held += " -e " + route.Prefix.String()
	}
	held += " || true"
	assert.Equal(t, "3\n", run(held))
	begun := time.Now()
	run("systemctl stop " + announcer)
	require.NoError(t, learned()(), "a stop withdraws")
	t.Logf("a stop took %s", time.Since(begun).Round(time.Millisecond))
	assert.Equal(t, "0\n", run(held))
	require.Error(t, reached())
	run("systemctl start " + announcer)
	await("the routes are there after a start", learned(wanted...))

	// One that is killed and does not come back leaves all as it is, until it is released:
	// here without waiting for the minute that the unit does.
	const release = "plasmacloud-announcer-release.service"
	run("systemctl stop " + release + `
		cd /run/systemd/system
		mkdir -p ` + release + ".d " + announcer + `.d
		sed -n -e 's/--after 1m/--after 10s/' -e '/^ExecStart=/s//[Service]\nExecStart=\n&/p' /etc/systemd/system/` + release + ` > ` + release + `.d/soon.conf
		printf '[Service]\nRestart=no\n' > ` + announcer + `.d/once.conf
		systemctl daemon-reload`)
	require.Contains(t, show(release, "ExecStart"), "--after 10s")
	require.Equal(t, "no", show(announcer, "Restart"))
	assert.Equal(t, "3\n", run("systemctl kill -s KILL "+announcer+"; "+held))
	require.NoError(t, learned(wanted...)(), "nobody has withdrawn yet")
	await("released", learned())
	await("the release has ended", func() error {
		out, err := qemu.Shell(deployer, node, asking, "systemctl show -P ActiveState "+release+"; systemctl show -P Result "+release+"; "+held)
		if want := "inactive\nsuccess\n0\n"; err == nil && out != want {
			err = fmt.Errorf("it is %q, want %q", out, want)
		}
		return err
	})
	run("systemctl start " + announcer)
	await("the routes are there again", learned(wanted...))
	await("a client reaches the VIP again", reached)
}
