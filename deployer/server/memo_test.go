package server

import (
	"fmt"
	"testing"

	"github.com/centra/plasmacloud/deployer/node"
)

// TestMemo: what is remembered is what was read, of these bytes and no others, and
// there is a bound to it.
func TestMemo(t *testing.T) {
	m := newMemo()
	body := []byte(`{"node_id": "node01", "phase": "ready"}`)
	id, report, problem := readReport(body)
	if problem != nil {
		t.Fatal(problem)
	}
	withSecret := report
	withSecret.Credentials = &node.Credentials{SecretHash: "x"}
	m.keep(body, id, withSecret)
	body[len(body)-3]++ // the caller's, who may use it again
	if _, _, ok := m.find(body); ok {
		t.Error("found what was never kept")
	}
	body[len(body)-3]--
	if gotID, got, ok := m.find(body); !ok || gotID != "node01" || got.Phase != node.PhaseReady || got.Credentials != nil {
		t.Errorf("%s, %+v, %v", gotID, got, ok)
	}
	m.keep(make([]byte, maxRememberedBody+1), "large", report)
	if len(m.entries) != 1 {
		t.Error("a large one is kept")
	}
	for i := range maxRemembered + 100 {
		m.keep(fmt.Appendf(nil, "%d", i), id, report)
	}
	if len(m.entries) != maxRemembered {
		t.Errorf("%d are kept", len(m.entries))
	}
}
