package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Capture writes packets of a host to a file in the format of pcap.
type Capture struct {
	fd   int
	stop int // written to, and the reading ends
	done chan error
}

// pcap's link type of Ethernet, and how much of each packet is kept.
const (
	linkEthernet = 1
	snapLength   = 65535
)

// onlyBGP takes TCP packets from or to port 179.
var onlyBGP = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 12, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IPV6, SkipFalse: 6},
	bpf.LoadAbsolute{Off: 20, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_TCP, SkipFalse: 13},
	bpf.LoadAbsolute{Off: 54, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 179, SkipTrue: 10},
	bpf.LoadAbsolute{Off: 56, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 179, SkipTrue: 8, SkipFalse: 9},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipFalse: 8},
	bpf.LoadAbsolute{Off: 23, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_TCP, SkipFalse: 6},
	bpf.LoadMemShift{Off: 14}, // the length of IPv4's header
	bpf.LoadIndirect{Off: 14, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 179, SkipTrue: 2},
	bpf.LoadIndirect{Off: 16, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 179, SkipFalse: 1},
	bpf.RetConstant{Val: snapLength},
	bpf.RetConstant{Val: 0},
}

// CaptureBGP captures what the host sends and receives of BGP. See [Host.Capture].
func (h *Host) CaptureBGP(w io.Writer) (*Capture, error) {
	program, err := bpf.Assemble(onlyBGP)
	if err != nil {
		return nil, err
	}
	return h.capture(w, "", program)
}

// Capture writes all packets of the interface, or of every one of the host if it is
// "", to w until it is closed.
func (h *Host) Capture(w io.Writer, iface string) (*Capture, error) { return h.capture(w, iface, nil) }

func (h *Host) capture(w io.Writer, iface string, filter []bpf.RawInstruction) (*Capture, error) {
	c := &Capture{done: make(chan error, 1)}
	err := h.Inside(func() (err error) {
		// Of no protocol until it is set up: nothing comes that is not wanted.
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		if filter != nil {
			instructions := make([]unix.SockFilter, len(filter))
			for i, f := range filter {
				instructions[i] = unix.SockFilter{Code: f.Op, Jt: f.Jt, Jf: f.Jf, K: f.K}
			}
			program := unix.SockFprog{Len: uint16(len(instructions)), Filter: &instructions[0]}
			if err := unix.SetsockoptSockFprog(c.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
				return fmt.Errorf("packet filter: %w", err)
			}
		}
		address := unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL)}
		if iface != "" {
			found, err := net.InterfaceByName(iface)
			if err != nil {
				return fmt.Errorf("interface %s of %s: %w", iface, h.Name, err)
			}
			address.Ifindex = found.Index
		}
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // as much as it gives
		return unix.Bind(c.fd, &address)
	})
	if err == nil {
		c.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	}
	if err == nil {
		header := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
		header = binary.LittleEndian.AppendUint16(header, 2)
		header = binary.LittleEndian.AppendUint16(header, 4)
		header = append(header, make([]byte, 8)...)
		header = binary.LittleEndian.AppendUint32(header, snapLength)
		header = binary.LittleEndian.AppendUint32(header, linkEthernet)
		_, err = w.Write(header)
	}
	if err != nil {
		if c.fd > 0 {
			unix.Close(c.fd)
		}
		return nil, err
	}
	go func() { c.done <- c.copy(w) }()
	return c, nil
}

func (c *Capture) copy(w io.Writer) error {
	packet := make([]byte, snapLength)
	wait := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}, {Fd: int32(c.stop), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(wait, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for {
			n, _, err := unix.Recvfrom(c.fd, packet, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
				continue
			}
			if err != nil {
				return err
			}
			kept := min(n, len(packet))
			now := time.Now()
			record := binary.LittleEndian.AppendUint32(nil, uint32(now.Unix()))
			record = binary.LittleEndian.AppendUint32(record, uint32(now.Nanosecond()/1000))
			record = binary.LittleEndian.AppendUint32(record, uint32(kept))
			record = binary.LittleEndian.AppendUint32(record, uint32(n))
			if _, err := w.Write(append(record, packet[:kept]...)); err != nil {
				return err
			}
		}
		if wait[1].Revents != 0 {
			return nil
		}
	}
}

// Done gets the end of the capture.
func (c *Capture) Done() <-chan error { return c.done }

// Close ends the capture with what has come so far.
func (c *Capture) Close() error {
	_, err := unix.Write(c.stop, binary.NativeEndian.AppendUint64(nil, 1))
	err = errors.Join(err, <-c.done)
	return errors.Join(err, unix.Close(c.fd), unix.Close(c.stop))
}

func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
