// Package qemu boots real machines: an ISO or a kernel in QEMU, in the network
// namespace of a lab's host, with what the machine says on its serial port kept.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// Config is a machine.
type Config struct {
	Name   string // of its serial log, in the host's folder
	UUID   string // of its mainboard; "" leaves it to QEMU, which has none
	Serial string // of its mainboard; "" leaves it to QEMU, which has none
	MAC    string // of its network card; "" leaves it to QEMU
	Memory int    // MB; 0: 256
	UEFI   bool   // boot through UEFI; else through the BIOS

	// What it boots: an ISO, or a kernel without any boot loader.
	ISO                  string
	Kernel, Initrd, Args string

	Disk string // file of a raw disk; "": none

	// Switch is the bridge of the host that the network card is at; "": user networking.
	Switch string

	// HostAddress is where the machine reaches 127.0.0.1 of the namespace: an IPv4
	// address in whose /24 it is, by DHCP. "": 10.0.2.2.
	HostAddress string
}

// Limit is how long each phase of a boot may take on a machine that has more to do.
const Limit = 3 * time.Minute

// Machine is a machine that has been switched on.
type Machine struct {
	Name    string
	process *lab.Process
	started time.Time
	reached time.Duration // since then, by the last phase that was followed
}

// Start switches a machine on. It is in the namespace of the host: by DHCP it gets
// an address. It ends with the lab.
func Start(ctx context.Context, h *lab.Host, cfg Config) (*Machine, error) {
	accel, err := Accel(ctx)
	if err != nil {
		return nil, err
	}
	tap := ""
	if cfg.Switch != "" {
		tap = fmt.Sprintf("vm-%.12s", cfg.Name)
		if err := h.Batch("tuntap add dev "+tap+" mode tap", "link set "+tap+" up master "+cfg.Switch); err != nil {
			return nil, err
		}
	}
	args, err := cfg.args(accel, h.Dir, tap)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	process, err := h.Start(cfg.Name, append([]string{"qemu-system-x86_64"}, args...)...)
	if err != nil {
		return nil, err
	}
	return &Machine{Name: cfg.Name, process: process, started: started}, nil
}

func (c Config) args(accel, dir, tap string) ([]string, error) {
	memory := c.Memory
	if memory == 0 {
		memory = 256
	}
	// q35: the boot loaders of several machines at once take many times longer on pc.
	args := []string{"-accel", accel, "-machine", "q35", "-m", fmt.Sprint(memory), "-nodefaults", "-no-user-config",
		"-display", "none", "-serial", "stdio", "-no-reboot"}
	if accel == "tcg" {
		// As any real one has. Without it the kernel's first random numbers, which the
		// first TLS or secret waits for, take a second of emulation.
		args = append(args, "-cpu", "qemu64,+rdrand")
	}
	network := "user,id=net0"
	if c.Switch != "" {
		network = "tap,id=net0,script=no,downscript=no,ifname=" + tap
	} else if c.HostAddress != "" {
		host, err := netip.ParseAddr(c.HostAddress)
		if err != nil || !host.Is4() {
			return nil, fmt.Errorf("HostAddress %q: want an IPv4 address", c.HostAddress)
		}
		network24 := netip.PrefixFrom(host, 24).Masked()
		guest, names := "100", "101"
		if last := host.As4()[3]; last == 100 || last == 101 {
			guest, names = "110", "111"
		}
		first, _, _ := strings.Cut(network24.Addr().String()+"/", "0/")
		network += fmt.Sprintf(",net=%s,host=%s,dhcpstart=%s%s,dns=%s%s", network24, host, first, guest, first, names)
	}
	args = append(args, "-netdev", network)
	card := "virtio-net-pci,netdev=net0,romfile="
	if c.MAC != "" {
		card += ",mac=" + c.MAC
	}
	args = append(args, "-device", card)
	if c.UUID != "" {
		args = append(args, "-uuid", c.UUID)
	}
	if c.Serial != "" {
		args = append(args, "-smbios", "type=1,serial="+c.Serial)
	}
	if c.ISO != "" {
		args = append(args, "-cdrom", c.ISO, "-boot", "d")
	}
	if c.Kernel != "" {
		args = append(args, "-kernel", c.Kernel, "-initrd", c.Initrd, "-append", c.Args)
	}
	if c.Disk != "" {
		args = append(args, "-drive", "file="+c.Disk+",format=raw,if=virtio")
	}
	if c.UEFI {
		// The variables are the machine's own.
		const code, variables = "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"
		data, err := os.ReadFile(variables)
		if err != nil {
			return nil, fmt.Errorf("UEFI needs Debian's package ovmf: %w", err)
		}
		own := filepath.Join(dir, c.Name+".vars")
		if err := os.WriteFile(own, data, 0o600); err != nil {
			return nil, err
		}
		args = append(args, "-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+code,
			"-drive", "if=pflash,format=raw,unit=1,file="+own)
	}
	return args, nil
}

// WaitFor returns once the serial log has a match, and how long after the machine
// was switched on that was. Its error has the end of the log.
func (m *Machine) WaitFor(within time.Duration, pattern string) (time.Duration, error) {
	wanted := regexp.MustCompile(pattern)
	return m.Await(within, func() error {
		if wanted.MatchString(m.Console()) {
			return nil
		}
		return fmt.Errorf("nothing like %q on the console", pattern)
	})
}

// Await is WaitFor with what somebody else has to say of the machine.
func (m *Machine) Await(within time.Duration, check func() error) (time.Duration, error) {
	var failed error
	err := lab.Eventually(within, func() error {
		ended := m.process.Ended() // no more of it is to come
		err := check()
		if err == nil || !ended {
			failed = err
			return err
		}
		failed = fmt.Errorf("%w; the machine ended: %w", err, errors.Join(errEnded, m.process.Err()))
		return nil
	})
	if err == nil {
		err = failed
	}
	took := time.Since(m.started)
	if err != nil {
		console := m.Console()
		err = fmt.Errorf("%w, %s after it was switched on; the console ends with:\n%s", err, took.Round(time.Millisecond), console[max(0, len(console)-2000):])
	}
	return took, err
}

var errEnded = errors.New("nobody cut its power")

// Console is what the machine has said on its serial port so far.
func (m *Machine) Console() string { return strings.ReplaceAll(m.process.Output(), "\r", "") }

// Cut takes the power away.
func (m *Machine) Cut() error { return m.process.Kill() }
