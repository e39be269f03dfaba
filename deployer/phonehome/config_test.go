package phonehome

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

const goodConfig = `{ "schema_version": 1, "cluster_name": "three-nodes", "node_id": "node01", "node_role": "control-plane",
  "node_ip": "10.0.0.11", "node_ipv6": "2001:db8::11", "services": ["fiberlb"], "labels": { "rack": "a1" }, "site": "berlin", "bootstrap": true, "initial_peers": ["node01"],
  "bgp_asn": 65001, "deployer_url": "http://deployer:8080" }
`

func TestParseClusterConfig(t *testing.T) {
	c, err := ParseClusterConfig([]byte(goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(goodConfig))
	if c.Hash != "sha256:"+hex.EncodeToString(sum[:]) || !node.ValidConfigHash(c.Hash) {
		t.Errorf("hash %s is not that of the exact bytes", c.Hash)
	}
	if c.NodeID != "node01" || c.NodeRole != "control-plane" || c.BGPASN == nil || *c.BGPASN != 65001 || !c.Bootstrap ||
		c.NodeIPv6 == nil || *c.NodeIPv6 != "2001:db8::11" || c.Labels["rack"] != "a1" || c.Site == nil || *c.Site != "berlin" {
		t.Errorf("%+v", c)
	}
	if spaced, _ := ParseClusterConfig([]byte(goodConfig + "\n")); spaced.Hash == c.Hash {
		t.Error("one more byte and the same hash")
	}

	replaced := func(old, with string) string { return strings.Replace(goodConfig, old, with, 1) }
	for name, test := range map[string]struct{ body, want string }{
		"empty":            {"", "empty"},
		"unknown key":      {replaced(`"services"`, `"sevices"`), "sevices: unknown"},
		"wrong case":       {replaced(`"node_id"`, `"Node_ID"`), `the name is "node_id"`},
		"hash from within": {replaced(`"services"`, `"Hash"`), "Hash: unknown"},
		"other schema":     {replaced(`"schema_version": 1`, `"schema_version": 2`), "schema_version: this program reads version 1, found 2"},
		"no cluster":       {replaced(`"three-nodes"`, `""`), "cluster_name: required"},
		"bad id":           {replaced(`"node01"`, `"Node 1"`), "node_id: want"},
		"bad role":         {replaced(`"control-plane"`, `"boss"`), "node_role: want control-plane or worker"},
		"bad ip":           {replaced(`"10.0.0.11"`, `"10.0.0"`), "node_ip: want"},
		"bad ipv6":         {replaced(`"2001:db8::11"`, `"10.0.0.12"`), "node_ipv6: want"},
		"bad label":        {replaced(`"a1"`, `1`), "labels"},
		"bad url":          {replaced(`"http://deployer:8080"`, `"deployer:8080"`), "deployer_url: "},
		"secret in url":    {replaced(`"http://deployer:8080"`, `"http://user:hunter2@deployer"`), "want a base URL"},
		"negative asn":     {replaced(`65001`, `-1`), "bgp_asn: want a whole number in range"},
		"trailing":         {goodConfig + "{}", "something follows"},
		"too large":        {goodConfig + strings.Repeat(" ", maxConfigBytes), "larger than"},
	} {
		_, err := ParseClusterConfig([]byte(test.body))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q in it", name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows a password: %v", name, err)
		}
	}
	if _, err := ParseClusterConfig([]byte(replaced("65001", "null"))); err != nil {
		t.Errorf("no BGP: %v", err)
	}
	if _, err := ReadClusterConfig("/nowhere/cluster-config.json"); err == nil || !strings.Contains(err.Error(), "/nowhere/cluster-config.json") {
		t.Errorf("no file: %v", err)
	}
}

