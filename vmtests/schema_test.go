package vmtests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/deployer/phonehome"
	"github.com/centra/plasmacloud/nixeval"
)

// schemaID begins the $id of each schema, by which they name each other.
const schemaID = "https://github.com/centra/plasmacloud/blob/main/nix/schema/"

func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	files, err := filepath.Glob("../nix/schema/*.schema.json")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		require.NoError(t, err, file)
		require.NoError(t, compiler.AddResource(schemaID+filepath.Base(file), document))
	}
	s, err := compiler.Compile(schemaID + name + ".schema.json")
	require.NoError(t, err)
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, document []byte) error {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	require.NoError(t, err, "%s", document)
	return s.Validate(value)
}

// goldens are the manifests that nix/tests records, by the name of the case; the
// example's is three-nodes.
func goldens(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("../nix/tests/good/*.json")
	require.NoError(t, err)
	found := map[string][]byte{}
	for _, file := range files {
		found[filepath.Base(file)], err = os.ReadFile(file)
		require.NoError(t, err)
	}
	require.Contains(t, found, "three-nodes.json")
	return found
}

type goldenNode struct {
	ClusterConfig string          `json:"clusterConfig"`
	Announcer     json.RawMessage `json:"announcer"`
}

// nodesOf are the nodes of a golden.
func nodesOf(t *testing.T, golden []byte) map[string]goldenNode {
	t.Helper()
	var manifest struct {
		Data struct {
			Nodes map[string]goldenNode `json:"nodes"`
		} `json:"data"`
	}
	require.NoError(t, json.Unmarshal(golden, &manifest))
	require.NotEmpty(t, manifest.Data.Nodes)
	return manifest.Data.Nodes
}

func TestGeneratedManifests(t *testing.T) {
	s := schema(t, "manifest")
	for name, golden := range goldens(t) {
		assert.NoError(t, validate(t, s, golden), name)
		manifest, err := nixeval.DecodeManifest(bytes.NewReader(golden))
		if assert.NoError(t, err, name) {
			assert.NotEmpty(t, manifest.NodeIDs(), name)
		}
	}
	for what, wrong := range map[string]string{
		"data beside a failure":      `{ "data": { "schemaVersion": 1, "cluster": { "name": "c", "asn": null, "initialPeers": [], "deployerUrl": "" }, "nodes": {}, "vips": {} }, "failedAssertions": ["x"], "warnings": [] }`,
		"neither data nor a failure": `{ "data": null, "failedAssertions": [], "warnings": [] }`,
		"no verdict":                 `{ "data": null }`,
		"an unknown key":             `{ "data": null, "failedAssertions": ["x"], "warnings": [], "more": 1 }`,
	} {
		assert.Error(t, validate(t, s, []byte(wrong)), what)
	}
}

func TestGeneratedClusterConfigs(t *testing.T) {
	s := schema(t, "cluster-config")
	for name, golden := range goldens(t) {
		for id, node := range nodesOf(t, golden) {
			assert.NoError(t, validate(t, s, []byte(node.ClusterConfig)), "%s, %s", name, id)
			config, err := phonehome.ParseClusterConfig([]byte(node.ClusterConfig))
			assert.NoError(t, err, "%s, %s", name, id)
			assert.Equal(t, id, config.NodeID)
		}
	}
}

func TestGeneratedAnnouncerConfigs(t *testing.T) {
	s := schema(t, "announcer")
	generated := 0
	for name, golden := range goldens(t) {
		for id, node := range nodesOf(t, golden) {
			if string(node.Announcer) == "null" {
				continue
			}
			generated++
			assert.NoError(t, validate(t, s, node.Announcer), "%s, %s", name, id)
			_, err := bgp.ParseConfig(node.Announcer)
			assert.NoError(t, err, "%s, %s", name, id)
		}
	}
	assert.Greater(t, generated, 5)
}

