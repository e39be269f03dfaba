package phonehome

import (
	"encoding/json"
	"slices"
	"testing"
	"unicode"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// FuzzNodeTable: a table of nodes is refused, or each of its nodes has an id, and nothing
// that a shell would read otherwise is handed to the installer; and it finds no more
// than one node for a machine.
func FuzzNodeTable(f *testing.F) {
	for _, nodes := range [][]TableNode{
		{tableNode("node01", []string{"52:54:00:12:34:56"}, "S1", map[string]string{"DISK": "/dev/sda"})},
		{tableNode("node01", nil, "", nil)}, {tableNode("node01", nil, "S1", nil), tableNode("node02", nil, "S2", nil)}, nil,
	} {
		text, err := json.Marshal(NodeTable{SchemaVersion: 1, Nodes: nodes})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		table, err := parseNodeTable(text)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("refused without a reason")
			}
			return
		}
		for _, n := range table.Nodes {
			if !node.ValidID(n.id) {
				t.Fatalf("node %q", n.id)
			}
			for key, value := range n.Install {
				if !installKey.MatchString(key) || !installValue.MatchString(value) {
					t.Fatalf("%q=%q", key, value)
				}
			}
		}
		for _, m := range []Machine{{}, {MACs: []string{"52:54:00:12:34:56"}}, {Serial: "S1"}} {
			n, by, err := table.Find(m)
			if (err == nil) != (by != "" && n.id != "") {
				t.Fatalf("%q by %q, %v", n.id, by, err)
			}
		}
	})
}

// FuzzAnnouncerAnswer: whatever answers at the announcer's socket, what the deployer is told
// of it is what it takes.
func FuzzAnnouncerAnswer(f *testing.F) {
	f.Add([]byte(vipState(past, true, aVIP("203.0.113.10", "announce", "health", "up", true, false), aVIP("2001:db8::1", "withdraw", "drained", "by uid 0", false, true))))
	f.Add([]byte(vipState("null", false)))
	f.Add([]byte(vipState(past, false, aVIP("::ffff:203.0.113.10", "", "", "\u001b[2J", false, false), aVIP("fe80::1%eth0", "", "", "", true, true))))
	f.Fuzz(func(t *testing.T, text []byte) {
		state, err := readAnnouncerState(text)
		w := watch{vips: map[string]said{"203.0.113.10/32": {}}}
		w.hear(state, err)
		for vip, s := range w.vips {
			if canonical, ok := node.CanonicalVIP(s.VIP); !ok || canonical != s.VIP || vip != s.VIP {
				t.Fatalf("%q is the VIP %q", vip, s.VIP)
			}
			if !slices.Contains(append(slices.Clone(node.VIPStates), node.VIPAnnounced), s.State) {
				t.Fatalf("%q is no state", s.State)
			}
			for _, r := range s.Reason {
				if !unicode.IsPrint(r) && r != unicode.ReplacementChar || len(s.Reason) > api.MaxReasonBytes {
					t.Fatalf("the reason %q", s.Reason)
				}
			}
		}
		if err != nil && len(w.vips) != 1 {
			t.Fatalf("of an announcer that says nothing, %v", w.vips)
		}
	})
}