func FuzzParseClusterConfig(f *testing.F) {
	f.Add([]byte(goodConfig))
	f.Add([]byte(`{"schema_version":1,"services":[null],"bgp_asn":4294967296}`))
	f.Add([]byte(`{"schema_version":1e0}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseClusterConfig(data)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("error without a reason")
			}
			return
		}
		if !node.ValidID(c.NodeID) || !node.ValidConfigHash(c.Hash) || c.SchemaVersion != 1 {
			t.Fatalf("accepted %+v", c)
		}
	})
}

// root lays files in a directory that stands for "/".
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadMachine(t *testing.T) {
	const (
		uuid      = "4C4C4544-0044-4A10-8052-B4C04F503532\n"
		machineID = "0123456789abcdef0123456789abcdee\n"
		derived   = "b7316773-c7c4-4245-b756-c2a896ebddaa"
	)
	for name, test := range map[string]struct {
		files      map[string]string
		id, source string
	}{
		"mainboard":        {map[string]string{productUUID: uuid, etcMachineID: machineID}, "4c4c4544-0044-4a10-8052-b4c04f503532", productUUID},
		"no mainboard":     {map[string]string{etcMachineID: machineID}, derived, etcMachineID},
		"all zeros":        {map[string]string{productUUID: "00000000-0000-0000-0000-000000000000\n", etcMachineID: machineID}, derived, etcMachineID},
		"all FF":           {map[string]string{productUUID: "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n", etcMachineID: machineID}, derived, etcMachineID},
		"vendor's default": {map[string]string{productUUID: "03000200-0400-0500-0006-000700080009\n", etcMachineID: machineID}, derived, etcMachineID},
		"network cards":    {map[string]string{etcMachineID: machineID, netDevices + "/eth0/device/x": "", netDevices + "/eth0/address": "52:54:00:00:00:01\n"}, "", netDevices},
		"nothing":          {nil, "", ""},
		"uninitialized":    {map[string]string{etcMachineID: "uninitialized\n"}, "", ""},
		"empty machine-id": {map[string]string{etcMachineID: ""}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ReadMachine(root(t, test.files))
			if err != nil || m.ID != test.id || m.IDSource != test.source {
				t.Errorf("%q from %q, %v; want %q from %q", m.ID, m.IDSource, err, test.id, test.source)
			}
		})
	}

	m, err := ReadMachine(root(t, map[string]string{
		kernelRelease: "6.12.1\x1b[2J\n", bootID: "b1\n", meminfo: "MemFree: 1 kB\nMemTotal:   2048 kB\n",
	}))
	if err != nil || m.BootID != "b1" || m.Facts["kernel"] != "6.12.1[2J" || m.Facts["memory_bytes"] != "2097152" || m.Facts["cpus"] == "" {
		t.Errorf("%+v, %v", m, err)
	}

	// What cannot be read is an error and not another identity. A directory in its
	// place stands for it, since root may read everything.
	dir := root(t, map[string]string{etcMachineID + "/x": ""})
	if _, err := ReadMachine(dir); err == nil || !strings.Contains(err.Error(), "machine id") {
		t.Errorf("unreadable machine-id: %v", err)
	}
}

func TestMACsAndSerial(t *testing.T) {
	card := func(name, address string) map[string]string {
		return map[string]string{netDevices + "/" + name + "/device/x": "", netDevices + "/" + name + "/address": address + "\n"}
	}
	files := map[string]string{
		netDevices + "/lo/address":                     "00:00:00:00:00:00\n",
		netDevices + "/br0/address":                    "52:54:00:00:00:99\n",
		netDevices + "/eth1/bonding_slave/perm_hwaddr": "52:54:00:00:00:01\n",
		productSerial:                                  "  CZ1234ABCD \n",
	}
	for _, c := range []map[string]string{
		card("eth0", "52:54:00:AB:CD:02"), card("eth1", "52:54:00:ab:cd:02"), card("eth2", ""), card("eth3", "00:00:00:00:00:00"),
		card("ib0", "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:31:78:51"),
	} {
		maps.Copy(files, c)
	}
	dir := root(t, files)
	for name, bus := range map[string]string{"usb0": "usb", "usb1": "usb", "vf0": "pci"} {
		device := filepath.Join(dir, netDevices, name, "device")
		if err := errors.Join(os.MkdirAll(device, 0o755), os.Symlink("../../../bus/"+bus, filepath.Join(device, "subsystem")),
			os.WriteFile(filepath.Join(device, "../address"), []byte(map[string]string{
				"usb0": "be:3a:f2:b6:05:9f", "usb1": "00:e0:4c:68:00:01", "vf0": "52:54:00:00:00:77"}[name]+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, netDevices, "vf0/device/physfn"), 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := ReadMachine(dir)
	if want := []string{"00:e0:4c:68:00:01", "52:54:00:00:00:01", "52:54:00:ab:cd:02"}; err != nil || !slices.Equal(m.MACs, want) || m.Serial != "CZ1234ABCD" {
		t.Errorf("%v, %q, %v; want %v, CZ1234ABCD", m.MACs, m.Serial, err, want)
	}
	if m.Facts["macs"] != "00:e0:4c:68:00:01,52:54:00:00:00:01,52:54:00:ab:cd:02" || m.Facts["serial"] != "CZ1234ABCD" {
		t.Errorf("facts %v", m.Facts)
	}

	// A machine with more cards than a fact holds is still accepted.
	many := map[string]string{}
	for i := range 100 {
		maps.Copy(many, card(fmt.Sprintf("eth%d", i), fmt.Sprintf("52:54:00:00:00:%02x", i)))
	}
	m, err = ReadMachine(root(t, many))
	if err != nil || len(m.MACs) != 100 || len(m.Facts["macs"]) > api.MaxFactValue {
		t.Errorf("%d cards, fact of %d bytes, %v", len(m.MACs), len(m.Facts["macs"]), err)
	}

	for _, serial := range []string{"", "0", "0000000000", "To Be Filled By O.E.M.", "Default string", "N/A"} {
		if m, err := ReadMachine(root(t, map[string]string{productSerial: serial + "\n"})); err != nil || m.Serial != "" || m.Facts["serial"] != "" {
			t.Errorf("serial %q counts as %q, %v", serial, m.Serial, err)
		}
	}
	m, err = ReadMachine(root(t, map[string]string{productSerial: "Not Specified\n", boardSerial: "10000000abcdef\x00"}))
	if err != nil || m.Serial != "10000000abcdef" {
		t.Errorf("device tree: %q, %v", m.Serial, err)
	}
}
