package health

import (
	"context"
	"fmt"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/centra/plasmacloud/bgp/internal/systembus"
)

// probeSystemd asks as `systemctl is-active` does, and takes the same for active:
// a unit that reloads is active too.
func probeSystemd(ctx context.Context, bus, unit string) error {
	conn, err := systembus.Dial(ctx, bus)
	if err != nil {
		return err
	}
	defer conn.Close()
	object := dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + systemd.PathBusEscape(unit))
	var state, load string
	if err := conn.Property(ctx, object, "Unit", "ActiveState", &state); err != nil {
		return err
	}
	switch state {
	case "active", "reloading", "refreshing":
		return nil
	}
	state = printable(state)
	if err := conn.Property(ctx, object, "Unit", "LoadState", &load); err == nil && load != "loaded" {
		return fmt.Errorf("is %s (%s)", state, printable(load))
	}
	return fmt.Errorf("is %s", state)
}
