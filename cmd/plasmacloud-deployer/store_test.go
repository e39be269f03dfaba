package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/certtest"
)

func TestStoreConfig(t *testing.T) {
	c, err := parseConfig([]byte(`{"store": {"type": "etcd", "endpoints": ["https://10.0.0.21:2379", "https://[2001:db8::22]:2379"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	if c.Store.Prefix != "/plasmacloud/" || c.Store.timeout != 3*time.Second || c.Store.compactInterval != 5*time.Minute ||
		c.flushInterval() != 10*time.Second {
		t.Errorf("%+v", c.Store)
	}

	long := strings.Repeat("x", 300)
	for body, want := range map[string]string{
		`{"type": "etc"}`:  `store.type: want "bolt" or "etcd", found "etc"`,
		`{"type": ""}`:     `store.type: want "bolt" or "etcd"`,
		`{"prefix": "/"}`:  `store.prefix: goes only with the type "etcd"`,
		`{"timeout": "1"}`: `store.timeout: goes only with the type "etcd"`,
		`{"type": "etcd"}`: "store.endpoints: want 1 to 32 URLs such as https://10.0.0.21:2379, found 0",
		`{"type": "etcd", "path": "/x.db", "endpoints": ["https://e:2379"]}`:                    `store.path: goes only with the type "bolt"`,
		`{"type": "etcd", "endpoints": "https://e:2379"}`:                                       "store.endpoints: want an array, found string",
		`{"type": "etcd", "endpoints": ["e:2379"]}`:                                             `store.endpoints[0]: want http://HOST:PORT or https://HOST:PORT, found "e:2379"`,
		`{"type": "etcd", "endpoints": ["https://e:2379", "https://e:2379/"]}`:                  "store.endpoints[1]: want http",
		`{"type": "etcd", "endpoints": ["https://e"]}`:                                          "store.endpoints[0]: want http",
		`{"type": "etcd", "endpoints": ["https://u:p@e:1"]}`:                                    "store.endpoints[0]: want http",
		`{"type": "etcd", "endpoints": ["http://e:1"], "tls": {}}`:                              "store.endpoints[0]: want https:// beside store.tls",
		`{"type": "etcd", "endpoints": ["https://e:1"], "tls": {"cert": "x"}}`:                  "store.tls: cert and key go together",
		`{"type": "etcd", "endpoints": ["https://e:1"], "tls": {"client_ca": "x"}}`:             "store.tls.client_ca: unknown; known are ca, cert, key",
		`{"type": "etcd", "endpoints": ["https://e:1"], "prefix": "plasmacloud"}`:               "store.prefix: want letters, digits",
		`{"type": "etcd", "endpoints": ["https://e:1"], "prefix": "/"}`:                         "store.prefix: want",
		`{"type": "etcd", "endpoints": ["https://e:1"], "prefix": "/a b/"}`:                     "store.prefix: want",
		`{"type": "etcd", "endpoints": ["https://e:1"], "prefix": "/` + long + `/"}`:            "store.prefix: want",
		`{"type": "etcd", "endpoints": ["https://e:1"], "username": "u"}`:                       "store.username: username and password_file go together",
		`{"type": "etcd", "endpoints": ["https://e:1"], "password_file": "/x"}`:                 "store.username: username and password_file go together",
		`{"type": "etcd", "endpoints": ["https://e:1"], "timeout": "1ms"}`:                      "store.timeout: want a duration from 100ms to 1m0s",
		`{"type": "etcd", "endpoints": ["https://e:1"], "compact_interval": "1s"}`:              "store.compact_interval: want a duration from 1m0s",
		`{"type": "etcd", "endpoints": ["https://e:1"], "compact_interval": "x"}`:               "store.compact_interval: want a duration",
		`{"type": "etcd", "endpoints": ["http://e:1"], "username": "u", "password_file": "/x"}`: "store.username: a password goes only over https",
	} {
		c, err := parseConfig([]byte(`{"store": ` + body + `}`))
		if err == nil {
			err = c.check()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", body, err, want)
		}
	}
	for _, body := range []string{
		`{"type": "bolt"}`,
		`{"type": "etcd", "endpoints": ["http://e:1"], "compact_interval": "0s"}`,
		`{"type": "etcd", "endpoints": ["http://127.0.0.1:1", "http://[::1]:2", "http://localhost:3"], "username": "u", "password_file": "/x"}`,
	} {
		c, err := parseConfig([]byte(`{"store": ` + body + `}`))
		if err == nil {
			err = c.check()
		}
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// TestStoreFiles: check reads what the store's part of the configuration names.
func TestStoreFiles(t *testing.T) {
	dir := t.TempDir()
	ca := certtest.New(t)
	cert, key := ca.Issue("deployer")
	password := write(t, filepath.Join(dir, "password"), "s3cret\n")
	open := write(t, filepath.Join(dir, "open"), "s3cret\n")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ ca, cert, key, password, want string }{
		"good":              {ca.File, cert, key, password, ""},
		"no CA":             {filepath.Join(dir, "none"), cert, key, password, "store.tls: CA: open " + filepath.Join(dir, "none")},
		"CA without one":    {password, cert, key, password, "store.tls: CA " + password + ": no certificate in it"},
		"another's key":     {ca.File, cert, open, password, "store.tls: key of the certificate: " + open},
		"no password":       {ca.File, cert, key, filepath.Join(dir, "none"), "store.password_file: open"},
		"anybody's":         {ca.File, cert, key, open, "store.password_file: " + open + ": its mode is 0644"},
		"an empty password": {ca.File, cert, key, write(t, filepath.Join(dir, "empty"), "\n"), "store.password_file: " + filepath.Join(dir, "empty") + ": empty"},
	} {
		c := write(t, filepath.Join(dir, "c.json"), fmt.Sprintf(`{"manifest": "", "allow_unknown_nodes": true, "store": {"type": "etcd",
			"endpoints": ["https://e:1"], "tls": {"ca": %q, "cert": %q, "key": %q}, "username": "u", "password_file": %q}}`,
			test.ca, test.cert, test.key, test.password))
		err := run(t.Context(), []string{"check", c}, new(strings.Builder), new(strings.Builder))
		if (err != nil) != (test.want != "") || err != nil && !strings.Contains(err.Error(), test.want) || err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q in it", name, err, test.want)
		}
	}
}
