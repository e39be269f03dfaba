package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	const file = "../../nix/schema/deployer.schema.json"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource(file, document); err != nil {
		t.Fatal(err)
	}
	s, err := compiler.Compile(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// both says what the schema and the deployer think of a deployer.json.
func both(t *testing.T, s *jsonschema.Schema, data []byte) (bySchema, byReader error) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	c, byReader := parseConfig(data)
	if byReader == nil {
		byReader = c.check()
	}
	return s.Validate(value), byReader
}

// What plasmacloud.deployer writes, as nix/tests records it, and what the documents show.
func TestGeneratedDeployerConfigs(t *testing.T) {
	s := schema(t)
	golden, err := os.ReadFile("../../nix/tests/nodes.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct {
		Deployers map[string]struct {
			JSON json.RawMessage `json:"json"`
		} `json:"deployers"`
	}
	if err := json.Unmarshal(golden, &recorded); err != nil {
		t.Fatal(err)
	}
	documents := map[string][]byte{}
	for name, d := range recorded.Deployers {
		if d.JSON != nil {
			documents[name] = d.JSON
		}
	}
	if len(documents) < 3 {
		t.Errorf("only %d are recorded", len(documents))
	}
	text, err := os.ReadFile("../../docs/deployer.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatch(text, -1)
	if len(shown) < 4 {
		t.Errorf("only %d are shown", len(shown))
	}
	for i, match := range shown {
		documents[fmt.Sprintf("docs/deployer.md, %d", i+1)] = match[1]
	}
	for name, document := range documents {
		if bySchema, byReader := both(t, s, document); bySchema != nil || byReader != nil {
			t.Errorf("%s\nschema: %v\nreader: %v", name, bySchema, byReader)
		}
	}
}

// The schema of deployer.json and the deployer take the same, value by value: each key
// left out, and with each of these values.
func TestDeployerSchemaAgreesWithItsReader(t *testing.T) {
	s := schema(t)
	bolt := `{ "listen": "127.0.0.1:8080", "store": { "type": "bolt", "path": "/x.db" },
		"tls": { "cert": "/c.pem", "key": "/k.pem", "client_ca": "/ca.pem", "client_auth": "optional" },
		"tokens": { "required": true, "join_file": "/j", "operators_file": "/o" }, "page": false,
		"manifest": "/m.json", "allow_unknown_nodes": true, "max_unknown_nodes": 7, "approval": "undeclared",
		"provisioning_timeout": "1h30m", "heartbeat_interval": "30s", "heartbeat_rate": 50, "offline_after": "2m" }`
	etcd := `{ "store": { "type": "etcd", "path": null, "endpoints": ["https://10.0.0.21:2379", "https://[2001:db8::21]:2379"], "prefix": "/p/",
		"tls": { "ca": "/ca.pem", "cert": "/c.pem", "key": "/k.pem" }, "username": "u", "password_file": "/p", "timeout": "5s", "compact_interval": "0s" },
		"tokens": {}, "manifest": "", "allow_unknown_nodes": true, "approval": "none" }`
	plain := `{ "store": { "type": "etcd", "endpoints": ["http://127.0.0.1:2379"], "username": "", "password_file": "", "tls": null } }`
	values := []any{
		nil, true, false, -1, 0, 1, 100, 1.5, 100000, 100001, map[string]any{}, map[string]any{"x": 1}, []any{}, []any{nil}, []any{1},
		"", "a", "none", "undeclared", "all", "required", "optional", "bolt", "etcd", "Bolt", "/", "//", "///", "/p/q", "/p_q/", "/p q/", "/" + strings.Repeat("p", 254) + "/", "/" + strings.Repeat("p", 255) + "/",
		"/x.db", defaultStorePath, "/etc/o",
		"0", "0s", "+5s", "-5s", "5", "5 s", "5.s", ".5s", ".s", "1h1m1s1ms1us1µs1ns", "1d", "99s", "1m", "25h", "999999h",
		":8080", ":0", ":00080", ":65535", ":65536", ":-1", ":http", "8080", "a:80", "a b:80", "[::1]:80", "::1:80", "[::1]80", "[::1]", "a[b:80", "[a]b:80", "127.0.0.1:",
		[]any{"http://10.0.0.21:2379"}, []any{"https://e:2379", "http://localhost:1"}, []any{"http://e"}, []any{"https://:2379"}, []any{"https://e:2379/"}, []any{"https://u@e:2379"},
		[]any{"HTTP://e:2379"}, []any{"unix:///e"}, []any{"http://[::1]:2379"}, []any{"http://::1:2379"}, []any{"https://e f:1"}, []any{"https://e:1?x"}, []any{"https://e:1#x"}, []any{"https://e%41:1"}, []any{"https://e:x"},
		strings.Fields(strings.Repeat("https://e:1 ", 32)), strings.Fields(strings.Repeat("https://e:1 ", 33)),
	}
	// What the schema leaves to the deployer, as it says itself.
	beyond := regexp.MustCompile("want more than heartbeat_interval|a password goes only over https")
	limits := regexp.MustCompile(`want a duration from \S+ to .*, found "(.*)"$`)
	taken, refused := 0, 0
	agree := func(document, what string, change func(root map[string]any)) {
		t.Helper()
		root := map[string]any{}
		if err := json.Unmarshal([]byte(document), &root); err != nil {
			t.Fatal(err)
		}
		change(root)
		data, err := json.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		bySchema, byReader := both(t, s, data)
		if byReader == nil {
			taken++
		} else {
			refused++
			if found := limits.FindStringSubmatch(byReader.Error()); found != nil {
				if _, err := time.ParseDuration(found[1]); err == nil {
					return
				}
			}
			if beyond.MatchString(byReader.Error()) {
				return
			}
		}
		if (bySchema == nil) != (byReader == nil) {
			t.Errorf("%s\nschema: %v\nreader: %v", what, bySchema, byReader)
		}
	}
	inside := func(path ...string) func(map[string]any) map[string]any {
		return func(at map[string]any) map[string]any {
			for _, key := range path {
				at, _ = at[key].(map[string]any)
			}
			return at
		}
	}
	for _, document := range []string{bolt, etcd, plain, "{}"} {
		agree(document, "as it is", func(map[string]any) {})
		for _, at := range []func(map[string]any) map[string]any{inside(), inside("store"), inside("store", "tls"), inside("tls"), inside("tokens")} {
			root := map[string]any{}
			if err := json.Unmarshal([]byte(document), &root); err != nil {
				t.Fatal(err)
			}
			if at(root) == nil {
				continue
			}
			for key := range at(root) {
				agree(document, "no "+key, func(root map[string]any) { delete(at(root), key) })
			}
			for _, key := range []string{
				"listen", "store", "tls", "tokens", "page", "manifest", "allow_unknown_nodes", "max_unknown_nodes", "approval", "provisioning_timeout", "heartbeat_interval",
				"heartbeat_rate", "offline_after", "type", "path", "endpoints", "prefix", "username", "password_file", "timeout", "compact_interval", "ca", "cert", "key",
				"client_ca", "client_auth", "required", "join_file", "operators_file", "stranger",
			} {
				for _, value := range values {
					agree(document, fmt.Sprintf("%s = %#v in %s", key, value, document), func(root map[string]any) { at(root)[key] = value })
				}
			}
			agree(document, "nothing", func(root map[string]any) { clear(at(root)) })
		}
	}
	if taken < 500 || refused < 5000 {
		t.Errorf("only %d were taken, and %d refused", taken, refused)
	}
}
