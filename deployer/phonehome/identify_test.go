package phonehome

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func tableNode(id string, macs []string, serial string, install map[string]string) TableNode {
	n := TableNode{ClusterConfig: strings.ReplaceAll(goodConfig, "node01", id), MACs: macs, Install: install}
	if serial != "" {
		n.Serial = &serial
	}
	return n
}

func tableFile(t *testing.T, nodes ...TableNode) string {
	t.Helper()
	data, err := json.Marshal(NodeTable{SchemaVersion: 1, Nodes: nodes})
	if err != nil {
		t.Fatal(err)
	}
	return writeTable(t, data)
}

func writeTable(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nodes.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFind(t *testing.T) {
	three := []TableNode{
		tableNode("node01", []string{"52:54:00:00:00:01", "52-54-00-00-00-AA"}, "", nil),
		tableNode("node02", nil, " cz1234abcd", nil),
		tableNode("node03", nil, "", nil), // not declared yet
	}
	both := []TableNode{tableNode("node04", []string{"52:54:00:00:00:04"}, "SN4", nil)}
	for name, test := range map[string]struct {
		nodes   []TableNode
		machine Machine
		id, by  string
		says    []string // of the error
	}{
		"by MAC":            {three, Machine{MACs: []string{"52:54:00:00:00:01"}}, "node01", "MAC address 52:54:00:00:00:01", nil},
		"by its second MAC": {three, Machine{MACs: []string{"02:00:00:00:00:00", "52:54:00:00:00:aa"}}, "node01", "MAC address 52:54:00:00:00:aa", nil},
		"by serial":         {three, Machine{Serial: "CZ1234ABCD"}, "node02", "serial number CZ1234ABCD", nil},
		"by both":           {both, Machine{MACs: []string{"52:54:00:00:00:04"}, Serial: "SN4"}, "node04", "MAC address 52:54:00:00:00:04 and serial number SN4", nil},
		"by one of both": {both, Machine{MACs: []string{"52:54:00:00:00:04"}, Serial: "SN5"}, "", "", []string{
			"This ISO is for the node node04", `It has the MAC address 52:54:00:00:00:04 of node04, but plasmacloud.cluster.nodes.node04.identity.serial declares "SN4", and this machine has SN5.`,
		}},
		"none": {three, Machine{MACs: []string{"52:54:00:00:00:09"}, Serial: "X9"}, "", "", []string{
			"no node of the cluster three-nodes", "MAC addresses: 52:54:00:00:00:09", "serial number: X9", `identity.macs = [ "52:54:00:00:00:09" ];`,
		}},
		"none, by serial":        {three, Machine{Serial: "X9"}, "", "", []string{"MAC addresses: none found", `identity.serial = "X9";`}},
		"nothing to tell it by":  {three, Machine{}, "", "", []string{"serial number: none that tells", "build-iso.sh --node NODE"}},
		"two":                    {three, Machine{MACs: []string{"52:54:00:00:00:01"}, Serial: "CZ1234ABCD"}, "", "", []string{"several nodes", "node01 by its MAC address 52:54:00:00:00:01", "node02 by its serial number CZ1234ABCD", "to one node"}},
		"alone, without a mark":  {three[2:], Machine{}, "node03", "the only node of this ISO", nil},
		"alone, the machine":     {three[:1], Machine{MACs: []string{"52:54:00:00:00:01"}}, "node01", "MAC address 52:54:00:00:00:01", nil},
		"alone, another machine": {three[:1], Machine{MACs: []string{"52:54:00:00:00:02"}}, "", "", []string{"This ISO is for the node node01", "another one"}},
	} {
		t.Run(name, func(t *testing.T) {
			table, err := ReadNodeTable(tableFile(t, test.nodes...))
			if err != nil {
				t.Fatal(err)
			}
			n, by, err := table.Find(test.machine)
			if n.id != test.id || by != test.by || (err == nil) != (test.id != "") {
				t.Errorf("%q by %q, %v; want %q by %q", n.id, by, err, test.id, test.by)
			}
			for _, want := range test.says {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %q", err, want)
				}
			}
		})
	}
}

