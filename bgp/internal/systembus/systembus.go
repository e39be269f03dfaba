// Package systembus asks systemd over the system's D-Bus, as anybody may; see
// org.freedesktop.systemd1(5).
package systembus

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"github.com/godbus/dbus/v5"
)

// Socket is where the D-Bus specification has the system's bus.
const Socket = "/run/dbus/system_bus_socket"

// maxRead is how much is read of a connection, in bytes.
const maxRead = 64 << 10

// Conn is a connection to a bus.
type Conn struct {
	*dbus.Conn
	stop func() bool
}

// Dial connects; when ctx ends, the connection does too.
func Dial(ctx context.Context, socket string) (*Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("system bus: %w", err)
	}
	// Also where somebody waits for it without a look at ctx.
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	conn, err := dbus.NewConn(limited{io.LimitReader(raw, maxRead), raw}, dbus.WithContext(ctx))
	if err != nil {
		stop()
		raw.Close()
		return nil, fmt.Errorf("system bus: %w", err)
	}
	c := &Conn{conn, stop}
	if err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err == nil {
		err = conn.Hello()
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("system bus: %w", err)
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() {
	c.stop()
	_ = c.Conn.Close()
}

// Name is systemd's on the bus, and Path where its manager is.
const (
	Name = "org.freedesktop.systemd1"
	Path = dbus.ObjectPath("/org/freedesktop/systemd1")
)

// Property reads one property of an object of systemd's into v; interfaces are named
// without their common beginning, such as "Unit".
func (c *Conn) Property(ctx context.Context, object dbus.ObjectPath, of, name string, v any) error {
	err := c.Object(Name, object).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, Name+"."+of, name).Store(v)
	if err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	return nil
}

// limited is a connection of which only so much is read.
type limited struct {
	io.Reader
	io.WriteCloser
}
