package vmtests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/deployer/certtest"
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
	var nodes map[string]prismnetNode
	nix(t, fmt.Sprintf(`
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
		    }) (builtins.removeAttrs cluster.nixosConfigurations [ "plasmacloud-iso" ]))`, more, strings.Join(nixos, " ")), &nodes)
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

// giveCertificate puts a key and a certificate for name, and the CA's, into a folder.
func giveCertificate(t *testing.T, ca *certtest.CA, dir, name string) {
	t.Helper()
	cert, key := ca.Issue(name)
	for file, from := range map[string]string{"key.pem": key, "cert.pem": cert, "ca.pem": ca.File} {
		data, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), data, 0o400))
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
