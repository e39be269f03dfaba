package lab

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// relay carries frames between a host's port and its switch in place of the kernel, and
// holds back those from the host.
type relay struct {
	by           atomic.Int64 // so long
	port, bridge *os.File     // packet sockets
	veth         string       // between the relay and the bridge
}

// Most of a relay: the frames that it holds back, as many as tc's netem, and the
// bytes of one, which segmentation offload makes larger than any link's.
const (
	mostHeld  = 1000
	mostFrame = 1 << 17
)

// HoldBack holds back what the host sends by an interface that [Lab.Segment] has joined,
// in place of what was said before; 0: not at all, and what is held back is lost. For a
// kernel without tc's netem: what passes costs two copies. VLANs are not carried.
func (h *Host) HoldBack(iface string, by time.Duration) error {
	c, has := h.cables[iface]
	r := h.relays[iface]
	switch {
	case !has:
		return fmt.Errorf("%s has no cable at %s", h.Name, iface)
	case r != nil && by > 0:
		r.by.Store(int64(by))
		return nil
	case r != nil:
		delete(h.relays, iface)
		return errors.Join(r.close(), c.to.Batch("link set "+c.port+" master br0", "link del "+r.veth))
	case by == 0:
		return nil
	}
	r = &relay{}
	r.by.Store(int64(by))
	err := c.to.Inside(func() error {
		port, err := net.InterfaceByName(c.port)
		if err == nil {
			r.veth = fmt.Sprintf("late%d", port.Index)
			r.port, err = packetSocket(c.port)
		}
		return err
	})
	if err == nil {
		err = c.to.Batch("link add "+r.veth+" type veth peer name to-"+r.veth, "link set "+r.veth+" up",
			"link set to-"+r.veth+" up master br0", "link set "+c.port+" nomaster")
	}
	if err == nil {
		err = c.to.Inside(func() (err error) { r.bridge, err = packetSocket(r.veth); return err })
	}
	if err != nil {
		return errors.Join(fmt.Errorf("hold back what %s sends by %s: %w", h.Name, iface, err), r.close())
	}
	h.relays[iface] = r
	go carry(r.port, r.bridge, &r.by)
	go carry(r.bridge, r.port, new(atomic.Int64))
	return nil
}

func (r *relay) close() error {
	var errs []error
	for _, f := range []*os.File{r.port, r.bridge} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// packetSocket has the frames that come in by the interface, each behind the kernel's
// notes on what is left to be done of checksum and segmentation (virtio_net_hdr).
func packetSocket(iface string) (*os.File, error) {
	found, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // as much as it gives
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: found.Index}))
	return os.NewFile(uintptr(fd), iface), err
}

// carry ends when from is closed. What cannot be sent is lost, as on any link.
func carry(from, to *os.File, by *atomic.Int64) {
	type held struct {
		due   time.Time
		frame []byte
	}
	queue := make(chan held, mostHeld)
	defer close(queue)
	go func() {
		for h := range queue {
			time.Sleep(time.Until(h.due))
			_, _ = to.Write(h.frame)
		}
	}()
	buffer := make([]byte, mostFrame)
	for {
		n, err := from.Read(buffer)
		if errors.Is(err, unix.ENETDOWN) {
			continue // it says so once, and goes on when the interface is up again
		}
		if err != nil {
			return
		}
		select {
		case queue <- held{time.Now().Add(time.Duration(by.Load())), bytes.Clone(buffer[:n])}:
		default:
		}
	}
}
