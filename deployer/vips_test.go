package deployer_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

const (
	vip1 = "203.0.113.10/32"
	vip2 = "2001:db8::10/128"
)

// announces is a report of a node that is ready and announces vips.
func announces(machine string, vips ...string) node.Report {
	r := report(node.PhaseReady)
	r.MachineID, r.VIPs = machine, vips
	return r
}

func (w *world) declareVIPs(vips ...deployer.VIPDeclaration) {
	w.t.Helper()
	if err := w.DeclareVIPs(vips); err != nil {
		w.t.Fatal(err)
	}
}

// passes lets time go by as it does with Run: a look every two seconds, each node that
// is named goes on reporting.
func (w *world) passes(d time.Duration, speaking map[string]node.Report) {
	w.t.Helper()
	for ; d > 0; d -= 2 * time.Second {
		w.clock.add(2 * time.Second)
		for id, r := range speaking {
			w.says(id, r)
		}
		w.tick()
	}
}

func (w *world) allVIPs() []deployer.VIP {
	w.t.Helper()
	views, err := w.Nodes(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return w.VIPsOf(views)
}

// vips is one line for each VIP.
func (w *world) vips() string {
	w.t.Helper()
	var lines []string
	for _, v := range w.allVIPs() {
		line := fmt.Sprintf("%s %s %d:", v.VIP, v.Status, v.Announced)
		if !v.Declared {
			line = "undeclared " + line
		}
		for _, n := range v.Nodes {
			line += fmt.Sprintf(" %s %s", n.ID, n.Why())
			if !n.Declared {
				line += " undeclared"
			}
			line += ";"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// vipEvents are the events of VIPs, in one line each.
func (w *world) vipEvents() string {
	w.t.Helper()
	var lines []string
	for after := ""; ; {
		page, err := w.Events(w.t.Context(), after, 1000)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range page.Events {
			if e.Event == store.EventVIPAnnounced || e.Event == store.EventVIPUnannounced {
				lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", e.Node, e.VIP, e.Event, e.Reason)))
			}
		}
		if after = page.Next; !page.More {
			return strings.Join(lines, "\n")
		}
	}
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
	}
}

func TestVIPsByNode(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01", "node02", "node03")...)
	w.declareVIPs(deployer.VIPDeclaration{VIP: vip2, Nodes: []string{"node02", "node03", "node09"}},
		deployer.VIPDeclaration{VIP: vip1, Nodes: []string{"node02", "node01"}})
	same(t, "at the start", w.vips(), strings.Join([]string{
		"203.0.113.10/32 unknown 0: node01 has not been heard; node02 has not been heard;",
		"2001:db8::10/128 unknown 0: node02 has not been heard; node03 has not been heard; node09 has not been heard;"}, "\n"))

	one, two := announces(machineA, vip1), announces(machineB)
	one.VIPStates = []node.VIPState{{VIP: vip2, State: node.VIPMissing, Reason: "cannot be held"}}
	two.VIPStates = []node.VIPState{{VIP: vip1, State: node.VIPDrained, Reason: "by uid 0"}, {VIP: vip2, State: node.VIPUnknown}}
	w.says("node01", one)
	w.says("node02", two)
	w.says("node03", announces("cccccccc-0000-4000-8000-000000000003", "198.51.100.1/32"))
	w.passes(40*time.Second, map[string]node.Report{"node01": one, "node02": two})
	same(t, "later", w.vips(), strings.Join([]string{
		"undeclared 198.51.100.1/32 unannounced 0: node03 is offline undeclared;",
		"203.0.113.10/32 announced 1: node01 announced; node02 drained (by uid 0);",
		"2001:db8::10/128 unannounced 0: node01 missing (cannot be held) undeclared; node02 unknown; node03 is offline; node09 has not been heard;"}, "\n"))
	census, ok := w.VIPCensus()
	if !ok || census.Statuses[node.Announced] != 1 || census.Statuses[node.Unannounced] != 1 || census.Announced[vip1] != 1 || len(census.Announced) != 2 {
		t.Errorf("%+v %v", census, ok)
	}

	// One that did not say all may announce it.
	two.VIPStates, two.VIPsLeftOut = nil, 1
	w.says("node02", two)
	w.passes(2*time.Second, nil)
	if got := w.vips(); !strings.Contains(got, vip2+" unknown 0:") {
		t.Error(got)
	}
	two.VIPsLeftOut = 0
	w.says("node02", two)
	// What a node was before a reset, it is no more.
	if _, err := w.Operate(t.Context(), "node01", node.EventReset, deployer.Operator{Name: "alice"}, ""); err != nil {
		t.Fatal(err)
	}
	if got := w.vips(); !strings.Contains(got, vip1+" unannounced 0: node01 has not been heard; node02 says nothing of it;") {
		t.Error(got)
	}
	for _, bad := range []string{"203.0.113.10", "203.0.113.0/24", ""} {
		if err := w.DeclareVIPs([]deployer.VIPDeclaration{{VIP: bad}}); err == nil {
			t.Errorf("declared %q", bad)
		}
	}
}

func TestVIPEvents(t *testing.T) {
	w := newWorld(t)
	w.clock.now = start.In(time.FixedZone("", 3600))
	w.declare(declared("node01", "node02")...)
	declare := func() { w.declareVIPs(deployer.VIPDeclaration{VIP: vip1, Nodes: []string{"node01", "node02"}}) }
	declare()
	one, two := announces(machineA, vip1), announces(machineB)
	down := announces(machineA)
	down.VIPStates = []node.VIPState{{VIP: vip1, State: node.VIPWithdrawn, Reason: "check is down"}}
	both := map[string]node.Report{"node01": one, "node02": two}
	w.passes(40*time.Second, nil)
	same(t, "before any node came", w.vipEvents(), "")
	w.passes(8*time.Second, both)
	want := "203.0.113.10/32 vip_announced announced by node01"
	same(t, "once a node announces it", w.vipEvents(), want)

	for range 10 { // a flap, each shorter than it takes to settle
		w.passes(4*time.Second, map[string]node.Report{"node01": down, "node02": two})
		w.passes(4*time.Second, both)
	}
	same(t, "after flaps", w.vipEvents(), want)

	w.passes(10*time.Second, map[string]node.Report{"node01": down, "node02": two})
	want += "\n203.0.113.10/32 vip_unannounced no node announces it: node01 withdrawn (check is down), node02 says nothing of it"
	same(t, "once it is down", w.vipEvents(), want)
	all := w.allVIPs()
	if all[0].Since.IsZero() || all[0].Since.Location() != time.UTC {
		t.Fatalf("%+v", all)
	}
	since := all[0].Since

	// The next process says nothing twice, and knows since when it is so.
	w.restart()
	declare()
	w.passes(10*time.Second, map[string]node.Report{"node01": down, "node02": two})
	same(t, "after a restart", w.vipEvents(), want)
	if all := w.allVIPs(); all[0].Since.Sub(since).Abs() > 10*time.Second {
		t.Errorf("%+v, want %s", all, since)
	}

	// What happened while nobody looked is told.
	w.restart()
	w.says("node02", announces(machineB, vip1))
	declare()
	w.passes(10*time.Second, map[string]node.Report{"node01": down, "node02": announces(machineB, vip1)})
	want += "\n203.0.113.10/32 vip_announced announced by node02"
	same(t, "after the next", w.vipEvents(), want)

	// Silence is told once it counts as offline, and not right after a restart.
	w.restart()
	declare()
	w.clock.add(time.Hour)
	w.restart()
	declare()
	w.passes(28*time.Second, nil)
	same(t, "while it may still speak", w.vipEvents(), want)
	w.passes(10*time.Second, nil)
	want += "\n203.0.113.10/32 vip_unannounced no node announces it: node01, node02 is offline"
	same(t, "when it is offline", w.vipEvents(), want)
}

// An event that could not be written is told later; hundreds at once are one.
func TestVIPEventsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01")...)
	var vips []deployer.VIPDeclaration
	var names []string
	for i := range 300 {
		names = append(names, fmt.Sprintf("203.0.%d.%d/32", i/256, i%256))
		vips = append(vips, deployer.VIPDeclaration{VIP: names[i], Nodes: []string{"node01"}})
	}
	w.declareVIPs(vips...)
	all := map[string]node.Report{"node01": announces(machineA, names...)}
	w.passes(40*time.Second, nil)
	w.store.noAppends.Store(true)
	w.clock.add(2 * time.Second)
	for range 6 {
		w.says("node01", all["node01"])
		_ = w.Tick(t.Context())
		w.clock.add(2 * time.Second)
	}
	same(t, "while nothing can be written", w.vipEvents(), "")
	w.store.noAppends.Store(false)
	w.passes(64*time.Second, all)
	lines := strings.Split(w.vipEvents(), "\n")
	if len(lines) != 101 || lines[100] != "vip_announced 200 more VIPs within a minute; the list of VIPs has them" {
		t.Errorf("%d events, the last is %s", len(lines), lines[len(lines)-1])
	}
}

// Of two registries over one store the leader tells, and the next leader goes on where
// it ended: nothing is told twice, and what happened in between is not lost.
func TestVIPEventsOfSeveralDeployers(t *testing.T) {
	var leads atomic.Int32
	leads.Store(1)
	w := newWorld(t, func(c *deployer.Config) { c.Lead = func() bool { return leads.Load() == 1 } })
	other := w.second(func(c *deployer.Config) { c.Lead = func() bool { return leads.Load() == 2 } })
	vips := []deployer.VIPDeclaration{{VIP: vip1, Nodes: []string{"node01"}}}
	w.declare(declared("node01")...)
	w.declareVIPs(vips...)
	if err := other.DeclareVIPs(vips); err != nil {
		t.Fatal(err)
	}
	up, down := announces(machineA, vip1), announces(machineA)
	passes := func(d time.Duration, says *node.Report) {
		t.Helper()
		for ; d > 0; d -= 2 * time.Second {
			w.clock.add(2 * time.Second)
			if says != nil {
				w.says("node01", *says)
			}
			w.tick()
			if err := errors.Join(w.Flush(t.Context()), other.Tick(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
	}
	passes(40*time.Second, nil)
	passes(10*time.Second, &up)
	want := "203.0.113.10/32 vip_announced announced by node01"
	same(t, "by the first leader", w.vipEvents(), want)
	leads.Store(2)
	passes(10*time.Second, &up)
	same(t, "by the second, of what is told", w.vipEvents(), want)
	leads.Store(0) // nobody for a while
	passes(20*time.Second, &down)
	same(t, "by nobody", w.vipEvents(), want)
	leads.Store(1)
	passes(4*time.Second, &down)
	want += "\n203.0.113.10/32 vip_unannounced no node announces it: node01 says nothing of it"
	same(t, "by the first again", w.vipEvents(), want)
	leads.Store(2)
	passes(10*time.Second, &up)
	want += "\n203.0.113.10/32 vip_announced announced by node01"
	same(t, "by the second again", w.vipEvents(), want)
}

// TestVIPsOfWhoWaits: a machine that nobody has approved is not the node, so its word that
// it announces a VIP hides from nobody that no node does.
func TestVIPsOfWhoWaits(t *testing.T) {
	w := newWorld(t, func(c *deployer.Config) { c.Approval = node.ApproveAll })
	w.declare(declared("node01")...)
	w.declareVIPs(deployer.VIPDeclaration{VIP: vip1, Nodes: []string{"node01"}})
	speaking := map[string]node.Report{"node01": announces(machineA, vip1)}
	w.passes(40*time.Second, speaking)
	same(t, "not approved", w.vips(), "203.0.113.10/32 unannounced 0: node01 its machine waits for an operator's approval;")
	if _, err := w.Operate(t.Context(), "node01", node.EventApprove, deployer.Operator{Name: "alice"}, ""); err != nil {
		t.Fatal(err)
	}
	w.passes(10*time.Second, speaking)
	same(t, "approved", w.vips(), "203.0.113.10/32 announced 1: node01 announced;")
}
