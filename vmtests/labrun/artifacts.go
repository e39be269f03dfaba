package labrun

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// keep puts what is left of a lab into a folder below the one for artifacts: every
// host's configuration, logs and addresses, every router's table, and what was
// captured. It returns the folder, or "" where none is wanted.
func (r *Runner) keep(c *labcluster.Cluster, name string, capture *captures) string {
	if r.cfg.Artifacts == "" || c == nil || c.Lab == nil {
		return ""
	}
	dir := filepath.Join(r.cfg.Artifacts, name)
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = errors.Join(copyFiles(c.Lab.Dir, dir), capture.save(dir))
	}
	for _, id := range c.NodeIDs() {
		err = errors.Join(err, state(c.Nodes[id].Host, filepath.Join(dir, id)))
	}
	for _, router := range c.RouterNames() {
		host := c.Routers[router]
		err = errors.Join(err, state(host.Host, filepath.Join(dir, router)))
		if host.Router == nil {
			continue
		}
		var table strings.Builder
		routes, asked := host.Routes()
		if asked != nil {
			fmt.Fprintln(&table, asked)
		}
		for _, route := range routes {
			fmt.Fprintf(&table, "%+v\n", route)
		}
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, router, "table.txt"), []byte(table.String()), 0o644))
	}
	if err != nil {
		r.cfg.Say("warning: not all of what is left could be kept: %v", err)
	}
	return dir
}

// state writes down what the kernel has for a host.
func state(h *lab.Host, dir string) error {
	var text strings.Builder
	for _, args := range [][]string{{"addr"}, {"-4", "route", "show", "table", "all"}, {"-6", "route", "show", "table", "all"}, {"neigh"}, {"-s", "link"}} {
		out, err := h.IP(args...)
		if err != nil {
			out = err.Error() + "\n"
		}
		fmt.Fprintf(&text, "# ip %s\n%s\n", strings.Join(args, " "), out)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "network.txt"), []byte(text.String()), 0o644)
}

// mostKept bounds one file that is kept, in bytes.
const mostKept = 64 << 20

// copyFiles copies the regular files of a tree; sockets stay.
func copyFiles(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it has just gone
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		info, err := entry.Info()
		if err != nil || entry.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		if !entry.Type().IsRegular() || info.Size() > mostKept {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // it has just gone
		}
		return os.WriteFile(target, text, 0o644)
	})
}

// slowestRise is the longest time until a check of any machine counts as up.
func slowestRise(machines map[string]nixeval.Machine) (longest time.Duration) {
	for _, m := range machines {
		var file struct {
			VIPs []struct {
				Checks []struct {
					Interval string `json:"interval"`
					Rise     int    `json:"rise"`
				} `json:"checks"`
			} `json:"vips"`
		}
		if m.Announcer == nil || json.Unmarshal(m.Announcer, &file) != nil {
			continue
		}
		for _, v := range file.VIPs {
			for _, c := range v.Checks {
				interval, err := time.ParseDuration(c.Interval)
				if err == nil {
					longest = max(longest, interval*time.Duration(max(c.Rise, 1)))
				}
			}
		}
	}
	return longest
}
