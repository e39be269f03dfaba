package vmtests

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/deployer/certtest"
	"github.com/centra/plasmacloud/vmtests/lab"
)

func TestPrismNETSettings(t *testing.T) {
	t.Parallel()
	l, err := lab.New("prismset")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	before := evaluatePrismNET(t, `
		bridgeMappings = { external = "br-ex"; storage = "br-st"; };
		probeInterval = "30s";
		externalIds.ovn-transport-zones = "rack 1, \"left\" \\ räck";
	`)["node01"]
	after := evaluatePrismNET(t, `
		encapsulation.type = "vxlan";
		nodes.node01.gateway = true;
	`)["node01"]
	c := newChassis(t, l, "node01", before)

	_, err = c.apply()
	require.ErrorContains(t, err, "/run/openvswitch/db.sock", "without a database the unit fails, and is started again")

	c.startDatabase()
	c.vsctl("set", "Open_vSwitch", ".", "external_ids:hostname=somebody", "external_ids:ovn-encap-csum=false", "external_ids:system-id=by-hand")
	count := c.transactions()
	c.mustApply()
	require.Equal(t, map[string]string{
		"hostname":                  "somebody",
		"ovn-encap-csum":            "false",
		"system-id":                 "node01",
		"ovn-remote":                "ssl:10.0.0.11:6642",
		"ovn-encap-type":            "geneve",
		"ovn-encap-ip":              "10.0.0.11",
		"ovn-monitor-all":           "false",
		"ovn-remote-probe-interval": "30000",
		"ovn-bridge-mappings":       "external:br-ex,storage:br-st",
		"ovn-transport-zones":       `rack 1, "left" \ räck`,
		"plasmacloud-keys":          "ovn-bridge-mappings,ovn-encap-ip,ovn-encap-type,ovn-monitor-all,ovn-remote,ovn-remote-probe-interval,ovn-transport-zones,system-id",
	}, c.externalIDs())
	require.Equal(t, count+1, c.transactions(), "all in one transaction")

	// Once more: the database's file has not one byte more.
	file, err := os.ReadFile(c.database())
	require.NoError(t, err)
	require.Contains(t, c.mustApply(), "as they should be")
	again, err := os.ReadFile(c.database())
	require.NoError(t, err)
	require.True(t, bytes.Equal(file, again), "the second run changed the database:\n%s", again[min(len(file), len(again)):])

	// Another configuration: what is declared no more goes, unless it is not ours.
	c.node = after
	c.vsctl("set", "Open_vSwitch", ".", "external_ids:ovn-limit-lflow-cache=7")
	count = c.transactions()
	c.mustApply()
	want := map[string]string{
		"hostname":              "somebody",
		"ovn-encap-csum":        "false",
		"ovn-limit-lflow-cache": "7",
		"system-id":             "node01",
		"ovn-remote":            "ssl:10.0.0.11:6642",
		"ovn-encap-type":        "vxlan",
		"ovn-encap-ip":          "10.0.0.11",
		"ovn-monitor-all":       "false",
		"ovn-cms-options":       "enable-chassis-as-gw",
		"plasmacloud-keys":      "ovn-cms-options,ovn-encap-ip,ovn-encap-type,ovn-monitor-all,ovn-remote,system-id",
	}
	require.Equal(t, want, c.externalIDs())
	require.Equal(t, count+1, c.transactions(), "all in one transaction")

	// What somebody else did to ours is undone, and only that.
	c.vsctl("remove", "Open_vSwitch", ".", "external_ids", "ovn-remote", "--",
		"set", "Open_vSwitch", ".", "external_ids:ovn-encap-ip=192.0.2.1", "external_ids:hostname=another")
	out := c.mustApply()
	want["hostname"] = "another"
	require.Equal(t, want, c.externalIDs())
	require.NotContains(t, out, "ovn-cms-options")

	// An empty database, as with virtualisation.vswitch.resetOnStart.
	c.startDatabase()
	c.mustApply()
	for _, foreign := range []string{"hostname", "ovn-encap-csum", "ovn-limit-lflow-cache"} {
		delete(want, foreign)
	}
	require.Equal(t, want, c.externalIDs())
}

