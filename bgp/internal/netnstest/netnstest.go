// Package netnstest makes network namespaces for tests.
package netnstest

import (
	"crypto/rand"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NS is a network namespace with lo up, and nothing else in it.
type NS struct {
	Path   string
	Handle *netlink.Handle // of the namespace
}

// New makes a namespace that goes when the test ends. It needs root.
func New(t testing.TB) *NS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces, which needs root: run it as root, or as root of a user namespace (unshare -rn)")
	}
	name := "test-" + rand.Text()[:10]
	failed := make(chan error, 1)
	go func() {
		// The thread changes its namespace, so it must not be used for anything
		// else: the goroutine ends without unlocking, and the thread with it.
		runtime.LockOSThread()
		ns, err := netns.NewNamed(name)
		if err == nil {
			err = ns.Close()
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { _ = netns.DeleteNamed(name) })

	n := &NS{Path: "/run/netns/" + name}
	ns, err := netns.GetFromPath(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if n.Handle, err = netlink.NewHandleAt(ns, unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Handle.Close)
	if err := n.Handle.LinkSetUp(n.Link(t, "lo")); err != nil {
		t.Fatal(err)
	}
	return n
}

// Link is the interface of that name.
func (n *NS) Link(t testing.TB, name string) netlink.Link {
	t.Helper()
	link, err := n.Handle.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link
}
