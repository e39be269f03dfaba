package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

func command(args ...string) *exec.Cmd {
	return exec.CommandContext(context.Background(), args[0], args[1:]...)
}

// birdRuns originates the VIPs as static routes.
type birdRuns struct {
	node    *lab.Host
	process *lab.Process
}

var bird = contestant{"BIRD, birdc configure", false, func(_ *bench, node *lab.Host, vips int) (announcing, error) {
	r := &birdRuns{node: node}
	return r, errors.Join(r.write(0, vips), r.start())
}}

func (r *birdRuns) write(first, end int) error {
	var conf strings.Builder
	fmt.Fprintf(&conf, "router id %s;\nprotocol device {}\nprotocol static {\n ipv4;\n", nodeAddress)
	for i := first; i < end; i++ {
		fmt.Fprintf(&conf, " route %s/32 blackhole;\n", vipAddress(i))
	}
	fmt.Fprintf(&conf, "}\nprotocol bgp { local as %d; neighbor %s as %d; connect retry time 1; connect delay time 1; error wait time 1, 2; ipv4 { import none; export all; next hop self; }; }\n", nodeASN, routerAddress, routerASN)
	return os.WriteFile(filepath.Join(r.node.Dir, "bird.conf"), []byte(conf.String()), 0o600)
}

func (r *birdRuns) start() (err error) {
	r.process, err = r.node.Start("bird", "bird", "-f", "-c", filepath.Join(r.node.Dir, "bird.conf"), "-s", filepath.Join(r.node.Dir, "bird.ctl"))
	return err
}

func (r *birdRuns) configure() error {
	_, err := r.node.Run("birdc", "-s", filepath.Join(r.node.Dir, "bird.ctl"), "configure")
	return err
}

func (r *birdRuns) prepare(vips int) (apply func() error, err error) {
	return r.configure, r.write(0, vips)
}

func (r *birdRuns) flip(bool) (time.Time, error) { return time.Time{}, errors.ErrUnsupported }

func (r *birdRuns) kill() error { return r.process.Kill() }

func (r *birdRuns) parts() []part { return []part{{"bird", r.process}} }

// exaRuns is ExaBGP, with a process whose output is its API. It gets all VIPs in few
// lines, as is quickest by far.
type exaRuns struct {
	*checked // nil: the first VIP goes away by command
	node     *lab.Host
	process  *lab.Process
	pipe     *os.File // what the process copies to ExaBGP
	vips     int
}

var exaBGP = contestant{"ExaBGP, a process on its API", false, func(_ *bench, node *lab.Host, vips int) (announcing, error) {
	e := &exaRuns{node: node, vips: vips}
	return e, e.begin(0, "")
}}

// exaChecks has the first VIP announced by the health check that ships with ExaBGP.
var exaChecks = contestant{"ExaBGP, its healthcheck with curl", false, func(_ *bench, node *lab.Host, vips int) (announcing, error) {
	e := &exaRuns{node: node, vips: vips}
	var err error
	if e.checked, err = newChecked(node); err != nil {
		return nil, err
	}
	return e, e.begin(1, fmt.Sprintf(`process health {
  run /usr/bin/exabgp-healthcheck --no-ack --no-ip-setup --silent --cmd "curl -sf %s" --interval 0.2 --fast-interval 0.2 --rise 1 --fall 1 --withdraw-on-down --ip %s/32;
  encoder text;
}
`, checkURL, vipAddress(0)))
}}

// begin announces the VIPs from first on; health is a further process of its API.
func (e *exaRuns) begin(first int, health string) error {
	pipe, processes := filepath.Join(e.node.Dir, "feed"), "feed"
	if health != "" {
		processes += ", health"
	}
	conf := fmt.Sprintf(`process feed { run %[1]s/feed.sh; encoder text; }
%[6]sneighbor %[2]s {
  router-id %[3]s; local-address %[3]s; local-as %[4]d; peer-as %[5]d;
  family { ipv4 unicast; }
  api { processes [ %[7]s ]; }
}
`, e.node.Dir, routerAddress, nodeAddress, nodeASN, routerASN, health, processes)
	// What it is to announce when it starts, and then what we say.
	script := fmt.Sprintf("#!/bin/sh\ncat %[1]s/start\nexec cat < %[2]s\n", e.node.Dir, pipe)
	err := errors.Join(syscall.Mkfifo(pipe, 0o600),
		os.WriteFile(filepath.Join(e.node.Dir, "exabgp.conf"), []byte(conf), 0o600),
		os.WriteFile(filepath.Join(e.node.Dir, "feed.sh"), []byte(script), 0o700),
		e.writeStart(first))
	if err != nil {
		return err
	}
	if e.pipe, err = os.OpenFile(pipe, os.O_RDWR, 0); err != nil {
		return err
	}
	return e.start()
}

