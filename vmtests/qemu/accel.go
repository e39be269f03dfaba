package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// probe is a boot sector that asks QEMU to end with probeStatus: a machine that
// gets there has truly run code.
var probe = []byte{
	0xb0, 0x20, // mov al, 0x20
	0xe6, 0xf4, // out 0xf4, al: the isa-debug-exit device
	0xeb, 0xfe, // jmp to itself
}

const probeStatus = 0x20<<1 | 1

// Accel is the accelerator to use on this machine, "kvm" or "tcg": the one that
// runs a boot sector sooner. A KVM that is there and does not work, or that works
// by emulation below it, is not taken.
func Accel(ctx context.Context) (string, error) { return accel(ctx) }

var accel = func() func(context.Context) (string, error) {
	var once sync.Once
	var name string
	var err error
	return func(ctx context.Context) (string, error) {
		once.Do(func() { name, err = fastest(ctx) })
		return name, err
	}
}()

func fastest(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp("", "plasmacloud-qemu-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	disk := filepath.Join(dir, "probe")
	sector := make([]byte, 1<<20)
	copy(sector, probe)
	sector[510], sector[511] = 0x55, 0xaa
	if err := os.WriteFile(disk, sector, 0o600); err != nil {
		return "", err
	}
	// TCG first: it works everywhere, and KVM need not be waited for any longer.
	start := time.Now()
	if err := runProbe(ctx, "tcg", disk); err != nil {
		return "", err
	}
	limited, cancel := context.WithTimeout(ctx, time.Since(start))
	defer cancel()
	if runProbe(limited, "kvm", disk) == nil {
		return "kvm", nil
	}
	return "tcg", ctx.Err()
}

func runProbe(ctx context.Context, accel, disk string) error {
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", accel, "-machine", "q35", "-m", "16",
		"-display", "none", "-nodefaults", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
		"-drive", "file="+disk+",format=raw,if=ide,snapshot=on").CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == probeStatus {
		return nil
	}
	return fmt.Errorf("qemu-system-x86_64 -accel %s runs no boot sector: %w: %s", accel, err, out)
}
