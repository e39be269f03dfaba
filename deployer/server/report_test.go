package server

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
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
		checkRead(t)(readReport(body))
	})
}

// FuzzProtobufReport is FuzzParseReport for reports over gRPC.
func FuzzProtobufReport(f *testing.F) {
	for _, seed := range []*deployerv1.PhoneHomeRequest{
		{NodeId: "node01", Phase: "ready"},
		{NodeId: "node01", Phase: "failed", Error: "no disk\x00\x1b", Facts: map[string]string{"cpus": "4"}, Vips: []string{"203.0.113.10/32"}},
		{
			NodeId: "node01", Phase: "booted", MachineId: "x", Ip: "::ffff:10.0.0.1", VipsLeftOut: -1, VipStates: []*deployerv1.VipState{{Vip: "203.0.113.11", State: "lowered"}, nil},
			Services: []*deployerv1.Service{{Name: "a.service", State: "failed", Reason: "x\n"}},
		},
	} {
		body, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var m deployerv1.PhoneHomeRequest
		if proto.Unmarshal(body, &m) == nil {
			checkRead(t)(readRequest(reportOf(&m)))
		}
	})
}

// checkRead checks what readReport returned.
func checkRead(t *testing.T) func(string, node.Report, *api.Problem) {
	return func(id string, report node.Report, problem *api.Problem) {
		t.Helper()
		if problem != nil {
			if problem.Detail == "" || problem.Code != api.CodeBadRequest {
				t.Fatalf("refused without a reason: %+v", problem)
			}
			return
		}
		if report.VIPsLeftOut < 0 || report.VIPsLeftOut > api.MaxVIPsLeftOut {
			t.Fatalf("%d VIPs left out", report.VIPsLeftOut)
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
	}
}
