package vip_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/centra/plasmacloud/bgp/internal/netnstest"
	"github.com/centra/plasmacloud/bgp/vip"
)

const (
	short = 3 * time.Second
	// keeperOf names the namespace for a process of this test that holds both addresses.
	keeperOf = "VIP_TEST_KEEPER_OF"
)

func TestMain(m *testing.M) {
	if ns := os.Getenv(keeperOf); ns != "" {
		fmt.Println(keep(ns))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// keep holds both addresses until it is killed.
func keep(ns string) error {
	h, err := vip.Open(vip.Config{Interface: "lo", NetNS: ns, Lifetime: short})
	if err != nil {
		return err
	}
	if err := h.Bind(context.Background(), vip.Address, both); err != nil {
		return err
	}
	fmt.Println("holds")
	for {
		again, err := h.Renew(context.Background())
		if err != nil {
			return err
		}
		time.Sleep(again)
	}
}

// lifetimes are those of our addresses, in seconds, as a library says that is not ours.
func lifetimes(t *testing.T, ns *netnstest.NS) map[netip.Addr]int {
	t.Helper()
	addrs, err := ns.Handle.AddrList(ns.Link(t, "lo"), netlink.FAMILY_ALL)
	for errors.Is(err, netlink.ErrDumpInterrupted) { // the kernel looks after ends meanwhile
		addrs, err = ns.Handle.AddrList(ns.Link(t, "lo"), netlink.FAMILY_ALL)
	}
	if err != nil {
		t.Fatal(err)
	}
	found := map[netip.Addr]int{}
	for _, a := range addrs {
		if ip, _ := netip.AddrFromSlice(a.IP); !ip.Unmap().IsLoopback() {
			found[ip.Unmap()] = a.ValidLft
			const deprecated = 0x20
			if ip.Is6() && !ip.Is4In6() && (a.Flags&deprecated == 0 || a.PreferedLft != 0) {
				t.Errorf("%v may be a source: flags %#x", a, a.Flags)
			}
		}
	}
	return found
}

// Addresses with a lifetime stay while somebody renews them, without a moment in which
// the kernel would not take their packets, and end after he was killed.
func TestLifetime(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	addForeign(t, ns, "198.51.100.7/32")
	at, err := netns.GetFromPath(ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	updates, done := make(chan netlink.AddrUpdate, 1000), make(chan struct{})
	defer close(done)
	if err := netlink.AddrSubscribeAt(at, updates, done); err != nil {
		t.Fatal(err)
	}
	h := open(t, ns)
	woken := make(chan struct{}, 1000)
	go func() { _ = h.Watch(t.Context(), func() { woken <- struct{}{} }) }()
	<-woken

	keeper := exec.Command(os.Args[0])
	keeper.Env = append(os.Environ(), keeperOf+"="+ns.Path)
	out, err := keeper.StdoutPipe()
	if err == nil {
		err = keeper.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = keeper.Process.Kill(); _ = keeper.Wait() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "holds\n" {
		t.Fatalf("%v: %s", err, line)
	}
	renewed := map[string]int{}
	note := func() {
		for {
			select {
			case u := <-updates:
				if !u.NewAddr {
					t.Errorf("%s went while it was renewed", u.LinkAddress.IP)
				}
				renewed[u.LinkAddress.IP.String()]++
			default:
				return
			}
		}
	}
	began := time.Now()
	deadline := began.Add(2 * short)
	for effective := false; time.Now().Before(deadline); {
		local := true
		for _, a := range both {
			routes, err := ns.Handle.RouteGet(a.AsSlice())
			if local = local && err == nil && routes[0].Type == unix.RTN_LOCAL; effective && !local {
				t.Fatalf("%s after the start, %s is not the host's own: %v, %v", time.Since(began), a, routes, err)
			}
		}
		effective = local // IPv6 is a little later than the address
		note()
		time.Sleep(2 * time.Millisecond)
	}
	for _, a := range both {
		if left := lifetimes(t, ns)[a]; left < 1 || left > 3 || renewed[a.String()] < 4 {
			t.Errorf("%s ends in %d s, and was set %d times", a, left, renewed[a.String()])
		}
	}
	if n := len(woken); n > 3 { // IPv6: with the address, its route
		t.Errorf("%d events for two additions and renewals", n)
	}

	_ = keeper.Process.Kill()
	killed := time.Now()
	for len(own(t, h)) > 0 {
		if time.Since(killed) > 20*time.Second {
			t.Fatalf("left are %v", own(t, h))
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("ended %s after the kill", time.Since(killed).Round(10*time.Millisecond))
	if got := lifetimes(t, ns); len(got) != 1 {
		t.Errorf("left are %v", got)
	}
}

// The next announcer gives the addresses that it finds the lifetime of its own file, and
// touches nothing else.
func TestLifetimeChanges(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	addForeign(t, ns, "198.51.100.7/32")
	foreign := lifetimes(t, ns)
	if err := open(t, ns).Bind(t.Context(), vip.Address, both); err != nil {
		t.Fatal(err)
	}
	for _, lifetime := range []time.Duration{time.Hour, 10 * time.Minute, 0} {
		h, err := vip.Open(vip.Config{Interface: "lo", NetNS: ns.Path, Lifetime: lifetime})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		again, err := h.Renew(t.Context())
		if err != nil || again > lifetime/3 {
			t.Errorf("again after %s, %v", again, err)
		}
		got, want := lifetimes(t, ns), int(lifetime.Seconds())
		for a, was := range foreign {
			if got[a] != was {
				t.Errorf("the stranger's %s ends in %d s, before in %d s", a, got[a], was)
			}
		}
		for _, a := range both {
			// The library has "for ever" as 2^32-1.
			if left := got[a]; lifetime > 0 && (left > want || left < want-10) || lifetime == 0 && uint32(left) != 1<<32-1 {
				t.Errorf("%s ends in %d s, want %d", a, left, want)
			}
		}
		if err := h.Bind(t.Context(), vip.Address, both); err != nil { // again, they are there
			t.Fatal(err)
		}
	}
	if got := own(t, open(t, ns)); len(got) != 2 {
		t.Errorf("own are %v", got)
	}
}

// Many are renewed a part at a time, and who watches is not woken for each.
func TestRenewMany(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	h, err := vip.Open(vip.Config{Interface: "lo", NetNS: ns.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	const many = 10_000
	addrs := make([]netip.Addr, 0, many)
	for a4, a6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1"); len(addrs) < many; a4, a6 = a4.Next(), a6.Next() {
		addrs = append(addrs, a4)
		if len(addrs)%10 == 0 {
			addrs = append(addrs, a6)
		}
	}
	if err := h.Bind(t.Context(), vip.Address, addrs); err != nil {
		t.Fatal(err)
	}
	woken := make(chan struct{}, many)
	go func() { _ = h.Watch(t.Context(), func() { woken <- struct{}{} }) }()
	<-woken
	next, err := vip.Open(vip.Config{Interface: "lo", NetNS: ns.Path, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	began, rounds, longest := time.Now(), 0, time.Duration(0)
	for again := time.Duration(0); again <= time.Minute; rounds++ {
		if rounds > 20 {
			t.Fatal("20 rounds are not enough")
		}
		start := time.Now()
		if again, err = next.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, time.Since(start))
	}
	t.Logf("renewed %d in %d rounds: %s, the longest %s", len(addrs), rounds, time.Since(began).Round(time.Millisecond), longest.Round(time.Millisecond))
	for a, left := range lifetimes(t, ns) {
		if left > 3600 || left < 3000 {
			t.Fatalf("%s ends in %d s", a, left)
		}
	}
	if rounds < 10 {
		t.Errorf("%d rounds, which is too much for each", rounds)
	}
	// On a busy machine events overflow the socket now and then, and that counts as a change.
	if n := len(woken); n > many/20 {
		t.Errorf("woken %d times", n)
	}
}
