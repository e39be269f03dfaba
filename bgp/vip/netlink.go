package vip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	ifaProto = 11         // IFA_PROTO of linux/if_addr.h, which x/sys/unix does not have
	forever  = 0xffffffff // INFINITY_LIFE_TIME of the kernel, in seconds
	// listTries is how often a dump that changed under our eyes is read again.
	listTries = 20
)

// Config says where VIPs are held.
type Config struct {
	Interface string // in the namespace
	NetNS     string // path of a network namespace, such as /run/netns/edge; "" is our own
	// Lifetime is after how long an address ends that is not renewed, in whole seconds,
	// rounded up; 0: never. Routes have none.
	Lifetime time.Duration
	// MayBeGone is whether Open takes an interface, or a namespace, that is not there.
	MayBeGone bool
}

// Netlink is a Holder with one interface.
type Netlink struct {
	cfg Config

	mu     sync.Mutex      // guards what follows, and one request at a time
	handle *netlink.Handle // keeps the interface's index up to date
	sock   *nl.SocketHandle
	ns     netns.NsHandle // netns.None() for our own
	moved  chan struct{}  // closed when another namespace takes the place of ns

	// exchange sends a request to the kernel, and has its answer.
	exchange func(req *nl.NetlinkRequest, answer uint16) ([][]byte, error)
}

var _ Holder = (*Netlink)(nil)

// Open finds the interface and makes sure that the kernel can carry our mark. It
// needs CAP_NET_ADMIN only later, to bind; with NetNS set it needs CAP_SYS_ADMIN.
func Open(cfg Config) (*Netlink, error) {
	n := &Netlink{cfg: cfg, ns: netns.None(), exchange: func(req *nl.NetlinkRequest, answer uint16) ([][]byte, error) {
		return req.Execute(unix.NETLINK_ROUTE, answer)
	}}
	if err := n.open(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Netlink) open() error {
	_, err := n.index()
	if isGone(err) && n.cfg.MayBeGone {
		return nil
	}
	if isGone(err) {
		return fmt.Errorf("%w; create it, or name another one in hold", err)
	}
	if err != nil {
		return err
	}
	return n.checkKernel()
}

// enter opens the namespace, and opens it anew if another one has taken its place,
// as `ip netns delete` and `ip netns add` do: its addresses are not those of the
// old one, which lives on only for those who have it open. n.mu is held.
func (n *Netlink) enter() error {
	if n.cfg.NetNS != "" {
		var there, here unix.Stat_t
		if err := unix.Stat(n.cfg.NetNS, &there); err != nil {
			return fmt.Errorf("network namespace %s: %w", n.cfg.NetNS, err)
		}
		var on unix.Statfs_t
		if err := unix.Statfs(n.cfg.NetNS, &on); err == nil && on.Type != unix.NSFS_MAGIC {
			return fmt.Errorf("%s is no network namespace; name one in hold.netns, such as /run/netns/edge", n.cfg.NetNS)
		}
		if n.ns.IsOpen() && unix.Fstat(int(n.ns), &here) == nil && here.Dev == there.Dev && here.Ino == there.Ino {
			return nil
		}
	}
	if n.sock != nil {
		if n.cfg.NetNS == "" {
			return nil
		}
		n.leave()
	}
	ns := netns.None()
	if n.cfg.NetNS != "" {
		var err error
		if ns, err = netns.GetFromPath(n.cfg.NetNS); err != nil {
			return fmt.Errorf("network namespace %s: %w", n.cfg.NetNS, err)
		}
	}
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		closeNS(ns)
		return fmt.Errorf("netlink %s: %w", n.where(), err)
	}
	sock, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err == nil {
		if err = sock.SetReceiveTimeout(&nl.SocketTimeoutTv); err == nil {
			// So that the kernel picks our routes from a table that may be large.
			err = unix.SetsockoptInt(sock.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
		}
		if err != nil {
			sock.Close()
		}
	}
	if err != nil {
		handle.Close()
		closeNS(ns)
		return fmt.Errorf("netlink %s: %w", n.where(), err)
	}
	n.handle, n.sock, n.ns, n.moved = handle, &nl.SocketHandle{Socket: sock}, ns, make(chan struct{})
	return nil
}

// leave closes what enter opened. n.mu is held.
func (n *Netlink) leave() {
	if n.sock == nil {
		return
	}
	n.handle.Close()
	n.sock.Close()
	closeNS(n.ns)
	close(n.moved)
	n.handle, n.sock, n.ns, n.moved = nil, nil, netns.None(), nil
}

func closeNS(ns netns.NsHandle) {
	if ns.IsOpen() {
		ns.Close()
	}
}

// checkKernel refuses a kernel that takes our mark and forgets it (before Linux
// 5.18): every VIP of ours would look foreign there, and stay bound for ever.
func (n *Netlink) checkKernel() error {
	var marked bool
	err := whole(context.Background(), func() error { return n.dump(func(a address) { marked = marked || a.proto != 0 }) })
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", n.where(), err)
	}
	if marked {
		return nil
	}
	// No address tells, not even that of a loopback interface that is up.
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	return checkRelease(unix.ByteSliceToString(uts.Release[:]))
}

