package speaker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/speaker"
)

func TestMain(m *testing.M) { gobgpdtest.Main(m) }

var (
	vip4 = netip.MustParsePrefix("203.0.113.10/32")
	vip6 = netip.MustParsePrefix("2001:db8::10/128")
)

func ptr(n uint32) *uint32 { return &n }

func waitReady(t *testing.T, s speaker.Speaker) {
	t.Helper()
	gobgpdtest.Eventually(t, "speaker ready", func() error { return s.Ready(t.Context()) })
}

func list(t *testing.T, s speaker.Speaker) speaker.Table {
	t.Helper()
	table, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// Whatever we announce, the list says the same: else each pass would announce anew.
func TestRoundTrip(t *testing.T) { gobgpdtest.Each(t, testRoundTrip) }

func testRoundTrip(t *testing.T, g gobgpdtest.Generation) {
	d := gobgpdtest.Start(t, gobgpdtest.Config{Generation: g})
	s := d.Client(2 * time.Second)
	waitReady(t, s)
	paths := []speaker.Path{
		{Prefix: vip4},
		{Prefix: netip.MustParsePrefix("203.0.113.11/32"), NextHop: netip.MustParseAddr("10.0.0.11"), MED: ptr(0), LocalPref: ptr(200)},
		{Prefix: netip.MustParsePrefix("203.0.113.12/32"),
			Communities:      []speaker.Community{65001<<16 | 200, 65001<<16 | 100, 65001<<16 | 200},
			LargeCommunities: []speaker.LargeCommunity{{Global: 65001, Local1: 2}, {Global: 65001, Local1: 1, Local2: 9}}},
		{Prefix: netip.MustParsePrefix("203.0.113.13/32"), ASPath: slices.Repeat([]uint32{4200000000}, speaker.MaxASPath)},
		{Prefix: vip6, MED: ptr(5), ASPath: []uint32{65001, 65001}, Communities: []speaker.Community{1}},
		{Prefix: netip.MustParsePrefix("2001:db8::11/128"), NextHop: netip.MustParseAddr("2001:db8::1")},
	}
	if err := s.Announce(t.Context(), paths); err != nil {
		t.Fatal(err)
	}
	table := list(t, s)
	if len(table.Own) != len(paths) || len(table.Foreign) != 0 {
		t.Fatalf("listed %v", table)
	}
	for _, p := range paths {
		if got := table.Own[p.Prefix]; !got.Equal(p) {
			t.Errorf("announced %+v, listed %+v", p, got)
		}
	}
}

// A table that is read again and again is always the daemon's, whatever changed, of ours
// and of others; one that was read before stays what it was.
func TestListAgain(t *testing.T) { gobgpdtest.Each(t, testListAgain) }

func testListAgain(t *testing.T, g gobgpdtest.Generation) {
	d := gobgpdtest.Start(t, gobgpdtest.Config{Generation: g})
	s := d.Client(2 * time.Second)
	waitReady(t, s)
	vip := netip.MustParsePrefix("203.0.113.11/32")
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first := list(t, s)
	for i, step := range []struct {
		do    func()
		own   []speaker.Path
		other int
	}{
		{func() { do(s.Announce(t.Context(), []speaker.Path{{Prefix: vip4}, {Prefix: vip6}})) }, []speaker.Path{{Prefix: vip4}, {Prefix: vip6}}, 0},
		{func() {}, []speaker.Path{{Prefix: vip4}, {Prefix: vip6}}, 0},
		{func() { do(s.Announce(t.Context(), []speaker.Path{{Prefix: vip6, MED: ptr(7)}})) }, []speaker.Path{{Prefix: vip4}, {Prefix: vip6, MED: ptr(7)}}, 0},
		{func() { d.AddForeign(t, vip4, "192.0.2.77") }, []speaker.Path{{Prefix: vip4}, {Prefix: vip6, MED: ptr(7)}}, 1},
		{func() {
			do(s.Withdraw(t.Context(), []netip.Prefix{vip4}))
			do(s.Announce(t.Context(), []speaker.Path{{Prefix: vip}}))
		}, []speaker.Path{{Prefix: vip}, {Prefix: vip6, MED: ptr(7)}}, 1},
		{func() { do(s.Withdraw(t.Context(), []netip.Prefix{vip, vip6})) }, nil, 1},
	} {
		step.do()
		for range 2 {
			got := list(t, s)
			if len(got.Own) != len(step.own) || got.Foreign[vip4] != step.other || len(first.Own) != 0 {
				t.Fatalf("step %d: %+v", i, got)
			}
			for _, p := range step.own {
				if !got.Own[p.Prefix].Equal(p) {
					t.Errorf("step %d: %+v, want %+v", i, got.Own[p.Prefix], p)
				}
			}
		}
	}
}

// The mark of ownership, against a real gobgpd: it is listed, it lives beside a
// foreign path for the same prefix, it is not sent, and a withdraw takes ours only.
func TestOwnershipMark(t *testing.T) { gobgpdtest.Each(t, testOwnershipMark) }

func testOwnershipMark(t *testing.T, g gobgpdtest.Generation) {
	router := gobgpdtest.StartRouter(t)
	d := gobgpdtest.Start(t, gobgpdtest.Config{Generation: g, Peers: []netip.AddrPort{router.BGP}})
	s := d.Client(2 * time.Second)
	waitReady(t, s)
	router.WaitEstablished(t)

	if err := s.Announce(t.Context(), []speaker.Path{{Prefix: vip4}, {Prefix: vip6}}); err != nil {
		t.Fatal(err)
	}
	d.AddForeign(t, vip4, "192.0.2.77")
	table := list(t, s)
	if _, own := table.Own[vip4]; !own || table.Foreign[vip4] != 1 || table.Foreign[vip6] != 0 {
		t.Fatalf("with a foreign path: %+v", table)
	}
	gobgpdtest.Eventually(t, "router has both", func() error {
		if learned := router.Learned(t); len(learned) != 2 {
			return fmt.Errorf("has %v", learned)
		}
		return nil
	})
	for prefix, route := range router.Learned(t) {
		if route.PathID != 0 {
			t.Errorf("%s reached the router with path identifier %#x", prefix, route.PathID)
		}
	}
	if err := s.Withdraw(t.Context(), []netip.Prefix{vip4, vip6}); err != nil {
		t.Fatal(err)
	}
	if table = list(t, s); len(table.Own) != 0 || table.Foreign[vip4] != 1 {
		t.Fatalf("after the withdraw: %+v", table)
	}
	gobgpdtest.Eventually(t, "router has the foreign one only", func() error {
		learned := router.Learned(t)
		if _, ok := learned[vip4]; !ok || len(learned) != 1 {
			return fmt.Errorf("has %v", learned)
		}
		return nil
	})
	// Once more, with nothing there: no error, and the foreign one stays.
	if err := s.Withdraw(t.Context(), []netip.Prefix{vip4, vip6}); err != nil {
		t.Fatal(err)
	}
	if table = list(t, s); table.Foreign[vip4] != 1 {
		t.Fatalf("after the second withdraw: %+v", table)
	}
}

// A path learned from a peer is neither ours nor foreign, whatever its identifier.
func TestLearnedPathsAreNoOnes(t *testing.T) { gobgpdtest.Each(t, testLearnedPathsAreNoOnes) }

func testLearnedPathsAreNoOnes(t *testing.T, g gobgpdtest.Generation) {
	router := gobgpdtest.StartRouter(t)
	d := gobgpdtest.Start(t, gobgpdtest.Config{Generation: g, Peers: []netip.AddrPort{router.BGP}})
	s := d.Client(2 * time.Second)
	waitReady(t, s)
	if err := router.Announce(t.Context(), []speaker.Path{{Prefix: vip4}}); err != nil {
		t.Fatal(err)
	}
	gobgpdtest.Eventually(t, "speaker learns", func() error {
		routes, err := s.Routes(t.Context())
		if err == nil && len(routes) != 1 {
			err = errors.New("nothing yet")
		}
		return err
	})
	if table := list(t, s); len(table.Own)+len(table.Foreign) != 0 {
		t.Fatalf("listed %+v", table)
	}
}

func TestAdvertised(t *testing.T) { gobgpdtest.Each(t, testAdvertised) }

func testAdvertised(t *testing.T, g gobgpdtest.Generation) {
	router := gobgpdtest.StartRouter(t)
	d := gobgpdtest.Start(t, gobgpdtest.Config{Generation: g, Peers: []netip.AddrPort{router.BGP}})
	s := d.Client(2 * time.Second)
	waitReady(t, s)
	router.WaitEstablished(t)
	both := []netip.Prefix{vip4, vip6}

	if err := s.Announce(t.Context(), []speaker.Path{{Prefix: vip4}, {Prefix: vip6}}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Advertised(t.Context(), both)
	if err != nil || got.Established != 1 || len(got.To) != 2 || !slices.Equal(got.To[vip6], []netip.Addr{gobgpdtest.RouterAddr}) {
		t.Fatalf("announced: %+v, %v", got, err)
	}
	if err := s.Withdraw(t.Context(), both); err != nil {
		t.Fatal(err)
	}
	// What is on offer for the prefix from now on is not ours.
	d.AddForeign(t, vip4, "192.0.2.77")
	got, err = s.Advertised(t.Context(), both)
	if err != nil || got.Established != 1 || len(got.To) != 0 {
		t.Fatalf("withdrawn: %+v, %v", got, err)
	}
	many := append(both, hosts(2*600)...)
	if got, err = s.Advertised(t.Context(), many); err != nil || len(got.To) != 0 {
		t.Fatalf("withdrawn, by whole table: %+v, %v", got, err)
	}
}

// hosts are n host prefixes from 10.0.0.1 up.
func hosts(n int) []netip.Prefix {
	prefixes := make([]netip.Prefix, n)
	a := netip.MustParseAddr("10.0.0.1")
	for i := range prefixes {
		prefixes[i] = speaker.HostPrefix(a)
		a = a.Next()
	}
	return prefixes
}

// One path that the daemon refuses is named, and takes no other with it.
func TestAnnounceNamesTheBadPath(t *testing.T) { gobgpdtest.Each(t, testAnnounceNamesTheBadPath) }

func testAnnounceNamesTheBadPath(t *testing.T, g gobgpdtest.Generation) {
	d := gobgpdtest.Start(t, gobgpdtest.Config{Generation: g})
	s := d.Client(2 * time.Second)
	waitReady(t, s)
	var paths []speaker.Path
	for _, p := range hosts(10) {
		paths = append(paths, speaker.Path{Prefix: p})
	}
	bad := netip.MustParsePrefix("10.9.0.0/16")
	err := s.Announce(t.Context(), append(paths, speaker.Path{Prefix: bad}))
	var refused *speaker.PathErrors
	if !errors.As(err, &refused) || len(refused.ByPrefix) != 1 || refused.ByPrefix[bad] == nil {
		t.Fatalf("error is %v", err)
	}
	if table := list(t, s); len(table.Own) != 10 {
		t.Fatalf("%d paths announced, want 10", len(table.Own))
	}
}

func TestNotReady(t *testing.T) {
	t.Run("nobody there", func(t *testing.T) {
		address := fmt.Sprintf("127.0.0.1:%d", gobgpdtest.FreePort(t, "127.0.0.1"))
		s := gobgpdtest.Client(t, address, 65001, time.Second)
		if err := s.Ready(t.Context()); !errors.Is(err, speaker.ErrGone) {
			t.Fatal(err)
		}
	})
	t.Run("listens and says nothing", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		s := gobgpdtest.Client(t, l.Addr().String(), 65001, 300*time.Millisecond)
		for range 3 { // gRPC gives another error once it has tried
			if err := s.Ready(t.Context()); !errors.Is(err, speaker.ErrNoAnswer) {
				t.Fatal(err)
			}
		}
	})
	t.Run("another ASN", func(t *testing.T) {
		d := gobgpdtest.Start(t, gobgpdtest.Config{ASN: 65009})
		s := d.Client(2 * time.Second)
		gobgpdtest.Eventually(t, "the other ASN is seen", func() error {
			if err := s.Ready(t.Context()); !errors.Is(err, speaker.ErrWrongASN) {
				return fmt.Errorf("error is %w", err)
			}
			return nil
		})
	})
	t.Run("another API", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer() // knows no service at all
		go server.Serve(l)
		defer server.Stop()
		err = gobgpdtest.Client(t, l.Addr().String(), 65001, 2*time.Second).Ready(t.Context())
		if !errors.Is(err, speaker.ErrWrongAPI) || !strings.Contains(err.Error(), "neither api.GoBgpService (gobgpd 4.x) nor apipb.GobgpApi (gobgpd 3.x)") {
			t.Fatal(err)
		}
	})
}

