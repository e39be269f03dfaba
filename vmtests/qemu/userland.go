package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// Userland is a machine with a disk, which has Debian's systemd and no more of Debian
// than that takes. It has no udev, no getty and no login.
type Userland struct {
	Guest    string            // folder with a kernel and its modules, as .ci/guest unpacks them
	Debian   string            // folder that .ci/userland unpacked
	Programs map[string]string // by absolute path in the machine, the file here
	Files    map[string]string // further files, by absolute path
	Units    map[string]string // by name; those with an [Install] section are enabled
	Groups   []string          // of the system, beside Debian's
	Users    map[string]string // of the system, beside Debian's: the group of each
	Network  []string          // arguments of ip (busybox') for eth0, before systemd starts
}

// masked are units that would wait for what is not there, or have nothing to do.
var masked = []string{"getty.target", "systemd-logind.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
	"systemd-pstore.service", "systemd-random-seed.service", "systemd-sysctl.service", "systemd-modules-load.service", "modprobe@.service", "kmod-static-nodes.service",
	"systemd-journal-flush.service", "systemd-user-sessions.service", "systemd-timesyncd.service", "systemd-networkd.service", "dev-hugepages.mount", "dev-mqueue.mount",
	"sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount", "systemd-ask-password-wall.path",
	"systemd-ask-password-console.path", "systemd-tmpfiles-clean.timer", "systemd-machine-id-commit.service", "e2scrub_all.timer", "apt-daily.timer"}

// shellUnit runs what [Shell] sends as root: a web server with one program.
const shellUnit = `[Service]
ExecStart=/bin/busybox httpd -f -p 2323 -h /shell
Environment=PATH=/bin:/usr/sbin
[Install]
WantedBy=multi-user.target
`

const shellProgram = `#!/bin/sh
echo
cat > /run/commands
sh /run/commands 2>&1 < /dev/null
echo "status $?"
`

// Shell runs commands in a machine of a [Userland] as its root, by the network of a
// host, and returns what they wrote. Commands that fail are an error.
func Shell(h *lab.Host, address string, within time.Duration, commands string) (text string, err error) {
	err = h.Inside(func() error {
		line, err := net.DialTimeout("tcp", net.JoinHostPort(address, "2323"), within)
		if err != nil {
			return err
		}
		defer line.Close()
		if err := line.SetDeadline(time.Now().Add(within)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(line, "POST /cgi-bin/run HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", len(commands), commands); err != nil {
			return err
		}
		answer, err := io.ReadAll(line)
		if err != nil {
			return err
		}
		_, text, _ = strings.Cut(strings.ReplaceAll(string(answer), "\r", ""), "\n\n")
		at := strings.LastIndex(text, "status ")
		if at < 0 {
			return fmt.Errorf("it answers %q", answer)
		}
		status := strings.TrimSpace(text[at:])
		if text = text[:at]; status != "status 0" {
			return fmt.Errorf("%s: %s", status, text)
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("in the machine at %s, %s: %w", address, commands, err)
	}
	return text, err
}

// UserlandArgs is the kernel's command line.
const UserlandArgs = KernelArgs + " systemd.show_status=0 systemd.journald.forward_to_console=1 systemd.default_timeout_start_sec=180s systemd.log_level=notice systemd.crash_reboot=0"

// Build makes dir/kernel, dir/initrd, and dir/disk, an ext4.
func (u Userland) Build(dir string) error {
	root := filepath.Join(dir, "disk-root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", filepath.Join(u.Debian, "root")+"/.", root).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the userland: %w: %s", err, out)
	}
	busybox := filepath.Join(root, "bin", "busybox")
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("busybox: %w", err)
	}
	for command := range strings.FieldsSeq(string(list)) {
		err := os.Symlink("busybox", filepath.Join(root, "bin", command))
		if err != nil && !errors.Is(err, os.ErrExist) { // the commands of systemd and iproute2 are their own
			return err
		}
	}
	for to, from := range u.Programs {
		data, err := os.ReadFile(from)
		if err == nil {
			err = put(root, to, data, 0o755)
		}
		if err != nil {
			return err
		}
	}
	files := map[string]string{"/etc/machine-id": "6f1b7a520f6c4f449c7b0d5b1f1e2a01\n", "/etc/systemd/system/lab-shell.service": shellUnit}
	for to, text := range u.Files {
		files[to] = text
	}
	for name, text := range u.Units {
		files["/etc/systemd/system/"+name] = text
	}
	for to, text := range files {
		if err := put(root, to, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := put(root, "/shell/cgi-bin/run", []byte(shellProgram), 0o755); err != nil {
		return err
	}
	if err := u.accounts(filepath.Join(root, "etc")); err != nil {
		return err
	}
	enable := []string{"lab-shell.service"}
	for name, text := range u.Units {
		if strings.Contains(text, "[Install]") {
			enable = append(enable, name)
		}
	}
	for _, args := range [][]string{append([]string{"mask"}, masked...), append([]string{"enable"}, enable...), {"set-default", "multi-user.target"}} {
		if out, err := exec.Command("systemctl", append([]string{"--root", root, "--quiet"}, args...)...).CombinedOutput(); err != nil { //nolint:gosec // ours
			return fmt.Errorf("systemctl %s: %w: %s", args[0], err, out)
		}
	}
	// The first process mounts the disk and gives way to systemd.
	first := Image{Guest: u.Guest, Modules: []string{"virtio_blk"}, Init: diskInit(u.Network)}
	if err := first.Initrd(dir); err != nil {
		return err
	}
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(disk, 512<<20); err != nil {
		return err
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=1,root_owner=0:0", "-d", root, disk).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return os.RemoveAll(root)
}

// firstID is the number of the first user and group of ours.
const firstID = 900

// accounts adds the groups and users to those of Debian.
func (u Userland) accounts(etc string) error {
	var groups, users strings.Builder
	number := map[string]int{}
	for i, name := range u.Groups {
		number[name] = firstID + i
		fmt.Fprintf(&groups, "%s:x:%d:\n", name, number[name])
	}
	for i, name := range slices.Sorted(maps.Keys(u.Users)) {
		group, known := number[u.Users[name]]
		if !known {
			return fmt.Errorf("the group %q of the user %s is none of %v", u.Users[name], name, u.Groups)
		}
		fmt.Fprintf(&users, "%s:x:%d:%d::/nonexistent:/usr/sbin/nologin\n", name, firstID+i, group)
	}
	for file, text := range map[string]string{"group": groups.String(), "passwd": users.String()} {
		path := filepath.Join(etc, file)
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, append(data, text...), 0o600)
		}
		if err == nil {
			err = os.Chmod(path, 0o644) // for all who look up a name
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func diskInit(network []string) string {
	var b bytes.Buffer
	b.WriteString("mkdir -p /disk\nmount -t ext4 /dev/vda /disk\nip link set lo up\necho 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad\nip link set eth0 up\n")
	for _, line := range network {
		fmt.Fprintf(&b, "ip %s\n", line)
	}
	b.WriteString("echo \"" + networkMark + "$(cut -d ' ' -f 1 /proc/uptime) s\"\n")
	b.WriteString("for kept in proc sys dev; do mount --move /$kept /disk/$kept; done\nexec switch_root /disk /lib/systemd/systemd\n")
	return b.String()
}
