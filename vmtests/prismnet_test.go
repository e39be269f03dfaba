package vmtests

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// prismnetNode is what a node's NixOS configuration has for OVN.
type prismnetNode struct {
	Settings   string
	Firewall   struct{ ExtraCommands, ExtraInputRules string }
	Apply      struct{ Script, OVSDB string }
	Controller struct {
		Start       string
		Stop        string
		Environment map[string]string
	}
}

// evaluatePrismNET is nix/tests/prismnet-cluster.nix with more options of
// prismnetIntegration, and more of NixOS, by node.
func evaluatePrismNET(t *testing.T, more string, nixos ...string) map[string]prismnetNode {
	t.Helper()
	// A store of its own, since not everybody may write to /nix.
	out, err := exec.Command("nix", "--extra-experimental-features", "nix-command", "eval",
		"--store", t.TempDir(), "--option", "build-users-group", "", "--impure", "--json", "--expr", fmt.Sprintf(`
		let
		  bare = import ../nix/offline/lib;
		  lib = bare // { nixosSystem = import ../nix/offline/nixos.nix { lib = bare; }; };
		  nixosModule.imports = [
		    ../nix/nix-nos/modules
		    ../nix/modules/plasmacloud-cluster.nix
		    ../nix/modules/plasmacloud-deployer.nix
		    ../nix/modules/plasmacloud-network.nix
		    ../nix/modules/plasmacloud-phone-home.nix
		  ];
		  cluster = import ../nix/lib/mk-cluster.nix { inherit lib nixosModule; } {
		    modules = [
		      ../nix/tests/prismnet-cluster.nix
		      { plasmacloud.network.prismnetIntegration = { %s }; }
		    ];
		    nixosModules = [ { %s } ];
		  };
		  inherit (cluster.plasmacloud.prismnet) failedAssertions;
		in
		lib.throwIf (failedAssertions != [ ]) (toString failedAssertions) (
		  lib.mapAttrs (_: node:
		    let
		      inherit (node.config.systemd.services) ovn-controller plasmacloud-prismnet;
		    in {
		      firewall = node.config.networking.firewall;
		      settings = node.config.environment.etc."plasmacloud/prismnet.json".text;
		      apply = { inherit (plasmacloud-prismnet) script; ovsdb = plasmacloud-prismnet.environment.OVSDB; };
		      controller = {
		        start = ovn-controller.serviceConfig.ExecStart;
		        stop = ovn-controller.preStop;
		        inherit (ovn-controller) environment;
		      };
		    }) (builtins.removeAttrs cluster.nixosConfigurations [ "plasmacloud-iso" ]))`, more, strings.Join(nixos, " "))).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		t.Fatalf("evaluate the cluster: %s", failed.Stderr)
	}
	require.NoError(t, err)
	var nodes map[string]prismnetNode
	require.NoError(t, json.Unmarshal(out, &nodes))
	return nodes
}

// chassis is a host that runs what a node's units run, with a /run of its own.
type chassis struct {
	t          *testing.T
	host       *lab.Host
	run        string
	node       prismnetNode
	ovsdb      *lab.Process
	controller *lab.Process
}

func newChassis(t *testing.T, l *lab.Lab, name string, node prismnetNode) *chassis {
	t.Helper()
	host, err := l.Host(name)
	require.NoError(t, err)
	c := &chassis{t: t, host: host, run: filepath.Join(host.Dir, "run"), node: node}
	for _, dir := range []string{"openvswitch", "ovn", "secrets/ovn"} {
		require.NoError(t, os.MkdirAll(filepath.Join(c.run, dir), 0o755))
	}
	return c
}

// inside is a command of the host with the chassis' own /run, and with no more
// capabilities than the units leave to root.
func (c *chassis) inside(args ...string) []string {
	return append([]string{"sh", "-c", `mount --bind "$0" /run && exec "$@"`, c.run}, args...)
}

func confined(args ...string) []string {
	return append([]string{"setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"}, args...)
}

func (c *chassis) try(args ...string) (string, error) { return c.host.Run(c.inside(args...)...) }

func (c *chassis) must(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	require.NoError(c.t, err)
	return out
}

func (c *chassis) start(name string, args ...string) *lab.Process {
	c.t.Helper()
	p, err := c.host.Start(name, c.inside(args...)...)
	require.NoError(c.t, err)
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Logf("%s of %s:\n%s", name, c.host.Name, p.Output())
		}
	})
	return p
}

