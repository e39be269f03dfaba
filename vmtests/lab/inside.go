package lab

import (
	"context"
	"fmt"
	"net"
	"runtime"

	"github.com/vishvananda/netns"
)

// Inside runs f on a thread in the host, for sockets, which stay where they are
// made. It must start no goroutine that is to be in the host too.
func (h *Host) Inside(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err == nil {
			defer home.Close()
			err = h.enter()
		}
		if err != nil {
			result <- err // and the thread ends with the goroutine
			return
		}
		err = f()
		if back := netns.Set(home); back == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

func (h *Host) enter() error {
	own, err := netns.GetFromPath(h.Path())
	if err != nil {
		return fmt.Errorf("%s: %w", h.Path(), err)
	}
	defer own.Close()
	return netns.Set(own)
}

// Listen is net.Listen in the host.
func (h *Host) Listen(network, address string) (l net.Listener, err error) {
	err = h.Inside(func() error {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), network, address)
		return err
	})
	return l, err
}

// Dial connects from the host to an address that is no name.
func (h *Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = h.Inside(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
