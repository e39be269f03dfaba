package phonehome

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"

	"github.com/centra/plasmacloud/deployer/node"
)

// systemBus is where the D-Bus specification has the system's bus.
const systemBus = "/run/dbus/system_bus_socket"

// maxBus is how much is read of the bus for one question, in bytes.
const maxBus = 256 << 10

// unitNames gives names without a type that of a service, as systemctl does.
func unitNames(names []string) []string {
	units := make([]string, len(names))
	for i, name := range names {
		if units[i] = name; !strings.Contains(name, ".") {
			units[i] = name + ".service"
		}
	}
	return units
}

// services asks systemd for the state of the units, in their order. That it does not
// answer is a state too. It only asks: see org.freedesktop.systemd1(5).
func services(ctx context.Context, bus string, units []string) []node.Service {
	if len(units) == 0 {
		return nil
	}
	found, err := askSystemd(ctx, bus, units)
	list := make([]node.Service, len(units))
	for i, unit := range units {
		u, known := found[unit]
		switch {
		case err != nil:
			u = node.Service{State: "unknown", Reason: err.Error()}
		case !known:
			u = node.Service{State: "unknown", Reason: "systemd says nothing of it"}
		}
		u.Name = unit
		list[i] = u
	}
	return list
}

var activeState = regexp.MustCompile(`^[a-z-]{1,32}$`)

func askSystemd(ctx context.Context, bus string, units []string) (map[string]node.Service, error) {
	ctx, cancel := context.WithTimeout(ctx, announcerTimeout)
	defer cancel()
	away := errors.New("systemd does not answer")
	socket, err := (&net.Dialer{}).DialContext(ctx, "unix", bus)
	if err != nil {
		return nil, errors.New("the system bus cannot be reached")
	}
	// Also where somebody waits for it without a look at ctx.
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	conn, err := dbus.NewConn(bounded{io.LimitReader(socket, maxBus), socket}, dbus.WithContext(ctx))
	if err != nil {
		socket.Close()
		return nil, away
	}
	defer conn.Close()
	if conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}) != nil || conn.Hello() != nil {
		return nil, away
	}
	var answer []struct {
		Name, Description, Load, Active, Sub, Following string
		Path                                            dbus.ObjectPath
		Job                                             uint32
		JobType                                         string
		JobPath                                         dbus.ObjectPath
	}
	manager := conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	if manager.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.ListUnitsByNames", 0, units).Store(&answer) != nil {
		return nil, away
	}
	found := make(map[string]node.Service, len(answer))
	for _, u := range answer {
		s := node.Service{State: u.Active}
		switch {
		case !activeState.MatchString(u.Active):
			s.State, s.Reason = "unknown", "systemd says "+printable(u.Active)
		case s.Active():
		case u.Load != "loaded":
			s.Reason = "unit is " + printable(u.Load)
		default:
			s.Reason = printable(u.Sub)
		}
		found[u.Name] = s
	}
	return found, nil
}

// bounded is a connection of which only so much is read.
type bounded struct {
	io.Reader
	io.WriteCloser
}
