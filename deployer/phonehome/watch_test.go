package phonehome

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// shortDir is a directory whose name leaves room for that of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "phone")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// announcerAt answers at a socket with what state holds.
func announcerAt(t *testing.T, state *atomic.Value) (socket string) {
	t.Helper()
	socket = filepath.Join(shortDir(t), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/state" {
			t.Errorf("asked for %s", r.URL)
		}
		_, _ = w.Write([]byte(state.Load().(string)))
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	return socket
}

func vipState(at string, tableRead bool, vips ...string) string {
	return fmt.Sprintf(`{"status": {"at": %s, "table_read": %v, "vips": [%s]}, "drains": {}}`, at, tableRead, strings.Join(vips, ","))
}

func aVIP(address, want, cause, why string, announced, lowered bool) string {
	return fmt.Sprintf(`{"address": %q, "want": %q, "cause": %q, "why": %q, "announced": %v, "lowered": %v}`, address, want, cause, why, announced, lowered)
}

const past = `"2026-03-01T12:00:00Z"`

func TestVIPsOfTheAnnouncer(t *testing.T) {
	var state atomic.Value
	state.Store("")
	w := watch{announcer: newAnnouncer(announcerAt(t, &state)), given: []string{"203.0.113.99/32"}}
	for _, step := range []struct{ name, state, announced, others string }{
		{"no JSON", "{", "[203.0.113.99/32]", "[]"},
		{"starting", vipState("null", true, aVIP("203.0.113.10", "announce", "health", "up", true, false)), "[203.0.113.99/32]", "[]"},
		{"each state", vipState(past, true,
			aVIP("203.0.113.10", "announce", "health", "up", true, false), aVIP("203.0.113.11", "announce", "health", "up", false, false),
			aVIP("203.0.113.12", "withdraw", "drained", "drained by uid 0: why", false, false), aVIP("203.0.113.13", "withdraw", "drained", "so", true, true),
			aVIP("2001:db8::10", "withdraw", "health", "check is down: 1 of 3\n\x1b", false, false), aVIP("no address", "announce", "", "", true, false)),
			"[203.0.113.10/32 203.0.113.99/32]",
			"[{203.0.113.11/32 missing up} {203.0.113.12/32 drained drained by uid 0: why} {203.0.113.13/32 lowered so} {2001:db8::10/128 withdrawn check is down: 1 of 3 \uFFFD}]"},
		{"the reason stays while its cause does", vipState(past, true, aVIP("2001:db8::10", "withdraw", "health", "check is down: 2 of 3", false, false)),
			"[203.0.113.99/32]", "[{2001:db8::10/128 withdrawn check is down: 1 of 3 \uFFFD}]"},
		{"another cause", vipState(past, true, aVIP("2001:db8::10", "withdraw", "damped", "too often", false, false)),
			"[203.0.113.99/32]", "[{2001:db8::10/128 withdrawn too often}]"},
		{"without the table", vipState(past, false, aVIP("2001:db8::10", "announce", "health", "up", false, false)),
			"[203.0.113.99/32]", "[{2001:db8::10/128 unknown the announcer cannot read the speaker's table}]"},
		{"no answer", "", "[203.0.113.99/32]", "[{2001:db8::10/128 unknown the announcer answers with something else than its state}]"},
		{"back", vipState(past, true, aVIP("2001:db8::10", "announce", "health", "up", true, false)), "[203.0.113.99/32 2001:db8::10/128]", "[]"},
	} {
		state.Store(strings.ReplaceAll(step.state, `\x1b`, `\u001b`))
		w.look(t.Context())
		if got := fmt.Sprint(w.last.announced); got != step.announced {
			t.Errorf("%s: announced %s, want %s", step.name, got, step.announced)
		}
		if got := fmt.Sprint(w.last.others); got != step.others {
			t.Errorf("%s: others %q, want %q", step.name, got, step.others)
		}
	}
	w.announcer = newAnnouncer(filepath.Join(t.TempDir(), "none"))
	if w.look(t.Context()); fmt.Sprint(w.last.others) != "[{2001:db8::10/128 unknown the announcer does not run}]" {
		t.Errorf("without an announcer: %v", w.last.others)
	}
}

func TestReportHasRoom(t *testing.T) {
	var o observation
	for i := range 2000 {
		o.announced = append(o.announced, fmt.Sprintf("2001:db8:1111:2222:3333:4444:5555:%x/128", i))
		o.others = append(o.others, node.VIPState{VIP: fmt.Sprintf("2001:db8:1111:2222:3333:4444:6666:%x/128", i), State: node.VIPWithdrawn, Reason: strings.Repeat("<", 256)})
	}
	vips, states, leftOut := o.fit()
	request := api.PhoneHomeRequest{NodeID: "node01", VIPs: vips, VIPStates: states, VIPsLeftOut: leftOut}
	body, err := json.Marshal(request)
	if err != nil || len(body) > api.MaxRequestBytes*3/4 || len(vips) < 500 || len(vips)+len(states)+leftOut != 4000 {
		t.Errorf("%d bytes, %d and %d, %d left out, %v", len(body), len(vips), len(states), leftOut, err)
	}
	o.announced, o.others = o.announced[:100], o.others[:10]
	if vips, states, leftOut := o.fit(); len(vips) != 100 || len(states) != 10 || leftOut != 0 {
		t.Errorf("%d and %d, %d left out", len(vips), len(states), leftOut)
	}
}

