package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	process "github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/secretfile"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
	"github.com/centra/plasmacloud/deployer/store/etcd"
	"github.com/centra/plasmacloud/deployer/strictjson"
)

// The values of store.type.
const (
	typeBolt = "bolt"
	typeEtcd = "etcd"
)

const defaultStorePath = "/var/lib/plasmacloud-deployer/state.db"

// storeConfig is the key store of deployer.json. What is left out keeps its default.
type storeConfig struct {
	Type string `json:"type"`
	Path string `json:"path"` // of bolt

	// Of etcd.
	Endpoints       []string  `json:"endpoints"`
	Prefix          string    `json:"prefix"`
	TLS             *storeTLS `json:"tls"` // nil: the roots of the system for https
	Username        string    `json:"username"`
	PasswordFile    string    `json:"password_file"`
	Timeout         string    `json:"timeout"`          // a duration with a unit
	CompactInterval string    `json:"compact_interval"` // the same; "0s": never

	timeout, compactInterval time.Duration
}

type storeTLS struct {
	CA   string `json:"ca"`
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// boltStore is what --store FILE asks for, whatever the configuration says.
func boltStore(path string) storeConfig { return storeConfig{Type: typeBolt, Path: path} }

// check validates c and fills in its defaults. Errors name the key.
func (c *storeConfig) check() error {
	bad := func(key, format string, args ...any) error {
		return &strictjson.FieldError{Field: "store." + key, Reason: fmt.Sprintf(format, args...)}
	}
	etcdOnly := []struct {
		key string
		set bool
	}{
		{"endpoints", c.Endpoints != nil}, {"prefix", c.Prefix != ""}, {"tls", c.TLS != nil}, {"username", c.Username != ""},
		{"password_file", c.PasswordFile != ""}, {"timeout", c.Timeout != ""}, {"compact_interval", c.CompactInterval != ""},
	}
	switch c.Type {
	case typeBolt:
		for _, key := range etcdOnly {
			if key.set {
				return bad(key.key, `goes only with the type "etcd"`)
			}
		}
		if c.Path == "" {
			return bad("path", "required")
		}
		return nil
	case typeEtcd:
		if c.Path != defaultStorePath {
			return bad("path", `goes only with the type "bolt"`)
		}
	default:
		return bad("type", `want "bolt" or "etcd", found %q`, c.Type)
	}

	if len(c.Endpoints) == 0 || len(c.Endpoints) > 32 {
		return bad("endpoints", "want 1 to 32 URLs such as https://10.0.0.21:2379, found %d", len(c.Endpoints))
	}
	plain := false // to another machine
	for i, endpoint := range c.Endpoints {
		key := fmt.Sprintf("endpoints[%d]", i)
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" ||
			u.Scheme+"://"+u.Host != endpoint {
			return bad(key, "want http://HOST:PORT or https://HOST:PORT, found %q", endpoint)
		}
		if c.TLS != nil && u.Scheme != "https" {
			return bad(key, "want https:// beside store.tls, found %q", endpoint)
		}
		ip := net.ParseIP(u.Hostname())
		plain = plain || u.Scheme == "http" && u.Hostname() != "localhost" && !(ip != nil && ip.IsLoopback())
	}
	c.Prefix = cmp.Or(c.Prefix, "/plasmacloud/")
	if len(c.Prefix) < 3 || len(c.Prefix) > 256 || c.Prefix[0] != '/' || !strings.HasSuffix(c.Prefix, "/") ||
		strings.Trim(c.Prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") != "" {
		return bad("prefix", "want letters, digits and - _ . / between two slashes, such as /plasmacloud/, found %q", c.Prefix)
	}
	switch {
	case c.TLS != nil && (c.TLS.Cert == "") != (c.TLS.Key == ""):
		return bad("tls", "cert and key go together")
	case (c.Username == "") != (c.PasswordFile == ""):
		return bad("username", "username and password_file go together")
	case c.Username != "" && plain:
		return bad("username", "a password goes only over https, or to this machine; make every one of store.endpoints https://")
	}
	for _, d := range []struct {
		key, text   string
		into        *time.Duration
		least, most time.Duration
	}{
		{"timeout", cmp.Or(c.Timeout, "3s"), &c.timeout, 100 * time.Millisecond, time.Minute},
		{"compact_interval", cmp.Or(c.CompactInterval, "5m"), &c.compactInterval, time.Minute, 24 * time.Hour},
	} {
		var err error
		*d.into, err = time.ParseDuration(d.text)
		never := d.key == "compact_interval" && *d.into == 0
		if err != nil || !never && (*d.into < d.least || *d.into > d.most) {
			return bad(d.key, "want a duration from %s to %s such as 3s or 5m, found %q", d.least, d.most, d.text)
		}
	}
	return nil
}

// String is the store in an operator's words.
func (c *storeConfig) String() string {
	if c.Type == typeEtcd {
		return "etcd " + strings.Join(c.Endpoints, ",") + " " + c.Prefix
	}
	return c.Path
}

// load reads the files that c names. It connects to nothing.
func (c *storeConfig) load(log *slog.Logger) (etcd.Config, error) {
	loaded := etcd.Config{Endpoints: c.Endpoints, Prefix: c.Prefix, Username: c.Username, Timeout: c.timeout, Logger: log}
	var err error
	if c.TLS != nil {
		if loaded.TLS, err = (api.TLSFiles{CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key}).Config(); err != nil {
			return loaded, process.ConfigError(fmt.Errorf("store.tls: %w", err))
		}
	}
	if c.PasswordFile != "" {
		password, err := secretfile.Read(c.PasswordFile, 4<<10)
		loaded.Password = strings.TrimRight(string(password), "\r\n")
		if err == nil && loaded.Password == "" {
			err = fmt.Errorf("%s: empty", c.PasswordFile)
		}
		if err != nil {
			return loaded, process.ConfigError(fmt.Errorf("store.password_file: %w", err))
		}
	}
	return loaded, nil
}

// open opens the store. The file of a bolt store is made where it is missing.
// A store of an older version is migrated.
func (c *storeConfig) open(ctx context.Context, log *slog.Logger) (store.Store, error) {
	return c.openAs(ctx, log, false)
}

func (c *storeConfig) openAs(ctx context.Context, log *slog.Logger, keepSchema bool) (store.Store, error) {
	if c.Type != typeEtcd {
		return bolt.Open(bolt.Config{Path: c.Path, KeepSchema: keepSchema})
	}
	loaded, err := c.load(log)
	if err != nil {
		return nil, err
	}
	loaded.KeepSchema = keepSchema
	return etcd.Open(ctx, loaded)
}

// openExisting opens a store for an operator's command, which makes no file and migrates
// nothing: that would take the store away from an older deployer that serves it.
func (c *storeConfig) openExisting(ctx context.Context) (store.Store, error) {
	if c.Type == typeBolt {
		if _, err := os.Stat(c.Path); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	return c.openAs(ctx, slog.New(slog.DiscardHandler), true)
}

// lead takes part in the choice of the leader among the deployers that share the
// store, and returns who asks for its outcome: nil where nobody shares it.
func (c *storeConfig) lead(ctx context.Context, s store.Store, addr string) func() bool {
	shared, ok := s.(*etcd.Store)
	if !ok {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	go shared.Lead(ctx, fmt.Sprintf("%s %s pid %d", host, addr, os.Getpid()), c.compactInterval)
	return shared.Leading
}

// claim keeps two clusters out of one store, where several deployers may share it.
func claim(ctx context.Context, s store.Store, cluster string) error {
	if shared, ok := s.(*etcd.Store); ok {
		return shared.Claim(ctx, cluster)
	}
	return nil
}

// flushInterval is how often it is stored when nodes were last heard. Where others
// share the store, they know it no sooner, and must not take a node for offline that
// this one hears.
func (c *config) flushInterval() time.Duration {
	const most = 10 * time.Second
	if c.Store.Type != typeEtcd {
		return most
	}
	return min(most, (c.offlineAfter-c.heartbeatInterval)/2)
}