func checkRelease(release string) error {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("kernel release %q: %w", release, err)
	}
	if major < 5 || major == 5 && minor < 18 {
		return fmt.Errorf("kernel %s does not keep the protocol of an address (IFA_PROTO), by which VIPs are told from other addresses; Linux 5.18 or newer is needed", release)
	}
	return nil
}

func (n *Netlink) where() string {
	if n.cfg.NetNS == "" {
		return n.cfg.Interface
	}
	return n.cfg.Interface + " in " + n.cfg.NetNS
}

// index is looked up each time: an interface made anew has another one.
func (n *Netlink) index() (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.enter(); err != nil {
		return 0, err
	}
	link, err := n.handle.LinkByName(n.cfg.Interface)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", n.where(), err)
	}
	return link.Attrs().Index, nil
}

// isGone reports whether there is no such interface, or no such namespace.
func isGone(err error) bool {
	var noLink netlink.LinkNotFoundError
	return errors.As(err, &noLink) || isNoNamespace(err)
}

func isNoNamespace(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// Close frees the sockets; addresses stay as they are.
func (n *Netlink) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leave()
	return nil
}

// List implements Holder.
func (n *Netlink) List(ctx context.Context) (Held, error) {
	found, err := n.list(ctx)
	if err != nil {
		return Held{}, err
	}
	held := Held{Own: make(map[netip.Addr]How, len(found.marks)), Foreign: found.foreign}
	for a, marks := range found.marks {
		for _, m := range marks {
			held.Own[a] |= found.where(m)
			if found.where(m) == Address {
				delete(held.Foreign, a) // it may be there twice, with two prefix lengths
			}
		}
	}
	return held, nil
}

// mark is one thing of ours in the kernel.
type mark struct {
	how   How // Address or Route
	index int // of its interface
}

// finding is what the namespace has.
type finding struct {
	index     int // of our interface; 0: it is gone
	marks     map[netip.Addr][]mark
	foreign   map[netip.Addr]bool // on our interface
	addresses map[int]int         // how many of IPv4, anybody's, each interface has
}

// where is the way of m, as seen from our interface.
func (f *finding) where(m mark) How {
	if m.index != f.index {
		return Stray
	}
	return m.how
}

// forget notes that m is to go.
func (f *finding) forget(m mark, a netip.Addr) {
	f.marks[a] = slices.DeleteFunc(f.marks[a], func(o mark) bool { return o == m })
	if m.how == Address && a.Is4() {
		f.addresses[m.index]--
	}
}

