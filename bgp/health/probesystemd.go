package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// systemBus is where the D-Bus specification has the system's bus.
const systemBus = "/run/dbus/system_bus_socket"

// maxBus is how much is read of the bus in one probe, in bytes.
const maxBus = 64 << 10

// probeSystemd asks as `systemctl is-active` does, and takes the same for active:
// a unit that reloads is active too. Anybody may ask; see org.freedesktop.systemd1(5).
func probeSystemd(ctx context.Context, bus, unit string) error {
	socket, err := (&net.Dialer{}).DialContext(ctx, "unix", bus)
	if err != nil {
		return fmt.Errorf("system bus: %w", err)
	}
	// Also where somebody waits for it without a look at ctx.
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	conn, err := dbus.NewConn(limited{io.LimitReader(socket, maxBus), socket}, dbus.WithContext(ctx))
	if err != nil {
		socket.Close()
		return fmt.Errorf("system bus: %w", err)
	}
	defer conn.Close()
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err != nil {
		return fmt.Errorf("system bus: %w", err)
	}
	if err := conn.Hello(); err != nil {
		return fmt.Errorf("system bus: %w", err)
	}
	object := conn.Object("org.freedesktop.systemd1", dbus.ObjectPath("/org/freedesktop/systemd1/unit/"+systemd.PathBusEscape(unit)))
	property := func(name string) (text string, err error) {
		err = object.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, "org.freedesktop.systemd1.Unit", name).Store(&text)
		return text, err
	}
	state, err := property("ActiveState")
	if err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	switch state {
	case "active", "reloading", "refreshing":
		return nil
	}
	state = printable(state)
	if load, err := property("LoadState"); err == nil && load != "loaded" {
		return fmt.Errorf("is %s (%s)", state, printable(load))
	}
	return fmt.Errorf("is %s", state)
}

// limited is a connection of which only so much is read.
type limited struct {
	io.Reader
	io.WriteCloser
}
