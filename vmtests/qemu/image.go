package qemu

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
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
	PhoneHome string            // the static program
	Script    string            // what runs once there is a network, a shell script
	Files     map[string]string // further files, by absolute path, for root alone
}

// Build makes dir/kernel, dir/initrd and dir/small.iso, which boots through BIOS and UEFI.
func (i Image) Build(dir string) error {
	root := filepath.Join(dir, "root")
	if err := i.fill(root); err != nil {
		return err
	}
	boot := filepath.Join(dir, "iso", "boot")
	if err := os.MkdirAll(filepath.Join(boot, "grub"), 0o755); err != nil {
		return err
	}
	kernel, err := one(filepath.Join(i.Guest, "boot", "vmlinuz-*"))
	if err != nil {
		return err
	}
	const menu = "serial --unit=0 --speed=115200\nterminal_output serial\nset timeout=0\n" +
		"menuentry plasmacloud {\n  linux /boot/kernel " + KernelArgs + "\n  initrd /boot/initrd\n}\n"
	if err := os.WriteFile(filepath.Join(boot, "grub", "grub.cfg"), []byte(menu), 0o600); err != nil {
		return err
	}
	for _, step := range [][]string{
		{"cp", kernel, filepath.Join(dir, "kernel")},
		{"sh", "-c", fmt.Sprintf("cd %s && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | gzip -1 > %s/initrd", root, dir)},
		{"cp", filepath.Join(dir, "kernel"), filepath.Join(dir, "initrd"), boot},
		{"grub-mkrescue", "-o", filepath.Join(dir, "small.iso"), "--compress=no", "--fonts=", "--locales=", "--themes=",
			"--install-modules=linux normal iso9660 serial terminal", filepath.Join(dir, "iso")},
	} {
		if out, err := exec.Command(step[0], step[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", step[0], err, out)
		}
	}
	return nil
}

// KernelArgs is the kernel's command line.
const KernelArgs = "console=ttyS0 quiet panic=-1"

func (i Image) fill(root string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("an image needs Debian's package busybox-static: %w", err)
	}
	files := map[string]string{"/bin/busybox": busybox, "/bin/plasmacloud-phone-home": i.PhoneHome}
	for _, name := range drivers {
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
	texts := map[string]string{"/modules/order": strings.Join(drivers, "\n") + "\n", "/script": i.Script}
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
