package server

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// FuzzParseReport: whatever a stranger sends is either refused with a reason or
// becomes a report that is safe to store and to show.
func FuzzParseReport(f *testing.F) {
	for _, seed := range []string{
		`{"node_id":"node01","phase":"ready"}`,
		`{"node_id":"node01","phase":"failed","error":"no disk\u0000\u001b","facts":{"cpus":"4"},"vips":["203.0.113.10/32"]}`,
		`{"node_id":"node01","phase":"booted","machine_id":"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF","ip":"::ffff:10.0.0.1"}`,
		`{"node_id":"node01","phase":"ready","facts":{"a":"1","a":"2"}}`,
		`{"node_id":"node01","phase":"ready","vips":["203.0.113.10"],"vip_states":[{"vip":"203.0.113.11","state":"lowered","reason":"\u001b"},{"vip":"203.0.113.10","state":"drained"}],"services":[{"name":"a.service","state":"failed","reason":"x\n"}],"vips_left_out":3}`,
		`{"node_id":null,"phase":"ready"} x`, `[]`, `{"a":[[[[`, "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		id, report, problem := readReport(body)
		if problem != nil {
			if problem.Detail == "" || problem.Code != api.CodeBadRequest {
				t.Fatalf("refused without a reason: %+v", problem)
			}
			return
		}
		if !node.ValidID(id) || !report.Phase.Valid() {
			t.Fatalf("accepted %q %q", id, report.Phase)
		}
		if report.MachineID != "" {
			if again, ok := node.CanonicalMachineID(report.MachineID); !ok || again != report.MachineID {
				t.Fatalf("machine id %q is not canonical", report.MachineID)
			}
		}
		if len(report.Error) > api.MaxErrorBytes || len(report.Facts) > api.MaxFacts || len(report.VIPs) > 2*api.MaxVIPs ||
			len(report.VIPStates) > api.MaxVIPs || len(report.Services) > api.MaxServices {
			t.Fatalf("over a limit: %+v", report)
		}
		shown := report.Hostname + report.BootID + report.Role + strings.ReplaceAll(report.Error, "\n", "")
		for key, value := range report.Facts {
			shown += key + value
		}
		for _, s := range report.VIPStates {
			if len(s.Reason) > api.MaxReasonBytes {
				t.Fatalf("over a limit: %+v", s)
			}
			shown += s.VIP + s.State + s.Reason
		}
		for _, s := range report.Services {
			shown += s.Name + s.State + s.Reason
		}
		if !printable(shown) || !utf8.ValidString(shown) {
			t.Fatalf("would drive a terminal: %q", shown)
		}
		if _, err := json.Marshal(report); err != nil {
			t.Fatal(err)
		}
	})
}
