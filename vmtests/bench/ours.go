package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// build builds the announcer, and the gobgpd of both generations into v3 and v4.
func (b *bench) build() error {
	if b.built {
		return nil
	}
	for to, what := range map[string]string{"": "./cmd/plasmacloud-announcer", "v3": "github.com/osrg/gobgp/v3/cmd/gobgpd", "v4": "github.com/osrg/gobgp/v4/cmd/gobgpd"} {
		if out, err := command("go", "build", "-o", filepath.Join(b.dir, to)+"/", what).CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", what, err, out)
		}
	}
	b.built = true
	return nil
}

// ours is the announcer beside a gobgpd of its generation. Only for flips has the first
// VIP a check: one that is so quick fails by itself on a busy machine.
func ours(generation, hold string, checked bool) contestant {
	name := "announcer and gobgpd " + generation
	if hold != "none" {
		name += ", held as " + hold
	}
	return contestant{name, true, func(b *bench, node *lab.Host, vips int) (announcing, error) {
		o := &oursRuns{b: b, node: node, generation: generation, hold: hold}
		if checked {
			var err error
			if o.checked, err = newChecked(node); err != nil {
				return nil, err
			}
		}
		return o, o.begin(vips)
	}}
}

type oursRuns struct {
	b                *bench
	node             *lab.Host
	generation, hold string
	*checked         // nil: no VIP has a check

	gobgpd, announcer *lab.Process
}

func (o *oursRuns) begin(vips int) error {
	if err := o.b.build(); err != nil {
		return err
	}
	if err := errors.Join(o.start(), o.write(vips)); err != nil {
		return err
	}
	return o.startAnnouncer()
}

func (o *oursRuns) api() string  { return "unix://" + filepath.Join(o.node.Dir, "api") }
func (o *oursRuns) file() string { return filepath.Join(o.node.Dir, "announcer.json") }

func (o *oursRuns) start() error {
	file := filepath.Join(o.node.Dir, "gobgpd.toml")
	text := fmt.Sprintf("[global.config]\nas = %d\nrouter-id = %q\nport = -1\n[[neighbors]]\n[neighbors.config]\nneighbor-address = %q\npeer-as = %d\n[neighbors.timers.config]\nconnect-retry = 1\n",
		nodeASN, nodeAddress, routerAddress, routerASN)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(o.node.Dir, "api")) // a gobgpd that was killed leaves it
	var err error
	o.gobgpd, err = o.node.Start("gobgpd", filepath.Join(o.b.dir, o.generation, "gobgpd"), "-f", file, "--api-hosts", o.api(), "--pprof-disable")
	return err
}

func (o *oursRuns) startAnnouncer() (err error) {
	o.announcer, err = o.node.Start("announcer", filepath.Join(o.b.dir, "plasmacloud-announcer"), "run", "--config", o.file(),
		"--control", filepath.Join(o.node.Dir, "control.sock"), "--drains", filepath.Join(o.node.Dir, "drains.json"),
		"--last", filepath.Join(o.node.Dir, "last.json"), "--sysctls", filepath.Join(o.node.Dir, "sysctls.json"), "--log-level", "debug", "--log-format", "json")
	return err
}

func (o *oursRuns) write(vips int) error {
	// By hand, since encoding/json would take a good part of what is measured.
	var text strings.Builder
	fmt.Fprintf(&text, `{"schema_version": 1, "node_id": "node01", "asn": %d, "speaker": {"address": %q, "timeout": "5s"}, "drain_delay": "1s", "vips": [`, nodeASN, o.api())
	for i := range vips {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, "\n"+`{"address": %q, "hold": %q`, vipAddress(i), o.hold)
		if i == 0 && o.checked != nil {
			fmt.Fprintf(&text, `, "checks": [{"type": "http", "url": %q, "interval": "200ms", "timeout": "200ms", "rise": 1, "fall": 1}]`, checkURL)
		}
		text.WriteByte('}')
	}
	text.WriteString("]}\n")
	return os.WriteFile(o.file(), []byte(text.String()), 0o600)
}

func (o *oursRuns) prepare(vips int) (apply func() error, err error) {
	return func() error { return o.announcer.Signal(syscall.SIGHUP) }, o.write(vips)
}

func (o *oursRuns) kill() error { return o.gobgpd.Kill() }

// passes are the times that the announcer's passes took so far.
func (o *oursRuns) passes() (all []time.Duration) {
	for line := range strings.Lines(o.announcer.Output()) {
		var record struct {
			Msg  string        `json:"msg"`
			Took time.Duration `json:"took"`
		}
		if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "pass" {
			all = append(all, record.Took)
		}
	}
	return all
}

func (o *oursRuns) parts() []part {
	return []part{{"the announcer alone", o.announcer}, {"gobgpd", o.gobgpd}}
}
