package vmtests

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/bootsite"
	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
	"github.com/centra/plasmacloud/vmtests/qemu"
	"github.com/centra/plasmacloud/vmtests/scenario"
)

// systemdNode is what nix/tests/machine.nix says of the example's node01.
type systemdNode struct {
	Units  map[string]string `json:"units"`
	Etc    map[string]string `json:"etc"`
	Groups []string          `json:"groups"`
	Users  map[string]string `json:"users"`
}

// webUnit is the service behind the VIPs: what their checks ask, and what clients do.
const webUnit = `[Service]
ExecStart=/bin/sh -c '/bin/busybox httpd -p [::]:80 -h /srv && exec /bin/busybox httpd -f -p [::]:8080 -h /srv'
[Install]
WantedBy=multi-user.target
`

// webQueue is how many connections wait for busybox' web server to take them. Of more the
// kernel drops some that clients believe to have, and resets them when they send. There are
// two clients.
const webQueue = 9

var ofStore = regexp.MustCompile(`/nix/store/[^/\s]+/bin/[^\s]+`)

// systemdImage is a Debian with systemd and the services of node01, as Nix wrote
// them, and every program where they look for it.
func systemdImage(t *testing.T, place labcluster.Place) string {
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
		Guest: guest, Debian: debian, Groups: node.Groups, Users: node.Users, Network: place.Network,
		Programs: map[string]string{"/usr/bin/gobgp": filepath.Join(bin, "v4", "gobgp"), "/usr/bin/plasmactl": filepath.Join(bin, "plasmactl")},
		Files: map[string]string{"/etc/hosts": fmt.Sprintf("127.0.0.1 localhost\n%s deployer\n", place.Address), "/etc/hostname": "node01\n",
			"/srv/healthz": "ok\n", "/srv/index.html": "node01\n"},
		Units: map[string]string{"web.service": webUnit},
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

// TestSystemd puts a machine into the lab of the example, in the place of node01: a
// Debian whose systemd runs the units of that node. Everything else is outside of it:
// routers, a client behind them, the deployer, and the other nodes. It plays the
// scenarios that sites.json has for this site, and looks at what they do not say. An
// emulated machine may be many times slower than its clock, so nothing here asks how
// soon something was, only in which order, and that it was not too soon.
func TestSystemd(t *testing.T) {
	repo, err := filepath.Abs("..")
	require.NoError(t, err)
	evaluated, err := labcluster.Evaluate(t.Context(), repo, map[string]string{"it": "import " + repo + "/nix/examples/three-nodes/cluster.nix"})
	require.NoError(t, err)
	var m *guest
	c, err := labcluster.Start(labcluster.Config{
		Name: "systemd", Cluster: evaluated["it"], Deployer: true, Clients: true, Requests: 20 * time.Second, AtOnce: webQueue / 2,
		Programs: labcluster.Programs{Bin: bin, GoBGPD: filepath.Join(bin, "v4", "gobgpd"), GoBGP: filepath.Join(bin, "v4", "gobgp"), Router: lab.GoBGPIn(filepath.Join(bin, "v4"))},
		Machines: map[string]func(labcluster.Place) (labcluster.Control, error){"node01": func(place labcluster.Place) (labcluster.Control, error) {
			m = &guest{place: place, address: "10.0.0.11", dir: systemdImage(t, place), t: t}
			return m, nil
		}},
	})
	t.Cleanup(func() {
		if t.Failed() && m != nil && m.Machine != nil {
			t.Logf("the console:\n%s", m.Console())
		}
		assert.NoError(t, c.Close())
	})
	require.NoError(t, err)
	t.Parallel() // only now, so that the longest test is the first to begin
	took, err := m.Follow(qemu.Phases(false, qemu.Phase{Name: "settled", Check: func() error {
		return labcluster.Err(labcluster.Failed(c.Checks(t.Context())))
	}})...)
	require.NoError(t, err)
	t.Log(took)
	bird := c.Routers["router1"]
	expect := expectations(t)
	wanted := expect.routes(t, "node01")
	learned := func(want ...lab.Route) func() error {
		return func() error {
			routes, err := bird.Routes()
			routes = slices.DeleteFunc(routes, func(r lab.Route) bool {
				return r.NextHop != expect.NextHops["node01"].IPv4 && r.NextHop != expect.NextHops["node01"].IPv6
			})
			if err == nil && !assert.ElementsMatch(new(assert.CollectT), want, routes) {
				err = fmt.Errorf("the router has %+v, want %+v", routes, want)
			}
			return err
		}
	}
	require.NoError(t, learned(wanted...)())
	run := func(commands string) string {
		t.Helper()
		out, err := m.shell(commands)
		require.NoError(t, err)
		return out
	}
	await := func(what string, check func() error) {
		t.Helper()
		took, err := m.Follow(qemu.Phase{Name: what, Check: check})
		require.NoError(t, err)
		t.Log(took)
	}

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

	scenarios, err := scenario.At("qemu")
	require.NoError(t, err)
	require.NotEmpty(t, scenarios)
	for _, s := range scenarios {
		result := s.Play(t.Context(), scenario.Stage{
			Start:    func(context.Context, scenario.Change) (*labcluster.Cluster, error) { return c, nil },
			Stands:   true,
			Has:      guestHas,
			Patience: 2 * qemu.Limit,
			Pull:     100 * time.Millisecond,
		})
		require.Empty(t, result.Skipped, s.Name)
		require.Empty(t, result.Error, s.Name)
		t.Logf("%s: %s", s.Name, result.Took.Round(time.Millisecond))
		for _, v := range result.Clients {
			t.Logf("  %s by %s: %d requests, %d lost, %v", v.VIP, v.Router, v.Tally.Requests, v.Tally.Lost, v.Tally.Nodes)
		}
	}

	const announcer = "plasmacloud-announcer.service"
	show := func(unit, property string) string {
		return strings.TrimSpace(run("systemctl show -P " + property + " " + unit))
	}
	serves := func() error {
		status, err := m.shell("systemctl show -P StatusText " + announcer)
		if want := "announced 3 of 3 healthy VIPs; speaker: ready"; err == nil && strings.TrimSpace(status) != want {
			err = fmt.Errorf("the announcer's status is %q, want %q", status, want)
		}
		return err
	}

	// The router hears nothing of a restart. A machine that is slow enough fails its checks
	// meanwhile, of which the router does hear: that is no try.
	const handed = "handed over: all stays as it is, for the next announcer"
	checksFailed := func() int { return strings.Count(m.Console(), "status=down") }
	for try := 1; ; try++ {
		require.NoError(t, lab.Eventually(qemu.Limit, serves))
		failed := checksFailed()
		heard, err := bird.Updates()
		require.NoError(t, err)
		before, times := show(announcer, "MainPID"), strings.Count(m.Console(), handed)
		run("systemctl restart " + announcer)
		assert.NotEqual(t, before, show(announcer, "MainPID"))
		await("the next announcer has settled", serves)
		assert.Equal(t, times+1, strings.Count(m.Console(), handed))
		now, err := bird.Updates()
		require.NoError(t, err)
		if now == heard {
			break
		}
		require.NotEqual(t, failed, checksFailed(), "the router heard of a restart: %d UPDATEs, and %d before it", now, heard)
		require.Less(t, try, 5, "a check fails in every restart")
	}

	held := "ip address show dev lo | grep -c -F"
	for _, route := range wanted {
		held += " -e " + route.Prefix.String()
	}
	held += " || true"
	assert.Equal(t, "3\n", run(held))
	// One that is killed and does not come back leaves all as it is, until it is released:
	// here without waiting for the minute that the unit does.
	const release = "plasmacloud-announcer-release.service"
	run("systemctl stop " + release + `
		cd /run/systemd/system
		mkdir -p ` + release + ".d " + announcer + `.d
		sed -n -e 's/--after 1m/--after 5s/' -e '/^ExecStart=/s//[Service]\nExecStart=\n&/p' /etc/systemd/system/` + release + ` > ` + release + `.d/soon.conf
		printf '[Service]\nRestart=no\n' > ` + announcer + `.d/once.conf
		systemctl daemon-reload`)
	require.Contains(t, show(release, "ExecStart"), "--after 5s")
	require.Equal(t, "no", show(announcer, "Restart"))
	killed := time.Now()
	assert.Equal(t, "3\n", run("systemctl kill -s KILL "+announcer+"; "+held))
	await("released", learned())
	assert.Greater(t, time.Since(killed), 5*time.Second, "nobody withdraws before it is released")
	await("the release has ended", func() error {
		out, err := m.shell("systemctl show -P ActiveState " + release + "; systemctl show -P Result " + release + "; " + held)
		if want := "inactive\nsuccess\n0\n"; err == nil && out != want {
			err = fmt.Errorf("it is %q, want %q", out, want)
		}
		return err
	})
	run("systemctl start " + announcer)
	await("the routes are there again", learned(wanted...))

	provisionRestarts(t, run, await, m.shell)

	begun := time.Now()
	run("systemctl stop " + announcer)
	require.NoError(t, learned()(), "a stop withdraws")
	t.Logf("a stop took %s", time.Since(begun).Round(time.Millisecond))
	assert.Equal(t, "0\n", run(held))
}