func (e *exaRuns) start() (err error) {
	e.process, err = e.node.Start("exabgp", "env", "exabgp.daemon.user=root", "exabgp.api.ack=false", "exabgp.api.cli=false", "exabgp.log.level=ERR",
		"exabgp", filepath.Join(e.node.Dir, "exabgp.conf"))
	return err
}

// say writes commands that announce, or withdraw, a range of VIPs.
func (e *exaRuns) say(w io.StringWriter, do string, first, end int) error {
	const perLine = 500
	var text strings.Builder
	for ; first < end; first += perLine {
		text.WriteString(do + " attributes next-hop self nlri")
		for i := first; i < min(first+perLine, end); i++ {
			fmt.Fprintf(&text, " %s/32", vipAddress(i))
		}
		text.WriteString("\n")
	}
	_, err := w.WriteString(text.String())
	return err
}

func (e *exaRuns) writeStart(first int) error {
	var text strings.Builder
	return errors.Join(e.say(&text, "announce", first, e.vips), os.WriteFile(filepath.Join(e.node.Dir, "start"), []byte(text.String()), 0o600))
}

func (e *exaRuns) prepare(vips int) (apply func() error, err error) {
	var text strings.Builder
	err = e.say(&text, "announce", e.vips, vips)
	e.vips = vips
	apply = func() error {
		_, err := e.pipe.WriteString(text.String())
		return err
	}
	return apply, errors.Join(err, e.writeStart(0))
}

func (e *exaRuns) flip(up bool) (time.Time, error) {
	if e.checked != nil {
		return e.checked.flip(up)
	}
	do := "withdraw"
	if up {
		do = "announce"
	}
	began := time.Now()
	_, err := fmt.Fprintf(e.pipe, "%s route %s/32 next-hop self\n", do, vipAddress(0))
	return began, err
}

// kill ends its process, too, as systemd would.
func (e *exaRuns) kill() error {
	return errors.Join(e.process.SignalGroup(syscall.SIGKILL), e.process.Kill())
}

func (e *exaRuns) parts() []part { return []part{{"exabgp and its process", e.process}} }

// frrRuns is FRR's bgpd, by `network` statements, or by addresses of the host that it
// redistributes.
type frrRuns struct {
	node        *lab.Host
	byAddresses bool
	zebra, bgpd *lab.Process
	vips        int
}

var (
	frrNetworks  = frr("FRR, network statements by vtysh", false)
	frrAddresses = frr("FRR, redistribute connected", true)
)

func frr(name string, byAddresses bool) contestant {
	return contestant{name, false, func(_ *bench, node *lab.Host, vips int) (announcing, error) {
		owner, err := user.Lookup("frr")
		if err != nil {
			return nil, fmt.Errorf("FRR is not installed: %w", err)
		}
		uid, _ := strconv.Atoi(owner.Uid)
		f := &frrRuns{node: node, byAddresses: byAddresses}
		err = errors.Join(os.Chown(node.Dir, uid, -1), os.WriteFile(filepath.Join(node.Dir, "zebra.conf"), nil, 0o644), f.write(vips))
		if err != nil {
			return nil, err
		}
		if byAddresses {
			var apply func() error
			if apply, err = f.addresses(0, vips); err == nil {
				err = apply()
			}
		}
		if err == nil {
			f.zebra, err = f.daemon("zebra", "-f", filepath.Join(node.Dir, "zebra.conf"))
		}
		if err == nil {
			err = lab.Eventually(10*time.Second, func() error { _, err := os.Stat(filepath.Join(node.Dir, "zserv.api")); return err })
		}
		if err != nil {
			return nil, err
		}
		f.vips = vips
		return f, f.start()
	}}
}