func TestBadTable(t *testing.T) {
	for name, test := range map[string]struct {
		node TableNode
		says string
	}{
		"cluster config": {TableNode{ClusterConfig: "{}"}, "nodes[0].cluster_config: schema_version"},
		"mac":            {tableNode("node01", []string{"52:54"}, "", nil), "nodes[0].macs[0]: want a MAC address"},
		"serial":         {tableNode("node01", nil, "Default string", nil), "nodes[0].serial"},
		"variable":       {tableNode("node01", nil, "", map[string]string{"a=b": ""}), "nodes[0].install"},
		"value":          {tableNode("node01", nil, "", map[string]string{"DISK": "/dev/sda\nX=1"}), "nodes[0].install.DISK"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadNodeTable(tableFile(t, test.node))
			var config *ConfigError
			if !errors.As(err, &config) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v; want %q", err, test.says)
			}
		})
	}
	for text, says := range map[string]string{
		`{"schema_version":2,"nodes":[]}`: "schema_version", `{"schema_version":1,"nodes":[]}`: "nodes: empty",
		`{"schema_version":1,"node":[]}`: "node: unknown", `[`: "nodes.json",
	} {
		if _, err := ReadNodeTable(writeTable(t, []byte(text))); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want %q", text, err, says)
		}
	}
	if _, err := ReadNodeTable("/nowhere.json"); err == nil || !strings.Contains(err.Error(), "/nowhere.json") {
		t.Error(err)
	}
}

// TestIdentify: a network card that appears late is waited for, the console hears
// of what changes and once a minute, and the node's files are those of the table.
func TestIdentify(t *testing.T) {
	table := tableFile(t,
		tableNode("node01", []string{"52:54:00:00:00:01"}, "", map[string]string{"SYSTEM": "/nix/store/x-system", "DISK": "/dev/vda"}),
		tableNode("node02", []string{"52:54:00:00:00:02"}, "", nil))
	card := func(name, mac string) map[string]string {
		return map[string]string{netDevices + "/" + name + "/device/x": "", netDevices + "/" + name + "/address": mac + "\n"}
	}
	root, out := root(t, nil), filepath.Join(t.TempDir(), "run")
	appear := func(name, mac string) {
		for path, content := range card(name, mac) {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o700); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var reports []string
		var hostname string
		cfg := IdentifyConfig{
			TablePath: table, OutDir: out, Root: root,
			Report:      func(reason string) { reports = append(reports, reason) },
			SetHostname: func(name string) error { hostname = name; return nil },
		}
		time.AfterFunc(30*time.Second, func() { appear("eth0", "52:54:00:00:00:09") })
		time.AfterFunc(100*time.Second, func() { appear("eth1", "52:54:00:00:00:01") })
		begin := time.Now()
		found, err := Identify(t.Context(), cfg)
		took := time.Since(begin)
		if err != nil || found.NodeID != "node01" || hostname != "node01" || took < 100*time.Second || took > 102*time.Second {
			t.Errorf("%+v, named %q, %v, after %s", found, hostname, err, took)
		}
		if len(reports) != 3 || !strings.Contains(reports[0], "none found") || !strings.Contains(reports[1], "52:54:00:00:00:09") || reports[1] != reports[2] {
			t.Errorf("reports: %q", reports)
		}
		for file, want := range map[string]string{
			ConfigFile: goodConfig, InstallFile: "DISK=/dev/vda\nSYSTEM=/nix/store/x-system\n",
		} {
			if data, err := os.ReadFile(filepath.Join(out, file)); err != nil || string(data) != want {
				t.Errorf("%s: %q, %v; want %q", file, data, err, want)
			}
		}

		// The same machine as a node that is not installed: nothing says install.
		for _, file := range []string{"eth0", "eth1"} {
			if err := os.RemoveAll(filepath.Join(root, netDevices, file)); err != nil {
				t.Error(err)
			}
		}
		appear("eth0", "52:54:00:00:00:02")
		if found, err := Identify(t.Context(), cfg); err != nil || found.NodeID != "node02" {
			t.Errorf("%+v, %v", found, err)
		}
		if _, err := os.Stat(filepath.Join(out, InstallFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s of another node is left: %v", InstallFile, err)
		}

		// A machine that is no node: the error after Wait, or the context's.
		if err := os.RemoveAll(filepath.Join(root, netDevices)); err != nil {
			t.Error(err)
		}
		cfg.Wait = 5 * time.Second
		var none *NoNodeError
		if _, err := Identify(t.Context(), cfg); !errors.As(err, &none) {
			t.Errorf("no node: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := Identify(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("interrupted: %v", err)
		}
	})
}