// startDatabase starts the node's own database, empty, as ovsdb.service does.
func (c *chassis) startDatabase() {
	c.t.Helper()
	if c.ovsdb != nil {
		require.NoError(c.t, c.ovsdb.Kill())
		require.NoError(c.t, os.Remove(c.database()))
	}
	c.must("ovsdb-tool", "create", "/run/conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
	c.ovsdb = c.start("ovsdb-server", "ovsdb-server", "--remote=punix:/run/openvswitch/db.sock",
		"--unixctl=/run/openvswitch/ovsdb.ctl.sock", "-vconsole:warn", "-vsyslog:off", "/run/conf.db")
	require.NoError(c.t, lab.Eventually(patience, func() error {
		_, err := c.try("ovs-vsctl", "--db=unix:/run/openvswitch/db.sock", "--no-wait", "--timeout=5", "init")
		return err
	}))
}

func (c *chassis) database() string { return filepath.Join(c.run, "conf.db") }

// transactions is how many the node's database has in its log.
func (c *chassis) transactions() int {
	return strings.Count("\n"+c.must("ovsdb-tool", "show-log", "/run/conf.db"), "\nrecord ")
}

func (c *chassis) vsctl(args ...string) string {
	c.t.Helper()
	return c.must(append([]string{"ovs-vsctl", "--db=" + c.node.Apply.OVSDB, "--no-wait", "--timeout=5"}, args...)...)
}

// vswitchd gives a command to the node's ovs-vswitchd.
func (c *chassis) vswitchd(args ...string) (string, error) {
	return c.try(append([]string{"env", "OVS_RUNDIR=/run/openvswitch", "ovs-appctl", "-t", "ovs-vswitchd"}, args...)...)
}

// apply runs the script of plasmacloud-prismnet.service.
func (c *chassis) apply() (string, error) {
	c.t.Helper()
	c.write("prismnet.json", c.node.Settings)
	c.write("apply", c.node.Apply.Script)
	return c.try(confined("env", "SETTINGS=/run/prismnet.json", "OVSDB="+c.node.Apply.OVSDB, "bash", "-e", "/run/apply")...)
}

func (c *chassis) mustApply() string {
	c.t.Helper()
	out, err := c.apply()
	require.NoError(c.t, err)
	return out
}

func (c *chassis) write(name, text string) {
	c.t.Helper()
	require.NoError(c.t, os.WriteFile(filepath.Join(c.run, name), []byte(text), 0o600))
}

// rows of a table as ovs-vsctl and ovn-sbctl tell it.
func rows(t *testing.T, out string) [][]any {
	t.Helper()
	var table struct{ Data [][]any }
	require.NoError(t, json.Unmarshal([]byte(out), &table), out)
	return table.Data
}

// ovsMap is a value of OVSDB that is a map.
func ovsMap(value any) map[string]string {
	m := map[string]string{}
	for _, pair := range value.([]any)[1].([]any) {
		m[pair.([]any)[0].(string)] = pair.([]any)[1].(string)
	}
	return m
}

func (c *chassis) externalIDs() map[string]string {
	c.t.Helper()
	return ovsMap(rows(c.t, c.vsctl("--format=json", "--columns=external_ids", "list", "Open_vSwitch", "."))[0][0])
}

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

// authority is a certificate authority of the test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key, a.cert, _ = a.sign("authority")
	return a
}

// sign makes a certificate, by itself while the authority has none.
func (a *authority) sign(name string) (*ecdsa.PrivateKey, *x509.Certificate, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  a.cert == nil,
	}
	parent, signer := a.cert, a.key
	if a.cert == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(a.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// give puts a key and a certificate for name, and the authority's, into a folder.
func (a *authority) give(dir, name string) {
	a.t.Helper()
	key, _, cert := a.sign(name)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	for file, text := range map[string][]byte{
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"cert.pem": cert,
		"ca.pem":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}),
	} {
		require.NoError(a.t, os.WriteFile(filepath.Join(dir, file), text, 0o400))
	}
}

// startController runs the command of ovn-controller.service.
func (c *chassis) startController() {
	c.t.Helper()
	args := []string{"env"}
	for name, value := range c.node.Controller.Environment {
		args = append(args, name+"="+value)
	}
	command := strings.Fields(c.node.Controller.Start)
	require.Contains(c.t, command[0], "-ovn/bin/ovn-controller")
	c.controller = c.start("ovn-controller", confined(append(append(args, "ovn-controller"), command[1:]...)...)...)
}