// Watch tells the three ways of losing a daemon apart, each within its bound.
func TestWatch(t *testing.T) { gobgpdtest.Each(t, testWatch) }

func testWatch(t *testing.T, g gobgpdtest.Generation) {
	d := gobgpdtest.Start(t, gobgpdtest.Config{Generation: g})
	s := d.Client(2 * time.Second) // the default
	start := func() <-chan error {
		waitReady(t, s)
		watching, ended := make(chan struct{}, 100), make(chan error, 1)
		go func() { ended <- s.Watch(t.Context(), func() { watching <- struct{}{} }) }()
		<-watching
		return ended
	}
	wait := func(ended <-chan error, want error, within time.Duration) (took time.Duration) {
		t.Helper()
		began := time.Now()
		select {
		case err := <-ended:
			t.Logf("ended after %s: %v", time.Since(began).Round(100*time.Microsecond), err)
			if errors.Is(err, context.DeadlineExceeded) != errors.Is(want, speaker.ErrNoAnswer) {
				t.Errorf("late, or lost: %v", err)
			}
		case <-time.After(within):
			t.Fatalf("%v not seen within %s", want, within)
		}
		err := s.Ready(t.Context()) // as the pass that follows
		took = time.Since(began)
		if errors.Is(want, speaker.ErrNoAnswer) && !errors.Is(err, want) {
			t.Fatalf("after %s: %v", took, err)
		}
		// A process that dies may still accept connections for a moment.
		gobgpdtest.Eventually(t, want.Error(), func() error {
			if err := s.Ready(t.Context()); !errors.Is(err, want) {
				return fmt.Errorf("error is %w", err)
			}
			return nil
		})
		return took
	}
	const busy = 20 * time.Second // a machine that has other things to do may take longer than any bound
	var best time.Duration
	for range 3 {
		ended := start()
		d.Signal(syscall.SIGSTOP)
		took := wait(ended, speaker.ErrNoAnswer, busy)
		d.Signal(syscall.SIGCONT)
		if best == 0 || took < best {
			best = took
		}
		if best < 2*time.Second {
			break
		}
	}
	if best >= 2*time.Second {
		t.Errorf("a daemon that hangs is noticed after %s at best", best)
	}
	ended := start()
	d.Kill()
	wait(ended, speaker.ErrGone, busy)
	d.Run()
	ended = start()
	d.Terminate()
	wait(ended, speaker.ErrGone, busy)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Watch(ctx, func() {}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// Ten thousand VIPs, more than one message of gRPC's default size would take.
func TestManyPaths(t *testing.T) { gobgpdtest.Each(t, testManyPaths) }

func testManyPaths(t *testing.T, g gobgpdtest.Generation) {
	router := gobgpdtest.StartRouter(t)
	d := gobgpdtest.Start(t, gobgpdtest.Config{Generation: g, Peers: []netip.AddrPort{router.BGP}})
	s := d.Client(2 * time.Second)
	waitReady(t, s)
	router.WaitEstablished(t)
	prefixes := hosts(10_000)
	paths := make([]speaker.Path, len(prefixes))
	for i, p := range prefixes {
		paths[i] = speaker.Path{Prefix: p, Communities: []speaker.Community{65001<<16 | 100}}
	}
	timed := func(what string, f func() error) {
		t.Helper()
		began := time.Now()
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: %s", what, time.Since(began).Round(time.Millisecond))
	}
	timed("announce 10000", func() error { return s.Announce(t.Context(), paths) })
	timed("list 10000", func() error {
		table, err := s.List(t.Context())
		if err == nil && len(table.Own) != len(prefixes) {
			err = fmt.Errorf("%d paths", len(table.Own))
		}
		return err
	})
	timed("advertised 10000", func() error { _, err := s.Advertised(t.Context(), prefixes); return err })
	timed("advertised 1", func() error { _, err := s.Advertised(t.Context(), prefixes[:1]); return err })
	timed("router has 10000", func() error {
		gobgpdtest.Eventually(t, "router has all", func() error {
			if n := len(router.Learned(t)); n != len(prefixes) {
				return fmt.Errorf("has %d", n)
			}
			return nil
		})
		return nil
	})
	timed("withdraw 10000", func() error { return s.Withdraw(t.Context(), prefixes) })
	if table := list(t, s); len(table.Own) != 0 {
		t.Fatalf("%d paths left", len(table.Own))
	}
}
