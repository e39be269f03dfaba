package vmtests

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/deployer/phonehome"
)

func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	s, err := compiler.Compile("../nix/schema/" + name + ".schema.json")
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