// stopController runs the commands with which ovn-controller.service stops.
func (c *chassis) stopController() {
	c.t.Helper()
	pid, err := os.ReadFile(filepath.Join(c.run, "ovn", "ovn-controller.pid"))
	require.NoError(c.t, err)
	args := []string{"env", "MAINPID=" + strings.TrimSpace(string(pid))}
	for name, value := range c.node.Controller.Environment {
		args = append(args, name+"="+value)
	}
	c.write("stop", c.node.Controller.Stop)
	c.must(confined(append(args, "bash", "-e", "/run/stop")...)...)
	select {
	case <-c.controller.Done():
		require.NoError(c.t, c.controller.Err())
	default:
		c.t.Fatal("ovn-controller runs on after its stop")
	}
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
	ours := newAuthority(t)
	for _, c := range []*chassis{one, two} {
		ours.give(filepath.Join(c.run, "secrets", "ovn"), c.host.Name)
		c.startDatabase()
		c.start("ovs-vswitchd", "env", "OVS_RUNDIR=/run/openvswitch", "ovs-vswitchd", "--enable-dummy",
			"--pidfile=/run/openvswitch/ovs-vswitchd.pid", "-vconsole:warn", "-vsyslog:off", "unix:/run/openvswitch/db.sock")
	}

	// PrismNET's part: the southbound database on the control plane.
	require.NoError(t, os.Mkdir(filepath.Join(one.run, "central"), 0o755))
	ours.give(filepath.Join(one.run, "central"), "southbound")
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
	newAuthority(t).give(stranger, "node02")
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

func TestPrismNETFirewall(t *testing.T) {
	t.Parallel()
	// Around our rules, what NixOS has there: what no rule accepts is dropped.
	backends := map[string]func(prismnetNode) string{
		"nftables": func(n prismnetNode) string {
			return "nft -f - <<'end'\ntable inet nixos-fw {\n chain input-allow {\n" + n.Firewall.ExtraInputRules + `}
				chain input {
					type filter hook input priority filter; policy drop;
					ct state { established, related } accept
					icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
					jump input-allow
				}
			}` + "\nend\n"
		},
		"iptables": func(n prismnetNode) string {
			return `for t in iptables ip6tables; do
				$t -N nixos-fw-accept; $t -A nixos-fw-accept -j ACCEPT
				$t -N nixos-fw; $t -A INPUT -j nixos-fw
				$t -A nixos-fw -m conntrack --ctstate ESTABLISHED,RELATED -j nixos-fw-accept
			done
			ip6tables -A nixos-fw -p icmpv6 -j nixos-fw-accept
			` + n.Firewall.ExtraCommands + `
			for t in iptables ip6tables; do $t -A nixos-fw -j DROP; done`
		},
	}
	for backend, ruleset := range backends {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			l, err := lab.New("prismfw")
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, l.Close()) })
			hosts := map[string]*lab.Host{}
			segment := map[*lab.Host][]netip.Prefix{}
			for id, name := range map[int]string{11: "node01", 12: "node02", 13: "stranger"} {
				hosts[name], err = l.Host(name)
				require.NoError(t, err)
				segment[hosts[name]] = []netip.Prefix{
					netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", id)),
					netip.MustParsePrefix(fmt.Sprintf("2001:db8:0:1::%d/64", id)),
				}
			}
			require.NoError(t, l.Switch(segment))
			nodes := evaluatePrismNET(t, `
				nodes.node01.encapsulationIp = "2001:db8:0:1::11";
				nodes.node02.encapsulationIp = "2001:db8:0:1::12";
			`, fmt.Sprintf("networking.nftables.enable = %t;", backend == "nftables"))
			for _, name := range []string{"node01", "node02"} {
				_, err := hosts[name].Run("bash", "-e", "-c", ruleset(nodes[name]))
				require.NoError(t, err)
			}

			// Where nothing listens, a packet that gets through is answered by a refusal.
			refused := func(within time.Duration, from, protocol, to, port string) bool {
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				out, _ := exec.CommandContext(ctx, "ip", "netns", "exec", hosts[from].Namespace, "bash", "-c", fmt.Sprintf(
					`exec 3<>/dev/%s/%s/%s && while echo >&3; do sleep 0.05; done`, protocol, to, port)).CombinedOutput() // it never ends well
				return strings.Contains(string(out), "refused")
			}
			for _, probe := range []struct {
				from, protocol, to, port string
				want                     bool
			}{
				{"node02", "udp", "2001:db8:0:1::11", "6081", true},
				{"node01", "udp", "2001:db8:0:1::12", "6081", true},
				{"stranger", "udp", "2001:db8:0:1::11", "6081", false},
				{"node02", "udp", "10.0.0.11", "6081", false}, // no tunnel comes from there
				{"node02", "udp", "2001:db8:0:1::11", "4789", false},
				{"node02", "tcp", "10.0.0.11", "6642", true},
				{"stranger", "tcp", "10.0.0.11", "6642", false},
				{"node01", "tcp", "10.0.0.12", "6642", false}, // no control plane
				{"node02", "tcp", "10.0.0.11", "6641", false},
			} {
				t.Run(fmt.Sprintf("%s to %s %s port %s", probe.from, probe.protocol, probe.to, probe.port), func(t *testing.T) {
					t.Parallel()
					within := patience
					if !probe.want {
						within = time.Second
					}
					assert.Equal(t, probe.want, refused(within, probe.from, probe.protocol, probe.to, probe.port))
				})
			}
		})
	}
}