func TestPrismNETChassis(t *testing.T) {
	t.Parallel()
	l, err := lab.New("prismnet")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	// No kernel of a test machine needs to have Open vSwitch's module.
	const noKernel = `externalIds.ovn-bridge-datapath-type = "dummy"; `
	nodes := evaluatePrismNET(t, noKernel)
	one, two := newChassis(t, l, "node01", nodes["node01"]), newChassis(t, l, "node02", nodes["node02"])
	require.NoError(t, l.Switch(map[*lab.Host][]netip.Prefix{
		one.host: {netip.MustParsePrefix("10.0.0.11/24")},
		two.host: {netip.MustParsePrefix("10.0.0.12/24")},
	}))
	ours := certtest.New(t)
	for _, c := range []*chassis{one, two} {
		giveCertificate(t, ours, filepath.Join(c.run, "secrets", "ovn"), c.host.Name)
		c.startDatabase()
		c.start("ovs-vswitchd", "env", "OVS_RUNDIR=/run/openvswitch", "ovs-vswitchd", "--enable-dummy",
			"--pidfile=/run/openvswitch/ovs-vswitchd.pid", "-vconsole:warn", "-vsyslog:off", "unix:/run/openvswitch/db.sock")
	}

	// PrismNET's part: the southbound database on the control plane.
	require.NoError(t, os.Mkdir(filepath.Join(one.run, "central"), 0o755))
	giveCertificate(t, ours, filepath.Join(one.run, "central"), "southbound")
	one.must("ovsdb-tool", "create", "/run/sb.db", "/usr/share/ovn/ovn-sb.ovsschema")
	one.start("southbound", "ovsdb-server", "--remote=punix:/run/ovn/sb.sock", "--remote=pssl:6642:10.0.0.11",
		"--private-key=/run/central/key.pem", "--certificate=/run/central/cert.pem", "--ca-cert=/run/central/ca.pem",
		"--unixctl=/run/ovn/sb.ctl", "-vconsole:warn", "-vsyslog:off", "/run/sb.db")
	southbound := func(args ...string) (string, error) {
		return one.try(append([]string{"ovn-sbctl", "--db=unix:/run/ovn/sb.sock", "--timeout=5", "--format=json"}, args...)...)
	}
	// As ovn-northd does when it starts.
	require.NoError(t, lab.Eventually(patience, func() error { _, err := southbound("init"); return err }))
	// What the southbound database knows: chassis, encapsulation and address.
	registered := func(want ...string) {
		t.Helper()
		require.NoError(t, lab.Eventually(patience, func() error {
			var got []string
			for _, query := range [][]string{{"--columns=name", "list", "Chassis"}, {"--columns=chassis_name,type,ip", "list", "Encap"}} {
				out, err := southbound(query...)
				if err != nil {
					return err
				}
				for _, row := range rows(t, out) {
					got = append(got, strings.TrimSuffix(fmt.Sprintln(row...), "\n"))
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				return fmt.Errorf("the southbound database has %q", got)
			}
			return nil
		}))
	}

	one.mustApply()
	one.startController()
	// Where the settings come late, ovn-controller waits for them.
	two.startController()
	registered("node01", "node01 geneve 10.0.0.11")
	two.mustApply()
	registered("node01", "node01 geneve 10.0.0.11", "node02", "node02 geneve 10.0.0.12")
	tunnels := func(c *chassis, remote string) {
		t.Helper()
		require.NoError(t, lab.Eventually(patience, func() error {
			list := rows(t, c.vsctl("--format=json", "--columns=type,options", "find", "Interface", "type=geneve"))
			if len(list) != 1 || ovsMap(list[0][1])["remote_ip"] != remote {
				return fmt.Errorf("%s has the tunnels %v", c.host.Name, list)
			}
			// Table 0 takes what comes out of the tunnel.
			flows, err := c.try("ovs-ofctl", "dump-flows", "unix:/run/openvswitch/br-int.mgmt", "table=0")
			if err == nil && !strings.Contains(flows, "in_port=") {
				err = fmt.Errorf("%s has the flows %s", c.host.Name, flows)
			}
			return err
		}))
	}
	tunnels(one, "10.0.0.12")
	tunnels(two, "10.0.0.11")

	// A logical switch with a port on either node: a packet that goes into one comes
	// out of the other, by the tunnel and a wire between the two datapaths.
	one.must("ovsdb-tool", "create", "/run/nb.db", "/usr/share/ovn/ovn-nb.ovsschema")
	one.start("northbound", "ovsdb-server", "--remote=punix:/run/ovn/nb.sock", "--unixctl=/run/ovn/nb.ctl",
		"-vconsole:warn", "-vsyslog:off", "/run/nb.db")
	one.start("ovn-northd", "env", "OVN_RUNDIR=/run/ovn", "ovn-northd", "--ovnnb-db=unix:/run/ovn/nb.sock",
		"--ovnsb-db=unix:/run/ovn/sb.sock", "-vconsole:warn", "-vsyslog:off")
	require.NoError(t, lab.Eventually(patience, func() error {
		_, err := one.try("ovn-nbctl", "--db=unix:/run/ovn/nb.sock", "--timeout=5", "ls-add", "net",
			"--", "lsp-add", "net", "vif1", "--", "lsp-set-addresses", "vif1", "02:00:00:00:00:01 192.168.0.1",
			"--", "lsp-add", "net", "vif2", "--", "lsp-set-addresses", "vif2", "02:00:00:00:00:02 192.168.0.2")
		return err
	}))
	wire := filepath.Join(l.Dir, "wire")
	for i, c := range []*chassis{one, two} {
		end := []string{"pstream=punix:" + wire, "stream=unix:" + wire}[i]
		own, peer := 1+i, 2-i
		c.vsctl("add-br", "br-phy", "--", "set", "Bridge", "br-phy", "datapath_type=dummy", fmt.Sprintf("other_config:hwaddr=02:00:00:00:01:0%d", own),
			"--", "add-port", "br-phy", "wire", "--", "set", "Interface", "wire", "type=dummy", "options:"+end, "options:tx_pcap=/run/wire.pcap",
			"--", "add-port", "br-int", fmt.Sprintf("vif%d", own), "--", "set", "Interface", fmt.Sprintf("vif%d", own), "type=dummy",
			fmt.Sprintf("external_ids:iface-id=vif%d", own), fmt.Sprintf("options:tx_pcap=/run/vif%d.pcap", own))
		require.NoError(t, lab.Eventually(patience, func() error {
			_, err := c.vswitchd("netdev-dummy/ip4addr", "br-phy", fmt.Sprintf("10.0.0.1%d/24", own))
			return err
		}))
		for _, command := range [][]string{
			{"ovs/route/add", "10.0.0.0/24", "br-phy"},
			{"tnl/neigh/set", "br-phy", fmt.Sprintf("10.0.0.1%d", peer), fmt.Sprintf("02:00:00:00:01:0%d", peer)},
		} {
			_, err := c.vswitchd(command...)
			require.NoError(t, err)
		}
	}
	require.NoError(t, lab.Eventually(patience, func() error {
		if _, err := one.vswitchd("netdev-dummy/receive", "vif1",
			"in_port(1),eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),eth_type(0x0800),ipv4(src=192.168.0.1,dst=192.168.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=1,dst=2)"); err != nil {
			return err
		}
		for file, frame := range map[string][]byte{
			filepath.Join(one.run, "wire.pcap"): {10, 0, 0, 11, 10, 0, 0, 12},
			filepath.Join(two.run, "vif2.pcap"): {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0},
		} {
			sent, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if !bytes.Contains(sent, frame) {
				return fmt.Errorf("%s has no packet with % x", file, frame)
			}
		}
		return nil
	}))

	// The database takes nobody whose certificate another authority signed.
	stranger := filepath.Join(two.run, "stranger")
	require.NoError(t, os.Mkdir(stranger, 0o755))
	giveCertificate(t, certtest.New(t), stranger, "node02")
	asks := func(credentials string) error {
		_, err := two.try("ovn-sbctl", "--db=ssl:10.0.0.11:6642", "--timeout=2", "--private-key="+credentials+"/key.pem",
			"--certificate="+credentials+"/cert.pem", "--ca-cert=/run/secrets/ovn/ca.pem", "list", "Chassis")
		return err
	}
	require.NoError(t, asks("/run/secrets/ovn"))
	require.Error(t, asks("/run/stranger"))

	// A restart takes no chassis out of the network, not even for a moment.
	chassisRow := func() string {
		out, err := southbound("--columns=_uuid", "find", "Chassis", "name=node02")
		require.NoError(t, err)
		return out
	}
	row := chassisRow()
	two.stopController()
	registered("node01", "node01 geneve 10.0.0.11", "node02", "node02 geneve 10.0.0.12")
	two.startController()

	// Changed settings are followed by the ovn-controller that runs.
	two.node = evaluatePrismNET(t, noKernel+`nodes.node02.encapsulationIp = "192.0.2.12";`)["node02"]
	two.mustApply()
	registered("node01", "node01 geneve 10.0.0.11", "node02", "node02 geneve 192.0.2.12")
	tunnels(one, "192.0.2.12")
	require.Equal(t, row, chassisRow())

	// Another name: the old chassis leaves before the new one comes.
	two.node = evaluatePrismNET(t, noKernel+`nodes.node02 = { systemId = "chassis-02"; encapsulationIp = "192.0.2.12"; };`)["node02"]
	two.stopController()
	registered("node01", "node01 geneve 10.0.0.11")
	two.mustApply()
	two.startController()
	registered("chassis-02", "chassis-02 geneve 192.0.2.12", "node01", "node01 geneve 10.0.0.11")
}