func (n *Netlink) list(ctx context.Context) (*finding, error) {
	index, err := n.index()
	if isNoNamespace(err) {
		return &finding{}, nil
	}
	if err != nil && !isGone(err) {
		return nil, err
	}
	var found *finding
	err = whole(ctx, func() error {
		found = &finding{index: index, marks: map[netip.Addr][]mark{}, foreign: map[netip.Addr]bool{}, addresses: map[int]int{}}
		err := n.dump(func(a address) {
			if a.local.Is4() {
				found.addresses[a.index]++
			}
			switch {
			case !a.local.IsValid():
			case a.ours():
				found.marks[a.local] = append(found.marks[a.local], mark{Address, a.index})
			case a.index == index:
				found.foreign[a.local] = true
			}
		})
		if err != nil {
			return err
		}
		return n.dumpRoutes(Protocol, func(dst netip.Addr, index int) {
			found.marks[dst] = append(found.marks[dst], mark{Route, index})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list what is held by %s: %w", n.where(), err)
	}
	return found, nil
}

// whole calls read, which begins anew each time, until nothing has changed under its eyes.
func whole(ctx context.Context, read func() error) (err error) {
	for range listTries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err = read(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
	return err
}

// address is one entry of a dump.
type address struct {
	index int
	bits  int // prefix length
	proto uint8
	local netip.Addr
	// left is in how many seconds it ends, by the kernel; forever is never.
	left uint32
	// renewed: it was added, and changed since.
	renewed bool
}

// ours reports whether it has our mark.
func (a address) ours() bool {
	return a.local.IsValid() && a.proto == Protocol && a.bits == a.local.BitLen()
}

// dump reads every address of the namespace. On ErrDumpInterrupted each has seen a part.
func (n *Netlink) dump(each func(address)) error {
	req := n.request(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
	messages, err := n.execute(req, unix.RTM_NEWADDR)
	for _, m := range messages {
		a, parseErr := parseAddress(m)
		if parseErr != nil {
			return parseErr
		}
		each(a)
	}
	return err
}

// attributes calls each for every attribute (struct rtattr, rtnetlink(7)). The library's
// reader takes their padding for granted, and panics without it.
func attributes(b []byte, each func(kind uint16, value []byte)) error {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return fmt.Errorf("an attribute of %d bytes in %d", length, len(b))
		}
		each(binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:length])
		padded := (length + unix.RTA_ALIGNTO - 1) &^ (unix.RTA_ALIGNTO - 1)
		b = b[min(padded, len(b)):]
	}
	return nil
}

func parseAddress(message []byte) (address, error) {
	if len(message) < unix.SizeofIfAddrmsg {
		return address{}, fmt.Errorf("netlink: address message of %d bytes", len(message))
	}
	header := nl.DeserializeIfAddrmsg(message)
	a := address{index: int(header.Index), bits: int(header.Prefixlen), left: forever}
	var peer netip.Addr
	err := attributes(message[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
		switch kind {
		case unix.IFA_LOCAL:
			a.local, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS:
			peer, _ = netip.AddrFromSlice(value)
		case ifaProto:
			if len(value) > 0 {
				a.proto = value[0]
			}
		case unix.IFA_CACHEINFO: // struct ifa_cacheinfo: preferred, valid, created, updated
			if len(value) >= 16 {
				a.left = binary.NativeEndian.Uint32(value[4:])
				a.renewed = !bytes.Equal(value[8:12], value[12:16])
			}
		}
	})
	if err != nil {
		return address{}, fmt.Errorf("netlink: address message: %w", err)
	}
	if !a.local.IsValid() { // IPv6 without a peer has IFA_ADDRESS only
		a.local = peer
	}
	return a, nil
}

// Bind implements Holder.
func (n *Netlink) Bind(ctx context.Context, how How, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	add := n.addAddress
	switch how {
	case Address:
	case Route:
		add = n.addRoute
	default:
		return fmt.Errorf("bind as %s: not a way to bind", how)
	}
	index, err := n.index()
	if err != nil {
		return err
	}
	return n.each(ctx, "bind", addrs, func(a netip.Addr) error { return add(index, a) })
}

func (n *Netlink) addAddress(index int, a netip.Addr) error {
	// EXCL: an address that somebody else added keeps its mark, or lack of one.
	err := n.setAddress(unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, a)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

func (n *Netlink) setAddress(flags, index int, a netip.Addr) error {
	req := n.request(unix.RTM_NEWADDR, flags|unix.NLM_F_ACK)
	describeAddress(req, index, a)
	req.AddData(nl.NewRtAttr(ifaProto, []byte{Protocol}))
	lifetimes := make([]byte, 16) // struct ifa_cacheinfo: preferred, valid, and two stamps
	binary.NativeEndian.PutUint32(lifetimes[4:], n.lifetime())
	if a.Is4() {
		binary.NativeEndian.PutUint32(lifetimes, n.lifetime())
	} else {
		// No source of ours: a connection from this host would die with the VIP.
		// And no duplicate detection: several nodes hold the VIP by design.
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD)))
	}
	req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, lifetimes))
	_, err := n.execute(req, 0)
	return err
}

