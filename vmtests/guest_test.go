package vmtests

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/centra/plasmacloud/vmtests/labcluster"
	"github.com/centra/plasmacloud/vmtests/qemu"
	"github.com/centra/plasmacloud/vmtests/scenario"
)

// guest is a node whose daemons are units of systemd, in a machine of QEMU.
type guest struct {
	*qemu.Machine // nil: it was not switched on
	place         labcluster.Place
	address       string
	dir           string // with the image
	t             *testing.T
}

var _ labcluster.Control = (*guest)(nil)

var unitOf = map[labcluster.Daemon]string{
	labcluster.Speaker:   "gobgpd.service",
	labcluster.Announcer: "plasmacloud-announcer.service",
	labcluster.PhoneHome: "plasmacloud-phone-home.service",
}

// guestHas is what scenarios find there: a namespace's links are not the machine's, its
// configuration is that of its image, and a boot takes too long to have many.
var guestHas = scenario.Has{scenario.Nodes: 3, scenario.Routers: 2}

// asking bounds one command.
const asking = qemu.Limit

func (m *guest) Power(on bool) (err error) {
	if !on {
		return errors.New("the machine stays on")
	}
	m.Machine, err = qemu.Start(m.t.Context(), m.place.Host, qemu.Config{
		Name: "node01", Kernel: filepath.Join(m.dir, "kernel"), Initrd: filepath.Join(m.dir, "initrd"), Args: qemu.UserlandArgs,
		Disk: filepath.Join(m.dir, "disk"), Switch: "br0", UUID: "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a01", Memory: 512,
	})
	return err
}

// shell runs commands as the machine's root, and returns what they wrote.
func (m *guest) shell(commands string) (string, error) {
	return qemu.Shell(m.place.Deployer, m.address, asking, commands)
}

func (m *guest) Run(command ...string) (string, error) {
	var words []string
	if command[0] == "ip" {
		command = append([]string{"/bin/ip"}, command[1:]...) // its shell has a smaller one of its own
	}
	for _, word := range command {
		words = append(words, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
	}
	return m.shell(strings.Join(words, " "))
}

// onceFile keeps systemd from starting a unit again that a scenario has ended.
const onceFile = "/run/systemd/system/%[1]s.d/once.conf"

func (m *guest) Start(d labcluster.Daemon) error {
	_, err := m.shell(fmt.Sprintf("rm -f "+onceFile+" && systemctl daemon-reload && systemctl start %[1]s", unitOf[d]))
	return err
}

func (m *guest) Restart(d labcluster.Daemon) error {
	_, err := m.shell("systemctl restart " + unitOf[d])
	return err
}

func (m *guest) Signal(d labcluster.Daemon, signal syscall.Signal) error {
	commands := ""
	if signal == syscall.SIGKILL || signal == syscall.SIGTERM {
		commands = "mkdir -p /run/systemd/system/%[1]s.d && printf '[Service]\\nRestart=no\\n' > " + onceFile + " && systemctl daemon-reload && "
	}
	_, err := m.shell(fmt.Sprintf(commands+"systemctl kill --kill-who=main -s %[2]d %[1]s", unitOf[d], signal))
	return err
}

func (m *guest) Ended(d labcluster.Daemon) (bool, error) {
	out, err := m.shell("systemctl show -P ActiveState -P Result " + unitOf[d])
	if err != nil {
		return false, err
	}
	switch out {
	case "inactive\nsuccess\n", "success\ninactive\n":
		return true, nil
	}
	if strings.Contains(out, "failed") {
		return true, fmt.Errorf("it ended: %s", strings.Fields(out))
	}
	return false, nil
}

func (m *guest) Log(d labcluster.Daemon) (string, error) {
	return m.shell("journalctl --no-pager -o cat -u " + unitOf[d])
}

// Fail stops and starts the web server as a whole, which is what all checks ask.
func (m *guest) Fail(path string, fails bool) error {
	if path != "" {
		return errors.New("the machine's service fails as a whole")
	}
	verb := "start"
	if fails {
		verb = "stop"
	}
	_, err := m.shell("systemctl " + verb + " web.service")
	return err
}

// Asked is not known of busybox' web server.
func (m *guest) Asked() (map[string]int, error) {
	return nil, errors.New("the machine's service does not count")
}