// What changes is reported before the next heartbeat is due, and no flap makes more of
// that than four reports an interval.
func TestChangesAreReportedSoon(t *testing.T) {
	var state atomic.Value
	up := vipState(past, true, aVIP("203.0.113.10", "announce", "health", "up", true, false))
	down := vipState(past, true, aVIP("203.0.113.10", "withdraw", "health", "down", false, false))
	state.Store(up)
	socket := announcerAt(t, &state)
	synctest.Test(t, func(t *testing.T) {
		s := &script{t: t, answers: []answer{accepts(node.Active, 60)}}
		cfg, _ := testConfig(t, s)
		cfg.AnnouncerSocket, cfg.Heartbeat = socket, true
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		defer cancel()
		go func() { ended <- Run(ctx, cfg) }()
		passes := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		passes(90 * time.Second) // the first heartbeat comes at any time within an interval
		if fmt.Sprint(s.last.VIPs) != "[203.0.113.10/32]" || len(s.last.VIPStates) != 0 {
			t.Fatalf("%d requests, %+v", len(s.at), s.last)
		}
		state.Store(down)
		passes(22 * time.Second) // a quarter of the interval, the jitter, and a look
		if fmt.Sprint(s.last.VIPStates) != "[{203.0.113.10/32 withdrawn down}]" || len(s.last.VIPs) != 0 {
			t.Fatalf("%d requests, %+v", len(s.at), s.last)
		}
		before := len(s.at)
		for i := range 300 { // ten minutes
			state.Store([]string{up, down}[i%2])
			passes(2 * time.Second)
		}
		if n := len(s.at) - before; n < 20 || n > 45 {
			t.Errorf("%d reports in ten intervals of a flap", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A refused node asks once a minute, however much changes on it.
func TestRefusedIsNotHastened(t *testing.T) {
	var state atomic.Value
	state.Store(vipState(past, true, aVIP("203.0.113.10", "announce", "health", "up", true, false)))
	socket := announcerAt(t, &state)
	synctest.Test(t, func(t *testing.T) {
		s := &script{t: t, answers: []answer{accepts(node.Active, 60), refuses(403, node.CodeUnknownNode)}}
		cfg, _ := testConfig(t, s)
		cfg.AnnouncerSocket, cfg.Heartbeat = socket, true
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- Run(ctx, cfg) }()
		time.Sleep(90 * time.Second)
		state.Store(vipState(past, true, aVIP("203.0.113.10", "withdraw", "health", "down", false, false)))
		before := len(s.at)
		time.Sleep(10 * time.Minute)
		if n := len(s.at) - before; n < 8 || n > 12 {
			t.Errorf("%d reports in ten minutes", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// systemd is a stand-in for the manager, whose interface is the real one's: there is no
// systemd where tests run.
type systemd map[string][3]string // load, active and sub state

type unitStatus struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	Job                                             uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

func (s systemd) ListUnitsByNames(names []string) ([]unitStatus, *dbus.Error) {
	var all []unitStatus
	for _, name := range names {
		if u, ok := s[name]; ok {
			all = append(all, unitStatus{Name: name, Load: u[0], Active: u[1], Sub: u[2], Path: "/x", JobPath: "/"})
		}
	}
	return all, nil
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`

func TestServices(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	socket, config := filepath.Join(dir, "bus"), filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, socket), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--nosyslog")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = daemon.Process.Kill(); _ = daemon.Wait() }()
	var conn *dbus.Conn
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if conn, err = dbus.Connect("unix:path=" + socket); err == nil {
			break
		} else if time.Since(begin) > 10*time.Second {
			t.Fatal(err)
		}
	}
	defer conn.Close()
	units := unitNames([]string{"gobgpd", "plasmacloud-announcer.service", "etcd", "absent.service", "odd", "none"})
	if list := services(t.Context(), socket, units[:1]); fmt.Sprint(list) != "[{gobgpd.service unknown systemd does not answer}]" {
		t.Errorf("without systemd: %v", list)
	}
	manager := systemd{
		"gobgpd.service": {"loaded", "active", "running"}, "plasmacloud-announcer.service": {"loaded", "reloading", "reload"},
		"etcd.service": {"loaded", "failed", "failed"}, "absent.service": {"not-found", "inactive", "dead"}, "odd.service": {"loaded", "<b>", "x"},
	}
	if err := conn.Export(manager, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	want := "[{gobgpd.service active } {plasmacloud-announcer.service reloading } {etcd.service failed failed} " +
		"{absent.service inactive unit is not-found} {odd.service unknown systemd says <b>} {none.service unknown systemd says nothing of it}]"
	if list := services(t.Context(), socket, units); fmt.Sprint(list) != want {
		t.Errorf("%v, want\n%s", list, want)
	}
	if list := services(t.Context(), dir+"/none", units[:1]); fmt.Sprint(list) != "[{gobgpd.service unknown the system bus cannot be reached}]" {
		t.Errorf("without a bus: %v", list)
	}
}
