package bgp

import (
	"encoding/json"
	"path/filepath"
)

// Place is where an announcer's marks are: in which speaker, and in which network namespace.
type Place struct{ Speaker, NetNS string }

// Place is where an announcer with c leaves its marks.
func (c *Config) Place() Place {
	p := Place{c.Speaker.Address, c.Hold.NetNS}
	if p.NetNS != "" {
		p.NetNS = filepath.Clean(p.NetNS)
	}
	return p
}

// ForRelease is an announcer.json of what is needed to take down, by its marks, what an
// announcer with c put up; it has no VIPs. It drains as long as the slowest of them.
func (c *Config) ForRelease() ([]byte, error) {
	drain := c.DrainDelay
	for _, v := range c.VIPs {
		drain = max(drain, v.DrainDelay)
	}
	type fields map[string]any
	hold := fields{"interface": c.Hold.Interface, "netns": c.Hold.NetNS}
	if c.Hold.Lifetime > 0 {
		hold["lifetime"] = c.Hold.Lifetime.String()
	}
	sp := fields{"address": c.Speaker.Address, "timeout": c.Speaker.Timeout.String()}
	if t := c.Speaker.TLS; t.Use {
		sp["tls"] = fields{"ca": t.CA, "cert": t.Cert, "key": t.Key, "server_name": t.ServerName} // files' names, no secrets
	}
	last := fields{"schema_version": SchemaVersion, "node_id": c.NodeID, "asn": c.ASN, "speaker": sp, "hold": hold,
		"drain_delay": drain.String(), "reconcile_interval": c.ReconcileInterval.String(), "vips": []any{}}
	if g := c.GracefulShutdown; g.Delay > 0 {
		last["graceful_shutdown"] = fields{"delay": g.Delay.String(), "on_health": g.OnHealth, "by": g.by()}
	}
	data, err := json.MarshalIndent(last, "", "  ")
	return append(data, '\n'), err
}
