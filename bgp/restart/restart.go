// Package restart finds out, at the signal to stop, whether systemd is about to start
// this process again.
package restart

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/centra/plasmacloud/bgp/internal/systembus"
)

// patience is how long systemd may take to answer.
const patience = 2 * time.Second

// Asked reports whether the unit that this process is in has a job of systemd's to be
// restarted: "systemctl restart", also of a unit that it hangs on, or a NixOS switch. The
// job of a stop, or of a host that goes down, is another one, and a signal without systemd
// has none. A process that systemd did not start is not asked about. An error means that it
// is not known.
func Asked(ctx context.Context) (bool, error) {
	if os.Getenv("INVOCATION_ID") == "" { // systemd.exec(5)
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := systembus.Dial(ctx, socket())
	if err != nil {
		return false, err
	}
	defer conn.Close()
	var unit dbus.ObjectPath
	// Process 0 is the one that asks.
	if err := conn.Object(systembus.Name, systembus.Path).CallWithContext(ctx, systembus.Name+".Manager.GetUnitByPID", 0, uint32(0)).Store(&unit); err != nil {
		return false, err
	}
	var job struct {
		ID   uint32
		Path dbus.ObjectPath
	}
	if err := conn.Property(ctx, unit, "Unit", "Job", &job); err != nil || job.ID == 0 {
		return false, err
	}
	var kind string
	err = conn.Property(ctx, job.Path, "Job", "JobType", &kind)
	return kind == "restart", err
}

// socket is the system's bus, or that of $DBUS_SYSTEM_BUS_ADDRESS (dbus-daemon(1)).
func socket() string {
	if path, ok := strings.CutPrefix(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), "unix:path="); ok {
		return path
	}
	return systembus.Socket
}
