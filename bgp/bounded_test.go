package bgp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/vip"
)

// hangingHolder does not answer any more once hangs is closed, as a kernel whose lock is taken.
type hangingHolder struct {
	worldHolder
	hangs, goesOn chan struct{}
}

func (h hangingHolder) wait() {
	select {
	case <-h.hangs:
		<-h.goesOn
	default:
	}
}

func (h hangingHolder) List(ctx context.Context) (vip.Held, error) {
	h.wait()
	return h.worldHolder.List(ctx)
}

// A host that hangs does not keep the announcer from stopping: what it could not
// see or release stays, and it says so.
func TestStopWithHostHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(5*time.Second, t.Fatalf)
		h := hangingHolder{worldHolder{w}, make(chan struct{}), make(chan struct{})}
		a := New(Options{Config: testConfig(2), Speaker: worldSpeaker{w}, Holder: h})
		a.health = func(health.Check) health.State { return health.State{Status: health.Up} }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.table) != 2 {
			t.Fatalf("announced are %v", w.table)
		}
		close(h.hangs)
		began := time.Now()
		cancel()
		if err := <-ended; !errors.Is(err, errHost) {
			t.Errorf("error is %v", err)
		}
		a.Close()
		if took := time.Since(began); took > time.Minute {
			t.Errorf("took %s", took)
		}
		if len(w.table) != 0 || len(w.own) != 2 {
			t.Errorf("left are %v and %v", w.table, w.own)
		}
		close(h.goesOn)
	})
}

// Many addresses go in parts; what failed is told as of one call.
func TestBindInParts(t *testing.T) {
	w := newWorld(time.Second, t.Fatalf)
	var addrs []netip.Addr
	for _, v := range testConfig(2*addressesAtOnce + 1).VIPs {
		addrs = append(addrs, v.Address)
	}
	want := []netip.Addr{addrs[1], addrs[2], addrs[len(addrs)-1]}
	for _, addr := range want {
		w.bindFails[addr] = true
	}
	if failed := unbound(newBoundedHolder(worldHolder{w}).Bind(t.Context(), vip.Address, addrs), addrs); !slices.Equal(failed, want) {
		t.Errorf("failed are %v", failed)
	}
	if len(w.own) != len(addrs)-len(want) {
		t.Errorf("%d are bound", len(w.own))
	}
}

// countingHolder counts calls of Release, each of which reads all that is there.
type countingHolder struct {
	worldHolder
	calls *int
	took  time.Duration
}

func (h countingHolder) Release(ctx context.Context, how vip.How, addrs []netip.Addr) error {
	*h.calls++
	time.Sleep(h.took)
	return h.worldHolder.Release(ctx, how, addrs)
}

// The parts of a release are larger and larger, and small where the kernel is slow.
func TestReleaseInFewParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for took, want := range map[time.Duration]int{0: 4, 2 * time.Second: 15} {
			w := newWorld(time.Second, t.Fatalf)
			var addrs []netip.Addr
			for _, v := range testConfig(15 * addressesAtOnce).VIPs {
				w.own[v.Address] = vip.Route
				addrs = append(addrs, v.Address)
			}
			calls := 0
			err := newBoundedHolder(countingHolder{worldHolder{w}, &calls, took}).Release(t.Context(), vip.Anyhow, addrs)
			if err != nil || calls != want || len(w.own) != 0 {
				t.Errorf("%v, %d calls of %s, want %d; %d are left", err, calls, took, want, len(w.own))
			}
		}
	})
}

// slowIPv6Holder needs 3 ms to release an IPv6 address, and no time for others.
type slowIPv6Holder struct{ worldHolder }

func (h slowIPv6Holder) Release(ctx context.Context, how vip.How, addrs []netip.Addr) error {
	for _, addr := range addrs {
		if addr.Is6() {
			time.Sleep(3 * time.Millisecond)
		}
		if err := h.worldHolder.Release(ctx, how, []netip.Addr{addr}); err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	return nil
}

// That IPv4 addresses are quick does not make the parts of IPv6 addresses large.
func TestReleaseOfBothFamilies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Second, t.Fatalf)
		var addrs []netip.Addr
		six := netip.MustParseAddr("2001:db8::1")
		for _, v := range testConfig(7000).VIPs {
			addrs = append(addrs, v.Address)
		}
		for range 8000 {
			addrs, six = append(addrs, six), six.Next()
		}
		for _, addr := range addrs {
			w.own[addr] = vip.Route
		}
		if err := newBoundedHolder(slowIPv6Holder{worldHolder{w}}).Release(t.Context(), vip.Anyhow, addrs); err != nil || len(w.own) != 0 {
			t.Errorf("%.200v; %d are left", err, len(w.own))
		}
	})
}

// hangingSpeaker does not answer, whatever its deadline, once hangs is closed.
type hangingSpeaker struct {
	worldSpeaker
	hangs, goesOn chan struct{}
}

func (h hangingSpeaker) Ready(ctx context.Context) error {
	select {
	case <-h.hangs:
		<-h.goesOn
	default:
	}
	return h.worldSpeaker.Ready(ctx)
}

// A watchdog hears of every pass that ends, in time, and of none that hangs.
func TestPassEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Second, t.Fatalf)
		h := hangingSpeaker{worldSpeaker{w}, make(chan struct{}), make(chan struct{})}
		cfg := testConfig(2)
		cfg.ReconcileInterval = 24 * time.Hour
		a := New(Options{Config: cfg, Speaker: h, Holder: worldHolder{w}, Probe: func(context.Context, health.Check) error { return nil }})
		var ended []time.Time
		a.OnPass(func(s Status) {
			if s.Interval != 10*time.Second {
				t.Errorf("next pass is promised within %s", s.Interval)
			}
			ended = append(ended, s.At)
		})
		a.PassEvery(10 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- a.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(ended) < 60 {
			t.Errorf("%d passes in ten minutes", len(ended))
		}
		for i := 1; i < len(ended); i++ {
			if gap := ended[i].Sub(ended[i-1]); gap > 11*time.Second {
				t.Errorf("%s between two passes", gap)
			}
		}
		close(h.hangs)
		time.Sleep(time.Minute)
		synctest.Wait()
		before := len(ended)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(ended) != before {
			t.Errorf("%d passes ended while the speaker hangs", len(ended)-before)
		}
		close(h.goesOn)
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}
