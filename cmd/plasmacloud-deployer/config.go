package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	process "github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/strictjson"
)

const defaultConfigPath = "/etc/plasmacloud/deployer.json"

// config is deployer.json. What is left out keeps its default.
type config struct {
	Listen string           `json:"listen"` // host:port; port 0 takes a free one
	Store  storeConfig      `json:"store"`
	TLS    *server.TLSFiles `json:"tls"` // nil: plain HTTP
	Tokens struct {
		Required      bool   `json:"required"`       // machines join with tokens alone; so too with JoinFile
		JoinFile      string `json:"join_file"`      // tokens beside those of the store
		OperatorsFile string `json:"operators_file"` // "": anybody may look
	} `json:"tokens"`
	Page                bool          `json:"page"`     // the web page
	Manifest            string        `json:"manifest"` // "": none, only with AllowUnknownNodes
	AllowUnknownNodes   bool          `json:"allow_unknown_nodes"`
	MaxUnknownNodes     int           `json:"max_unknown_nodes"`
	Approval            node.Approval `json:"approval"`             // whose machines wait for an operator
	ProvisioningTimeout string        `json:"provisioning_timeout"` // durations with a unit: 30m
	HeartbeatInterval   string        `json:"heartbeat_interval"`
	HeartbeatRate       int           `json:"heartbeat_rate"` // a second, of all nodes together
	OfflineAfter        string        `json:"offline_after"`  // "": three heartbeats

	provisioningTimeout, heartbeatInterval, offlineAfter time.Duration
}

func defaultConfig() config {
	return config{
		Listen:              ":8080",
		Store:               boltStore(defaultStorePath),
		Page:                true,
		Manifest:            "/etc/plasmacloud/manifest.json",
		MaxUnknownNodes:     100,
		Approval:            node.ApproveNone,
		ProvisioningTimeout: "30m",
		HeartbeatInterval:   "10s",
		HeartbeatRate:       1000,
	}
}

// readConfig reads the file at path over the defaults. Without must, a file that
// is not there leaves them.
func readConfig(path string, must bool) (config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && !must {
		return defaultConfig(), nil
	}
	if err != nil {
		return config{}, process.ConfigError(fmt.Errorf("configuration: %w", err))
	}
	c, err := parseConfig(data)
	if err != nil {
		return c, process.ConfigError(fmt.Errorf("configuration %s: %w", path, err))
	}
	return c, nil
}

func parseConfig(data []byte) (config, error) {
	c := defaultConfig()
	err := strictjson.Decode(data, &c)
	return c, err
}

// check validates c and reads its durations. Errors name the key.
func (c *config) check() error {
	bad := func(field, format string, args ...any) error {
		return process.ConfigError(&strictjson.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)})
	}
	_, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return bad("listen", "want host:port such as 127.0.0.1:8080 or :8080, found %q", c.Listen)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return bad("listen", "want a port from 0 to 65535, found %q", c.Listen)
	}
	if err := c.Store.check(); err != nil {
		return process.ConfigError(err)
	}
	if c.TLS != nil {
		if err := c.TLS.Check(); err != nil {
			return process.ConfigError(fmt.Errorf("tls.%w", err))
		}
	}
	if c.Manifest == "" && !c.AllowUnknownNodes {
		return bad("manifest", "without one no node can join; name the file, or set allow_unknown_nodes")
	}
	if c.MaxUnknownNodes < 1 || c.MaxUnknownNodes > 100_000 {
		return bad("max_unknown_nodes", "want 1 to 100000, found %d", c.MaxUnknownNodes)
	}
	if c.HeartbeatRate < 1 || c.HeartbeatRate > 100_000 {
		return bad("heartbeat_rate", "want 1 to 100000 a second, found %d", c.HeartbeatRate)
	}
	switch {
	case !c.Approval.Valid():
		return bad("approval", "want none, undeclared or all, found %q", c.Approval)
	case c.Approval == node.ApproveUndeclared && !c.AllowUnknownNodes:
		return bad("approval", "undeclared nodes join only with allow_unknown_nodes; set that too, or take none or all")
	case c.Approval != node.ApproveNone && c.Tokens.OperatorsFile == "":
		return bad("approval", "nobody may approve without operators; name tokens.operators_file")
	}
	for _, d := range []struct {
		field, text string
		into        *time.Duration
		least, most time.Duration
	}{
		{"provisioning_timeout", c.ProvisioningTimeout, &c.provisioningTimeout, time.Second, 30 * 24 * time.Hour},
		{"heartbeat_interval", c.HeartbeatInterval, &c.heartbeatInterval, time.Second, time.Hour},
		{"offline_after", c.OfflineAfter, &c.offlineAfter, time.Second, 24 * time.Hour},
	} {
		if d.text == "" && d.field == "offline_after" {
			c.offlineAfter = 3 * c.heartbeatInterval
			continue
		}
		var err error
		if *d.into, err = time.ParseDuration(d.text); err != nil || *d.into < d.least || *d.into > d.most {
			return bad(d.field, "want a duration from %s to %s such as 90s or 30m, found %q", d.least, d.most, d.text)
		}
	}
	if c.offlineAfter <= c.heartbeatInterval {
		return bad("offline_after", "want more than heartbeat_interval (%s), or every node is offline between two heartbeats", c.heartbeatInterval)
	}
	return nil
}