func (f *frrRuns) daemon(name string, args ...string) (*lab.Process, error) {
	return f.node.Start(name, append([]string{"/usr/lib/frr/" + name, "-u", "frr", "-g", "frr", "--vty_socket", f.node.Dir, "-P", "0",
		"-z", filepath.Join(f.node.Dir, "zserv.api"), "-i", filepath.Join(f.node.Dir, name+".pid")}, args...)...)
}

func (f *frrRuns) start() (err error) {
	f.bgpd, err = f.daemon("bgpd", "-f", filepath.Join(f.node.Dir, "bgpd.conf"), "-p", "0")
	return err
}

// write writes what bgpd starts with.
func (f *frrRuns) write(vips int) error {
	var conf strings.Builder
	fmt.Fprintf(&conf, "router bgp %d\n bgp router-id %s\n no bgp ebgp-requires-policy\n no bgp network import-check\n neighbor %[3]s remote-as %d\n neighbor %[3]s timers connect 1\n neighbor %[3]s graceful-restart-disable\n address-family ipv4 unicast\n",
		nodeASN, nodeAddress, routerAddress, routerASN)
	if f.byAddresses {
		fmt.Fprint(&conf, "  redistribute connected route-map vips\n")
	} else {
		for i := range vips {
			fmt.Fprintf(&conf, "  network %s/32\n", vipAddress(i))
		}
	}
	fmt.Fprint(&conf, " exit-address-family\nip prefix-list vips seq 5 permit 198.18.0.0/15 le 32\nroute-map vips permit 10\n match ip address prefix-list vips\n")
	return os.WriteFile(filepath.Join(f.node.Dir, "bgpd.conf"), []byte(conf.String()), 0o644)
}

// addresses prepares to add those of a range of VIPs to the host.
func (f *frrRuns) addresses(first, end int) (apply func() error, err error) {
	var batch strings.Builder
	for i := first; i < end; i++ {
		fmt.Fprintf(&batch, "addr add %s/32 dev lo\n", vipAddress(i))
	}
	file := filepath.Join(f.node.Dir, "addresses")
	return func() error {
		out, err := command("ip", "-n", f.node.Namespace, "-batch", file).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("ip -batch: %w: %.200s", err, out)
		}
		return err
	}, os.WriteFile(file, []byte(batch.String()), 0o600)
}

func (f *frrRuns) prepare(vips int) (apply func() error, err error) {
	first := f.vips
	f.vips = vips
	if f.byAddresses {
		return f.addresses(first, vips)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "router bgp %d\n address-family ipv4 unicast\n", nodeASN)
	for i := first; i < vips; i++ {
		fmt.Fprintf(&text, "  network %s/32\n", vipAddress(i))
	}
	file := filepath.Join(f.node.Dir, "more.conf")
	return func() error {
		out, err := command("vtysh", "--vty_socket", f.node.Dir, "-d", "bgpd", "-f", file).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("vtysh: %w: %.200s", err, out)
		}
		return err
	}, errors.Join(os.WriteFile(file, []byte(text.String()), 0o644), f.write(vips))
}

func (f *frrRuns) flip(up bool) (time.Time, error) {
	began := time.Now()
	var cmd *exec.Cmd
	if f.byAddresses {
		do := map[bool]string{true: "add", false: "del"}[up]
		cmd = command("ip", "-n", f.node.Namespace, "addr", do, vipAddress(0).String()+"/32", "dev", "lo")
	} else {
		no := map[bool]string{true: "", false: "no "}[up]
		cmd = command("vtysh", "--vty_socket", f.node.Dir, "-d", "bgpd", "-c", "configure terminal", "-c", fmt.Sprintf("router bgp %d", nodeASN),
			"-c", "address-family ipv4 unicast", "-c", fmt.Sprintf("%snetwork %s/32", no, vipAddress(0)))
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return began, fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
	}
	return began, nil
}

func (f *frrRuns) kill() error { return f.bgpd.Kill() }

func (f *frrRuns) parts() []part { return []part{{"bgpd", f.bgpd}, {"zebra", f.zebra}} }