// The schema of announcer.json and the announcer take the same, value by value.
func TestAnnouncerSchemaAgreesWithItsReader(t *testing.T) {
	s := schema(t, "announcer")
	const document = `{ "schema_version": 1, "node_id": "node01", "asn": 65001,
		"speaker": { "address": "127.0.0.1:50051", "timeout": "2s",
			"tls": { "ca": "/etc/ca.pem", "cert": "/etc/cert.pem", "key": "/etc/key.pem", "server_name": "gobgpd" } },
		"next_hop": { "ipv4": "10.0.0.11", "ipv6": "2001:db8::11" },
		"hold": { "interface": "lo", "netns": "" }, "drain_delay": "5s", "graceful_shutdown": { "delay": "10s", "on_health": true, "by": "med" }, "reconcile_interval": "10s", "metrics": { "listen": "127.0.0.1:9479" },
		"vips": [ { "address": "203.0.113.10", "communities": ["65001:100", "65001:1:2"], "med": 0, "local_pref": 4294967295, "prepend": 3,
			"hold": "route", "drain_delay": "30s", "checks": [
				{ "type": "http", "url": "http://127.0.0.1:8080/healthz", "interval": "2s", "timeout": "1s", "rise": 2, "fall": 3 },
				{ "type": "tcp", "address": "[::1]:80" },
				{ "type": "http", "url": "https://127.0.0.1:8080/healthz", "status": [204, "300-399"], "body": "ok", "body_regex": "^o", "headers": { "Accept": "*/*" },
					"redirects": 1, "host": "www.example.org", "ca_file": "/etc/ca.pem", "fast_interval": "500ms" },
				{ "type": "grpc", "address": "127.0.0.1:81", "service": "shop.Cart", "tls": true, "host": "cart", "ca_file": "/etc/ca.pem" },
				{ "type": "exec", "command": ["/bin/test", "-e", ""] },
				{ "type": "systemd", "unit": "nginx.service" } ],
			"require": 2, "start_delay": "30s", "damping": { "penalty": 1000, "suppress": 2500, "reuse": 750, "half_life": "1m" } } ] }`
	values := []any{
		nil, true, -1, 0, 1, 2, 256, 1001, 1.5, 65001, 4294967295, 4294967296,
		"", "a", "0.5s", "1m30s", "5", "5 s", "-5s", "route", "none", "Address", "http", "tcp", "https", "127.0.0.1:80", "127.0.0.1", "127.0.0.1:80x", "/etc/other.pem", "unix:///run/gobgpd.sock",
		"203.0.113.11", "203.0.113.0/24", "2001:db8::10", "http://127.0.0.1:8081/", "http://user:x@127.0.0.1/", "ftp://127.0.0.1/",
		[]any{}, []any{"65001:100"}, []any{"65001"}, []any{1}, []any{nil}, map[string]any{}, map[string]any{"x": 1},
		"all", "any", "grpc", "exec", "systemd", "www.example.org", "www.example.org:80", "a.socket", "a.b/c.service", "o[k", "299-200", []any{200, "404"}, []any{"200-600"}, []any{99},
		[]any{"/bin/test", ""}, []any{"bin/test"}, []any{"/bin/test", 1}, map[string]any{"X": "a"}, map[string]any{"x y": "a"}, strings.Repeat("x", 1001),
	}
	// What the schema leaves to the announcer, as it says itself.
	beyond := regexp.MustCompile("is longer than the interval|cannot be announced|make it less than that|checks up, and there are|is no regular expression")
	taken, refused := 0, 0
	agree := func(what string, change func(root map[string]any)) {
		t.Helper()
		root := map[string]any{}
		require.NoError(t, json.Unmarshal([]byte(document), &root))
		change(root)
		data, err := json.Marshal(root)
		require.NoError(t, err)
		bySchema := validate(t, s, data)
		_, byReader := bgp.ParseConfig(data)
		if byReader != nil && beyond.MatchString(byReader.Error()) {
			return
		}
		if (bySchema == nil) != (byReader == nil) {
			t.Errorf("%s\nschema: %v\nreader: %v", what, bySchema, byReader)
		}
		if byReader == nil {
			taken++
		} else {
			refused++
		}
	}
	vip := func(root map[string]any) map[string]any { return root["vips"].([]any)[0].(map[string]any) }
	check := func(i int) func(map[string]any) map[string]any {
		return func(root map[string]any) map[string]any { return vip(root)["checks"].([]any)[i].(map[string]any) }
	}
	for _, at := range []func(root map[string]any) map[string]any{
		func(root map[string]any) map[string]any { return root },
		func(root map[string]any) map[string]any { return root["speaker"].(map[string]any) },
		func(root map[string]any) map[string]any {
			return root["speaker"].(map[string]any)["tls"].(map[string]any)
		},
		func(root map[string]any) map[string]any { return root["next_hop"].(map[string]any) },
		func(root map[string]any) map[string]any { return root["hold"].(map[string]any) },
		func(root map[string]any) map[string]any { return root["metrics"].(map[string]any) },
		vip,
		func(root map[string]any) map[string]any { return vip(root)["damping"].(map[string]any) },
		check(0), check(1), check(2), check(3), check(4), check(5),
	} {
		root := map[string]any{}
		require.NoError(t, json.Unmarshal([]byte(document), &root))
		for key := range at(root) {
			agree("no "+key, func(root map[string]any) { delete(at(root), key) })
			for _, value := range values {
				agree(fmt.Sprintf("%s = %#v", key, value), func(root map[string]any) { at(root)[key] = value })
			}
		}
		agree("nothing", func(root map[string]any) { clear(at(root)) })
		agree("a stranger", func(root map[string]any) { at(root)["stranger"] = 1 })
	}
	for _, name := range []any{nil, "", "gobgpd"} {
		agree(fmt.Sprintf("unix, name %#v", name), func(root map[string]any) {
			speaker := root["speaker"].(map[string]any)
			speaker["address"] = "unix:///run/gobgpd.sock"
			speaker["tls"].(map[string]any)["server_name"] = name
		})
	}
	assert.Greater(t, taken, 50)
	assert.Greater(t, refused, 500)
}

