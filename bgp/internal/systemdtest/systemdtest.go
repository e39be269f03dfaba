// Package systemdtest has a stand-in for systemd on a real bus: its objects and interfaces
// are the real one's, what they say is the test's. There is no systemd where tests run.
package systemdtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

const config = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`

// Name is systemd's on the bus.
const Name = "org.freedesktop.systemd1"

const (
	unitPath = dbus.ObjectPath("/org/freedesktop/systemd1/unit/plasmacloud_2dannouncer_2eservice")
	jobPath  = dbus.ObjectPath("/org/freedesktop/systemd1/job/7")
)

// StartBus starts a dbus-daemon without systemd; its socket is given.
func StartBus(t testing.TB) (socket string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus") // t.TempDir() may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "bus")
	file := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, socket), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("dbus-daemon", "--config-file="+file, "--nofork", "--nopidfile", "--nosyslog")
	daemon.Stderr = t.Output()
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	t.Cleanup(stop)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return socket, stop
		}
		if time.Now().After(deadline) {
			t.Fatal("no bus: ", err)
		}
	}
}

// Systemd is the stand-in. The process that asks is in a unit that has a job.
type Systemd struct {
	Socket string // of the bus

	t    testing.TB
	conn *dbus.Conn
	stop func()
	mu   sync.Mutex
	job  string
	hang chan struct{}
}

// Start starts a bus with the stand-in on it.
func Start(t testing.TB) *Systemd {
	t.Helper()
	s := &Systemd{t: t, hang: make(chan struct{})}
	s.Socket, s.stop = StartBus(t)
	var err error
	if s.conn, err = dbus.Connect("unix:path=" + s.Socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.conn.Close() })
	const properties = "org.freedesktop.DBus.Properties"
	for _, export := range []struct {
		of    any
		path  dbus.ObjectPath
		iface string
	}{
		{manager{s}, "/org/freedesktop/systemd1", Name + ".Manager"}, {unit{s}, unitPath, properties}, {job{s}, jobPath, properties},
	} {
		if err := s.conn.Export(export.of, export.path, export.iface); err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := s.conn.RequestName(Name, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	return s
}

// SetJob gives the unit a job of a type, such as "restart"; "" is none.
func (s *Systemd) SetJob(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.job = kind
}

// Hang makes it answer nothing any more.
func (s *Systemd) Hang() { close(s.hang) }

// Stop ends the bus.
func (s *Systemd) Stop() { s.stop() }

func (s *Systemd) kind() string {
	select {
	case <-s.hang:
		time.Sleep(time.Hour)
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.job
}

type manager struct{ s *Systemd }

func (m manager) GetUnitByPID(pid uint32) (dbus.ObjectPath, *dbus.Error) {
	m.s.kind()
	if pid != 0 {
		return "", dbus.MakeFailedError(syscall.ESRCH)
	}
	return unitPath, nil
}

type unit struct{ s *Systemd }

func (u unit) Get(iface, name string) (dbus.Variant, *dbus.Error) {
	if iface != Name+".Unit" || name != "Job" {
		return dbus.Variant{}, dbus.MakeFailedError(syscall.ENOENT)
	}
	value := struct {
		ID   uint32
		Path dbus.ObjectPath
	}{0, "/"}
	if u.s.kind() != "" {
		value.ID, value.Path = 7, jobPath
	}
	return dbus.MakeVariant(value), nil
}

type job struct{ s *Systemd }

func (j job) Get(iface, name string) (dbus.Variant, *dbus.Error) {
	if iface != Name+".Job" || name != "JobType" {
		return dbus.Variant{}, dbus.MakeFailedError(syscall.ENOENT)
	}
	return dbus.MakeVariant(j.s.kind()), nil
}
