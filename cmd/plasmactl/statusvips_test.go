package main

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/control"
	"github.com/centra/plasmacloud/bgp/metrics"
	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// TestServicesAndVIPs: what nodes report of their services and VIPs is there for the
// operator, by node and by VIP.
func TestServicesAndVIPs(t *testing.T) {
	f := newCluster4(t)
	assert.Equal(t, "VIP  STATUS  SINCE  ANNOUNCED BY  REMARK\n", f.run("status", "--vips"))
	assert.NotContains(t, f.run("status"), "VIPs")
	require.NoError(t, f.registry.DeclareVIPs([]deployer.VIPDeclaration{
		{VIP: "203.0.113.9/32", Nodes: []string{"node01", "node02"}},
		{VIP: "203.0.113.10/32", Nodes: []string{"node01", "node02"}},
		{VIP: "2001:db8::10/128", Nodes: []string{"node03"}},
	}))
	for _, says := range []api.PhoneHomeRequest{
		{
			NodeID: "node01", VIPs: []string{"203.0.113.9/32", "203.0.113.99/32"}, VIPsLeftOut: 7,
			VIPStates: []node.VIPState{{VIP: "203.0.113.10/32", State: node.VIPDrained, Reason: "drained by uid 0: new kernel"}},
			Services: []node.Service{
				{Name: "gobgpd.service", State: "active"},
				{Name: "plasmacloud-announcer.service", State: "failed", Reason: "exit-code"},
			},
		},
		{
			NodeID: "node02", VIPs: []string{"203.0.113.9/32"},
			VIPStates: []node.VIPState{{VIP: "203.0.113.10/32", State: node.VIPWithdrawn, Reason: "tcp 127.0.0.1:80 is down"}},
		},
	} {
		says.Phase, says.Role, says.MachineID = node.PhaseReady, "worker", "machine-of-"+says.NodeID
		_, err := f.client.PhoneHome(t.Context(), says)
		require.NoError(t, err)
	}

	out := f.run("node", "show", "node01")
	assert.Contains(t, out, `
SERVICE                        STATE   REASON
gobgpd.service                 active
plasmacloud-announcer.service  failed  exit-code

VIP              STATE      REASON
203.0.113.9/32   announced
203.0.113.10/32  drained    drained by uid 0: new kernel
203.0.113.99/32  announced
and 7 more, for which its report had no room

WHEN `)
	assert.NotContains(t, f.run("node", "show", "node04"), "VIP")

	out = f.run("status")
	assert.Regexp(t, `(?m)^VIPs announced: +1\n  unannounced: +1\n  unknown: +1$`, out)
	assert.Contains(t, out, "TO LOOK AFTER\n1 VIP that no node announces: 203.0.113.10/32\n")

	out = f.run("status", "--vips")
	assert.Equal(t, `VIP               STATUS       SINCE  ANNOUNCED BY    REMARK
203.0.113.10/32   unannounced                         node01 drained by uid 0: new kernel; node02 withdrawn: tcp 127.0.0.1:80 is down
2001:db8::10/128  unknown                             node03 was not heard
203.0.113.9/32    announced           node01, node02
203.0.113.99/32   announced           node01          not in the manifest
`, out)
	var list api.VIPList
	require.NoError(t, json.Unmarshal([]byte(f.run("status", "--vips", "-o", "json")), &list))
	require.Len(t, list.VIPs, 4)
	assert.Equal(t, node.VIPDrained, list.VIPs[1].Nodes[0].State)

	said, _, _, err := plasmactl(t, "__complete", "status", "--v")
	require.NoError(t, err)
	assert.Contains(t, said, "--vips")
}

// TestCompletionOfVIPs: those that this host's announcer has, and no files where none is wanted.
func TestCompletionOfVIPs(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "control.sock")
	status := func() metrics.Status {
		return metrics.Status{VIPs: []metrics.VIP{{Address: "203.0.113.10"}, {Address: "2001:db8::10"}}}
	}
	s, err := control.Listen(socket, filepath.Join(dir, "drains.json"), new(bgp.Announcer), status, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	t.Setenv(socketVariable, socket)
	const both, none = "203.0.113.10\n2001:db8::10\n:4\n", ":4\n"
	for line, want := range map[string]string{
		"vip show":         both,
		"vip drain":        both,
		"vip events --vip": both,
		"vip drain x":      none,
		"vip list":         none,
		"status":           none,
		"status --timeout": none,
		"status --ca-file": ":0\n", // files
		"plan":             ":0\n",
	} {
		out, _, _, err := plasmactl(t, append(append([]string{"__complete"}, strings.Fields(line)...), "")...)
		require.NoError(t, err)
		assert.Equal(t, want, out, line)
	}
}

// Whoever else listens at the socket is told apart from a mistake in a file that was not given.
func TestPlanOfAnotherServer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "another.sock")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "client version 1 is too old", http.StatusBadRequest)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	t.Setenv(socketVariable, socket)
	_, _, _, err = plasmactl(t, "plan")
	assert.ErrorContains(t, err, "400 Bad Request")
}

func TestPartsOf(t *testing.T) {
	for name, test := range map[string]struct {
		vip        api.VIP
		by, remark string
	}{
		"offline":       {api.VIP{Declared: true, Nodes: []api.VIPNode{{ID: "n1", Declared: true, State: node.VIPAnnounced, Reachability: node.Offline}}}, "", "n1 is offline"},
		"silent":        {api.VIP{Declared: true, Nodes: []api.VIPNode{{ID: "n1", Declared: true, Reachability: node.Online}}}, "", "n1 says nothing of it"},
		"not sure":      {api.VIP{Declared: true, Nodes: []api.VIPNode{{ID: "n1", Declared: true, State: node.VIPAnnounced, Reachability: node.Unknown}}}, "", "n1 announced, and was not heard since"},
		"lowered":       {api.VIP{Declared: true, Nodes: []api.VIPNode{{ID: "n1", Declared: true, State: node.VIPLowered, Reachability: node.Online}}}, "n1", "n1 lowered"},
		"by a stranger": {api.VIP{Declared: true, Nodes: []api.VIPNode{{ID: "n1", State: node.VIPAnnounced, Reachability: node.Online}}}, "n1", "n1 is not to announce it"},
	} {
		by, remark := partsOf(test.vip)
		assert.Equal(t, test.by+"|"+test.remark, by+"|"+remark, name)
	}
}
