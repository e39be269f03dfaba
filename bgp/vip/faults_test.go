package vip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/centra/plasmacloud/bgp/internal/netnstest"
)

var (
	ours    = netip.MustParseAddr("203.0.113.10")
	ours6   = netip.MustParseAddr("2001:db8::10")
	another = netip.MustParseAddr("203.0.113.11")
	foreign = netip.MustParseAddr("198.51.100.7")
)

// holding is a Netlink that holds ours and ours6, beside a stranger's address.
func holding(t *testing.T) *Netlink {
	t.Helper()
	ns := netnstest.New(t)
	addr, err := netlink.ParseAddr(foreign.String() + "/32")
	if err == nil {
		err = ns.Handle.AddrAdd(ns.Link(t, "lo"), addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	n, err := Open(Config{Interface: "lo", NetNS: ns.Path, Lifetime: time.Hour})
	if err == nil {
		t.Cleanup(func() { n.Close() })
		err = n.Bind(t.Context(), Address, []netip.Addr{ours, ours6})
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// mended makes sure that n does its work now, that the first addresses are held, and that
// the stranger's is as it was.
func mended(t *testing.T, n *Netlink) {
	t.Helper()
	held, err := n.List(t.Context())
	if err != nil || held.Own[ours] != Address || held.Own[ours6] != Address || !held.Foreign[foreign] || held.Own[foreign] != None {
		t.Fatalf("%v: %+v", err, held)
	}
	if _, err := n.Renew(t.Context()); err != nil {
		t.Error(err)
	}
	for _, step := range []func(context.Context, How, []netip.Addr) error{n.Bind, n.Release} {
		if err := step(t.Context(), Address, []netip.Addr{another, foreign}); err != nil {
			t.Error(err)
		}
	}
	if held, err = n.List(t.Context()); err != nil || len(held.Own) != 2 || !held.Foreign[foreign] {
		t.Errorf("%v: %+v", err, held)
	}
}

// The kernel's errors that no test can bring about at will are put in place of its
// answers; all else is the real one. What cannot be read is never read as absent, what
// cannot be done is named, nothing foreign is touched, and the next try does it.
func TestKernelRefuses(t *testing.T) {
	t.Parallel()
	add, remove := []uint16{unix.RTM_NEWADDR, unix.RTM_NEWROUTE}, []uint16{unix.RTM_DELADDR, unix.RTM_DELROUTE}
	addresses, routes := []uint16{unix.RTM_GETADDR}, []uint16{unix.RTM_GETROUTE}
	for _, test := range []struct {
		name  string
		err   error
		of    []uint16 // requests
		times int      // before the kernel answers again; 0: until the test is over
		// Which of the calls fail; the others work.
		list, bind, release bool
	}{
		{"a dump that changes once under our eyes", netlink.ErrDumpInterrupted, addresses, 1, false, false, false},
		{"one that always does", netlink.ErrDumpInterrupted, addresses, 0, true, false, true},
		{"one of routes", netlink.ErrDumpInterrupted, routes, 0, true, false, true},
		{"a signal", unix.EINTR, addresses, 0, true, false, true},
		{"more than the socket takes", unix.ENOBUFS, addresses, 0, true, false, true},
		{"another dump under way", unix.EBUSY, routes, 0, true, false, true},
		{"no rights to add", unix.EPERM, add, 0, false, true, false},
		{"no memory to add", unix.ENOBUFS, add, 0, false, true, false},
		{"busy to add", unix.EBUSY, add, 0, false, true, false},
		{"the interface is gone right before", unix.ENODEV, add, 0, false, true, false},
		{"no rights to remove", unix.EPERM, remove, 0, false, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := holding(t)
			kernel, left := n.exchange, test.times
			n.exchange = func(req *nl.NetlinkRequest, answer uint16) ([][]byte, error) {
				for _, kind := range test.of {
					if req.Type != kind || test.times > 0 && left == 0 {
						continue
					}
					left--
					if !errors.Is(test.err, netlink.ErrDumpInterrupted) {
						return nil, test.err
					}
					messages, err := kernel(req, answer) // with an interruption comes a part
					return messages[:len(messages)/2], errors.Join(err, test.err)
				}
				return kernel(req, answer)
			}
			held, err := n.List(t.Context())
			says(t, "list", test.list, err, test.err)
			if test.list && (held.Own != nil || held.Foreign != nil) {
				t.Errorf("a part is read: %+v", held)
			}
			if !test.list && held.Own[ours] != Address {
				t.Errorf("read as absent: %+v", held)
			}
			err = n.Bind(t.Context(), Address, []netip.Addr{another})
			says(t, "bind", test.bind, err, test.err)
			var one *AddrError
			if test.bind && (!errors.As(err, &one) || one.Addr != another) {
				t.Errorf("it is not said which: %v", err)
			}
			says(t, "release", test.release, n.Release(t.Context(), Anyhow, []netip.Addr{another, foreign}), test.err)
			n.exchange = kernel
			if err := n.Release(t.Context(), Anyhow, []netip.Addr{another}); err != nil {
				t.Error(err)
			}
			mended(t, n)
		})
	}
}

func says(t *testing.T, what string, fails bool, err, want error) {
	t.Helper()
	if fails != (err != nil) || fails && !errors.Is(err, want) {
		t.Errorf("%s: error is %v", what, err)
	}
}

// Without CAP_NET_ADMIN the real kernel refuses to add, to renew and to remove, and lists.
func TestWithoutCapability(t *testing.T) {
	t.Parallel()
	n := holding(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&header, &data[0])
		if data[0].Effective &^= 1 << unix.CAP_NET_ADMIN; err == nil {
			err = unix.Capset(&header, &data[0])
		}
		if err != nil {
			t.Error(err)
			return
		}
		held, err := n.List(t.Context())
		if err != nil || held.Own[ours] != Address {
			t.Errorf("%v: %+v", err, held)
		}
		for what, err := range map[string]error{
			"bind":    n.Bind(t.Context(), Address, []netip.Addr{another}),
			"route":   n.Bind(t.Context(), Route, []netip.Addr{another}),
			"release": n.Release(t.Context(), Anyhow, []netip.Addr{ours}),
		} {
			if !errors.Is(err, unix.EPERM) || !strings.HasSuffix(err.Error(), ": operation not permitted") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}()
	<-done
	mended(t, n)
}

// More events than the socket takes are one change, and who watches goes on. The kernel
// drops them in earnest: while the one who watches is busy, thousands happen.
func TestWatchOverflows(t *testing.T) {
	t.Parallel()
	n := holding(t)
	busy := make(chan struct{})
	changes, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- n.Watch(t.Context(), func() {
			<-busy
			changes <- struct{}{}
		})
	}()
	var many []netip.Addr
	for a := netip.MustParseAddr("10.0.0.1"); len(many) < 1000; a = a.Next() {
		many = append(many, a)
	}
	deadline := time.Now().Add(20 * time.Second)
	for dropped(t, n.cfg.NetNS) == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the kernel drops nothing")
		}
		if err := errors.Join(n.Bind(t.Context(), Route, many), n.Release(t.Context(), Route, many)); err != nil {
			t.Fatal(err)
		}
	}
	close(busy)
	<-changes // of the start
	quiet := time.NewTimer(10 * time.Second)
	for seen := 0; ; seen++ {
		quiet.Reset(300 * time.Millisecond)
		select {
		case <-changes:
			continue
		case err := <-ended:
			t.Fatal(err)
		case <-quiet.C:
		}
		if seen == 0 {
			t.Error("no change is told")
		}
		break
	}
	if err := n.Bind(t.Context(), Address, []netip.Addr{another}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changes:
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(10 * time.Second):
		t.Error("it watches no more")
	}
}

// dropped is how many messages the kernel could not give to the netlink sockets of a namespace.
func dropped(t *testing.T, path string) (sum int) {
	t.Helper()
	type answer struct {
		data []byte
		err  error
	}
	read := make(chan answer)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := netns.GetFromPath(path)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err != nil {
			read <- answer{err: err}
			return
		}
		data, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/net/netlink", unix.Gettid()))
		read <- answer{data, err}
	}()
	a := <-read
	if a.err != nil {
		t.Fatal(a.err)
	}
	lines := bytes.Split(bytes.TrimSpace(a.data), []byte("\n"))
	for _, line := range lines[1:] {
		fields := strings.Fields(string(line)) // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
		n, err := strconv.Atoi(fields[8])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum += n
	}
	return sum
}
