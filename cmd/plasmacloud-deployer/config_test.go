package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConfig(t *testing.T) {
	c, err := parseConfig([]byte(`{"listen": "127.0.0.1:9", "store": {"path": "/x.db"}, "heartbeat_interval": "2s"}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:9" || c.Store.Path != "/x.db" || c.Manifest != "/etc/plasmacloud/manifest.json" ||
		c.heartbeatInterval != 2*time.Second || c.offlineAfter != 6*time.Second || c.provisioningTimeout != 30*time.Minute {
		t.Errorf("%+v", c)
	}

	for body, want := range map[string]string{
		`{"listn": ":1"}`:          "listn: unknown; known are allow_unknown_nodes",
		`{"store": {"Path": "x"}}`: `store.Path: unknown; the name is "path"`,
		`{"store": {"path": ""}}`:  "store.path: required",
		`{"store": "x"}`:           "store: want an object, found string",
		`{"listen": "8080"}`:       "listen: want host:port",
		`{"listen": ":99999"}`:     "listen: want a port from 0 to 65535",
		`{"listen": ":-1"}`:        "listen: want a port from 0 to 65535",
		`{"listen": ":http"}`:      "listen: want a port from 0 to 65535",
		`{"listen": "127.0.0.1:"}`: "listen: want a port from 0 to 65535",
		`{"manifest": ""}`:         "manifest: without one no node can join",
		`{"tls": {"cert": "x"}}`:   "tls.key: required",
		`{"tls": {"key": "x"}}`:    "tls.cert: required",
		`{"tls": {"cert": "c", "key": "k", "client_auth": "optional"}}`:               "tls.client_auth: of no use without client_ca",
		`{"tls": {"cert": "c", "key": "k", "client_ca": "a", "client_auth": "some"}}`: `tls.client_auth: want required or optional, found "some"`,
		`{"tls": {"ca": "x"}}`:             "tls.ca: unknown; known are cert, client_auth, client_ca, key",
		`{"tokens": {"join": "x"}}`:        "tokens.join: unknown; known are join_file, operators_file, required",
		`{"max_unknown_nodes": 0}`:         "max_unknown_nodes: want 1 to 100000, found 0",
		`{"approval": "some"}`:             `approval: want none, undeclared or all, found "some"`,
		`{"approval": "undeclared"}`:       "approval: undeclared nodes join only with allow_unknown_nodes",
		`{"approval": "all"}`:              "approval: nobody may approve without operators",
		`{"provisioning_timeout": "30"}`:   "provisioning_timeout: want a duration",
		`{"provisioning_timeout": 30}`:     "provisioning_timeout: want a string, found number",
		`{"heartbeat_interval": "1ms"}`:    "heartbeat_interval: want a duration from 1s",
		`{"heartbeat_rate": 0}`:            "heartbeat_rate: want 1 to 100000 a second, found 0",
		`{"offline_after": "10s"}`:         "offline_after: want more than heartbeat_interval (10s)",
		`{"listen": ":1", "listen": ":2"}`: "listen: given twice",
		`{} {}`:                            "something follows",
		`listen: 8080`:                     "want a JSON object",
	} {
		c, err := parseConfig([]byte(body))
		if err == nil {
			err = c.check()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", body, err, want)
		}
	}

	missing := filepath.Join(t.TempDir(), "deployer.json")
	if _, err := readConfig(missing, false); err != nil {
		t.Errorf("the default file may be missing: %v", err)
	}
	if _, err := readConfig(missing, true); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a file that was named: %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"listen": ":8080", "store": {"path": "/x"}, "provisioning_timeout": "1h", "max_unknown_nodes": 5}`))
	f.Add([]byte(`{"offline_after": "-1s"}`))
	f.Add([]byte(`{"store": null, "listen": "[::1]:0"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		if err != nil {
			return
		}
		if c.check() == nil && (c.provisioningTimeout < time.Second || c.heartbeatInterval < time.Second ||
			c.offlineAfter <= c.heartbeatInterval || c.Store.Path == "") {
			t.Fatalf("accepted %+v", c)
		}
	})
}

func TestManifest(t *testing.T) {
	vips := `"vips": {"203.0.113.10/32": {"nodes": ["node01"]}, "2001:db8::10/128": {"nodes": ["node01", "node02"]}}`
	all, err := declarations(strings.NewReader(strings.Replace(manifest("node02", "node01"), `"vips": {}`, vips, 1)))
	nodes := all.nodes
	if err != nil || all.cluster != "three-nodes" || fmt.Sprint(all.vips) != "[{2001:db8::10/128 [node01 node02]} {203.0.113.10/32 [node01]}]" || len(nodes) != 2 || nodes[0].ID != "node01" || nodes[0].Role != "worker" ||
		nodes[0].IP.String() != "10.0.0.11" || nodes[0].ConfigHash != hash1 {
		t.Fatalf("%+v %v", all, err)
	}
	change := func(old, with string) string { return strings.ReplaceAll(manifest("node01"), old, with) }
	for name, test := range map[string]struct{ body, want string }{
		"failed assertions": {`{"data":null,"failedAssertions":["plasmacloud.cluster.nodes:\n no node","x"],"warnings":[]}`, "assertions, mend them and evaluate it again: plasmacloud.cluster.nodes: no node; x"},
		"not JSON":          {"{", "manifest"},
		"no nodes":          {manifest(), "declares no node"},
		"bad id":            {change("node01", "Node 1"), `node "Node 1"`},
		"bad ip":            {change("10.0.0.11", "10.0.0"), `node node01: ip "10.0.0"`},
		"bad VIP":           {change(`"vips": {}`, `"vips": {"203.0.113.0/24": {"nodes": []}}`), `VIP "203.0.113.0/24"`},
		"bad hash":          {change("sha256:", "md5:"), "config hash"},
	} {
		_, err := declarations(strings.NewReader(test.body))
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q, want %q in one line", name, err, test.want)
		}
	}
}

const hash1 = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

// manifest is one that declares the given workers.
func manifest(ids ...string) string {
	var nodes []string
	for _, id := range ids {
		nodes = append(nodes, `"`+id+`": {"role": "worker", "ip": "10.0.0.11", "ipv6": null, "services": [],
			"labels": {}, "site": null, "identity": {"macs": [], "serial": null},
			"deployment": {"targetHost": "10.0.0.11", "targetUser": "root", "targetPort": 22, "tags": [],
				"provision": {"mode": "live", "disk": null, "script": null}},
			"clusterConfig": "{}", "configHash": "`+hash1+`", "bgp": null, "announcer": null}`)
	}
	return `{"data": {"schemaVersion": 1, "cluster": {"name": "three-nodes", "asn": null, "initialPeers": [], "deployerUrl": "http://deployer:8080"},
		"vips": {}, "nodes": {` + strings.Join(nodes, ",") + `}}, "failedAssertions": [], "warnings": []}`
}

func write(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
