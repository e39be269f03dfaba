package labcluster

import (
	"fmt"
	"os"
	"path/filepath"
)

// CheckFiles lets each node's daemons check their own configuration.
func (c *Cluster) CheckFiles() (list []Check) {
	for _, id := range c.NodeIDs() {
		n := c.Nodes[id]
		ask := func(who string, command ...string) {
			var problems []string
			if _, err := n.Run(command...); err != nil {
				problems = append(problems, err.Error())
			}
			list = append(list, check(id, fmt.Sprintf("%s takes its configuration", who), problems...))
		}
		if n.Machine.BGP != nil {
			switch n.Machine.BGP.Backend {
			case "bird":
				ask("bird", "bird", "-p", "-c", n.settings())
			case "frr":
				// vtysh wants a file of its own beside FRR's.
				_ = os.WriteFile(filepath.Join(n.Dir, "vtysh.conf"), nil, 0o644)
				ask("frr", "vtysh", "--config_dir", n.Dir, "--vty_socket", n.Dir, "-C")
			default:
				ask("gobgpd", c.cfg.Programs.GoBGPD, "-t", "json", "-f", n.settings(), "--dry-run")
			}
		}
		if n.Machine.Announcer != nil {
			ask("plasmacloud-announcer", filepath.Join(c.cfg.Programs.Bin, "plasmacloud-announcer"), "check", n.config())
		}
	}
	return list
}
