package qemu

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed init dhcp-lease
var scripts embed.FS

// drivers of a virtio network card, in the order in which they load. In Debian's
// cloud kernel they are modules.
var drivers = []string{"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
	"failover", "net_failover", "virtio_net"}

// Image is a small live system: a kernel, busybox, and phone-home.
type Image struct {
	Guest     string            // folder with a kernel and its modules, as .ci/guest unpacks them
	PhoneHome string            // the static program; "": none
	Script    string            // what runs once there is a network by DHCP, a shell script
	Init      string            // what runs in the place of DHCP and Script
	Modules   []string          // of the kernel, beside those of a network card
	Files     map[string]string // further files, by absolute path, for root alone
}

// Build makes dir/kernel, dir/initrd and dir/small.iso, which boots through BIOS and UEFI.
func (i Image) Build(dir string) error {
	if err := i.Initrd(dir); err != nil {
		return err
	}
	boot := filepath.Join(dir, "iso", "boot")
	if err := os.MkdirAll(filepath.Join(boot, "grub"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(boot, "grub", "grub.cfg"), []byte(menu), 0o600); err != nil {
		return err
	}
	return run([][]string{
		{"cp", filepath.Join(dir, "kernel"), filepath.Join(dir, "initrd"), boot},
		{"grub-mkrescue", "-o", filepath.Join(dir, "small.iso"), "--compress=no", "--fonts=", "--locales=", "--themes=",
			"--install-modules=linux linux16 normal iso9660 serial terminal echo test", filepath.Join(dir, "iso")},
	})
}

// Initrd makes dir/kernel and dir/initrd.
func (i Image) Initrd(dir string) error {
	root := filepath.Join(dir, "root")
	if err := i.fill(root); err != nil {
		return err
	}
	kernel, err := one(filepath.Join(i.Guest, "boot", "vmlinuz-*"))
	if err != nil {
		return err
	}
	return run([][]string{
		{"cp", kernel, filepath.Join(dir, "kernel")},
		{"sh", "-c", fmt.Sprintf("cd %s && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | gzip -1 > %s/initrd", root, dir)},
	})
}

func run(steps [][]string) error {
	for _, step := range steps {
		if out, err := exec.Command(step[0], step[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", step[0], err, out)
		}
	}
	return nil
}

func (i Image) fill(root string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("an image needs Debian's package busybox-static: %w", err)
	}
	files := map[string]string{"/bin/busybox": busybox}
	if i.PhoneHome != "" {
		files["/bin/plasmacloud-phone-home"] = i.PhoneHome
	}
	modules := slices.Concat(drivers, i.Modules)
	for _, name := range modules {
		found, err := module(i.Guest, name)
		if err != nil {
			return err
		}
		files["/modules/"+name+".ko"] = found
	}
	for to, from := range files {
		data, err := os.ReadFile(from)
		if err == nil {
			err = put(root, to, data, 0o755)
		}
		if err != nil {
			return err
		}
	}
	texts := map[string]string{"/modules/order": strings.Join(modules, "\n") + "\n", "/script": i.Script}
	if i.Init != "" {
		texts["/own-init"] = i.Init
	}
	for name, to := range map[string]string{"init": "/init", "dhcp-lease": "/bin/dhcp-lease"} {
		data, err := scripts.ReadFile(name)
		if err != nil {
			return err
		}
		texts[to] = string(data)
	}
	for to, text := range texts {
		if err := put(root, to, []byte(text), 0o755); err != nil {
			return err
		}
	}
	for to, text := range i.Files {
		if err := put(root, to, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// KernelArgs is the kernel's command line. The kernel's tests of its own
// cryptography take a fifth of its start where each instruction is emulated, and
// its test of the timer fails on a machine that has more to do.
const KernelArgs = "console=ttyS0 quiet panic=-1 cryptomgr.notests no_timer_check"

// menu is GRUB's. Its linux copies 54 MB a byte at a time to where the kernel may
// unpack itself, 1.5 s under emulation; linux16, for a BIOS only, leaves that room alone.
const menu = `serial --unit=0 --speed=115200
terminal_output serial
echo "` + loaderMark + `"
if [ "$grub_platform" = pc ]; then
  linux16 /boot/kernel ` + KernelArgs + `
  initrd16 /boot/initrd
else
  linux /boot/kernel ` + KernelArgs + `
  initrd /boot/initrd
fi
boot
`

// What the small ISO says on its serial port as it comes along.
const (
	loaderMark    = "boot loader"
	userspaceMark = "userspace after "
	networkMark   = "network after "
)

func put(root, name string, data []byte, mode os.FileMode) error {
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, mode)
}

func module(guest, name string) (found string, err error) {
	err = filepath.WalkDir(filepath.Join(guest, "lib", "modules"), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Base(path) == name+".ko" {
			found = path
		}
		return err
	})
	if err == nil && found == "" {
		err = fmt.Errorf("the kernel in %s has no module %s", guest, name)
	}
	return found, err
}

func one(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("want one file %s, found %d", pattern, len(found))
	}
	return found[0], nil
}