// Release implements Holder. It reads the marks again, right before. What stays held
// in another way is held all the time.
func (n *Netlink) Release(ctx context.Context, how How, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	found, err := n.list(ctx)
	if err != nil {
		return err
	}
	going := map[netip.Addr][]mark{}
	var late []netip.Addr
	for _, a := range addrs {
		var staying How
		for _, m := range found.marks[a] {
			if found.where(m)&how != 0 {
				going[a] = append(going[a], m)
			} else {
				staying |= m.how
			}
		}
		if a.Is6() && len(going[a]) > 0 && staying == Address {
			late = append(late, a)
		}
	}
	if err := n.awaitEffect(ctx, late); err != nil {
		return err
	}
	return n.each(ctx, "release", addrs, func(a netip.Addr) error {
		var errs []error
		for _, m := range going[a] {
			errs = append(errs, n.remove(m, a, found))
		}
		return errors.Join(errs...)
	})
}

func (n *Netlink) remove(m mark, a netip.Addr, found *finding) error {
	found.forget(m, a)
	switch {
	case m.how == Route:
		return n.removeRoute(m.index, a)
	case a.Is4() && found.addresses[m.index] == 0:
		return n.shelter(m.index, found, func() error { return n.removeAddress(m.index, a) })
	default:
		return n.removeAddress(m.index, a)
	}
}

func (n *Netlink) removeAddress(index int, a netip.Addr) error {
	req := n.request(unix.RTM_DELADDR, unix.NLM_F_ACK)
	describeAddress(req, index, a)
	_, err := n.execute(req, 0)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

func (n *Netlink) each(ctx context.Context, do string, addrs []netip.Addr, f func(netip.Addr) error) error {
	var errs []error
	for _, a := range addrs {
		err := ctx.Err()
		if err == nil {
			err = f(a)
		}
		if err != nil {
			errs = append(errs, &AddrError{a, do, err})
		}
	}
	return errors.Join(errs...)
}

// describeAddress adds the header and the address itself as a host prefix.
func describeAddress(req *nl.NetlinkRequest, index int, a netip.Addr) {
	header := &nl.IfAddrmsg{}
	header.Family = unix.AF_INET6
	header.Scope = unix.RT_SCOPE_UNIVERSE
	if a.Is4() {
		header.Family = unix.AF_INET
		// IPv4 has no preferred lifetime that counts; host scope keeps the kernel
		// from choosing the VIP as the source of a packet.
		header.Scope = unix.RT_SCOPE_HOST
	}
	header.Prefixlen = uint8(a.BitLen())
	header.Index = uint32(index)
	req.AddData(header)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, a.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, a.AsSlice()))
}

func (n *Netlink) request(kind, flags int) *nl.NetlinkRequest {
	return nl.NewNetlinkRequest(kind, flags)
}

func (n *Netlink) execute(req *nl.NetlinkRequest, answer uint16) ([][]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sock == nil {
		return nil, fmt.Errorf("netlink %s: %w", n.where(), fs.ErrClosed)
	}
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: n.sock}
	return n.exchange(req, answer)
}