// The schema and the program that reads the file take the same: each key left out,
// and with each of these values.
func TestClusterConfigSchemaAgreesWithItsReader(t *testing.T) {
	s := schema(t, "cluster-config")
	good := map[string]any{}
	require.NoError(t, json.Unmarshal([]byte(nodesOf(t, goldens(t)["machines.json"])["node01"].ClusterConfig), &good))
	long := string(bytes.Repeat([]byte("a"), 64))
	values := []any{
		nil, true, false, -1, 0, 1, 2, 1.5, 23456, 65001, 65535, 4294967294, 4294967295, 4294967296,
		"", " ", "a", "A", "a-", "-a", "a.b", "node01", "node_01", long[:63], long, "ü", "a\n",
		"control-plane", "worker", "Worker",
		"10.0.0.11", "10.0.0", "10.0.0.011", "10.0.0.256", "10.0.0.1/24", "2001:db8::11", "2001:DB8::11", "::", "::ffff:10.0.0.1", "fe80::1%eth0", "1::2::3", "2001:db8::11/64",
		"http://deployer:8080", "https://[2001:db8::1]:8080/base", "http://deployer/", "http://", "deployer:8080", "ftp://deployer", "http://user:x@deployer", "http://deployer?x=1", "http://deployer#x", "http://a b",
		[]any{}, []any{"a"}, []any{"a", "a"}, []any{""}, []any{nil}, []any{1}, []any{"A b"}, []any{[]any{}},
		map[string]any{}, map[string]any{"rack": "a1"}, map[string]any{"rack": ""}, map[string]any{"rack": nil}, map[string]any{"rack": 1}, map[string]any{"rack": "a/b"},
		map[string]any{"": "x"}, map[string]any{"a/b": "x"}, map[string]any{"a/b/c": "x"}, map[string]any{"-a": "x"}, map[string]any{"a": long[:63]}, map[string]any{"a": long}, map[string]any{long: "x"},
	}
	taken, refused := 0, 0
	agree := func(document map[string]any) {
		t.Helper()
		data, err := json.Marshal(document)
		require.NoError(t, err)
		bySchema := validate(t, s, data)
		_, byReader := phonehome.ParseClusterConfig(data)
		if (bySchema == nil) != (byReader == nil) {
			t.Errorf("%s\nschema: %v\nreader: %v", data, bySchema, byReader)
		}
		if byReader == nil {
			taken++
		} else {
			refused++
		}
	}
	ipv6Only := maps.Clone(good)
	ipv6Only["node_ip"] = "2001:db8::11"
	ipv6Only["node_ipv6"] = nil
	for _, base := range []map[string]any{good, ipv6Only} {
		agree(base)
		for key := range base {
			changed := maps.Clone(base)
			delete(changed, key)
			agree(changed)
			for _, value := range values {
				changed[key] = value
				agree(changed)
			}
		}
	}
	stranger := maps.Clone(good)
	stranger["node_name"] = "node01"
	agree(stranger)
	assert.Greater(t, taken, 50)
	assert.Greater(t, refused, 500)
}
