package bgp

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// slowSpeaker takes an hour to tell its table while it is slow.
type slowSpeaker struct {
	worldSpeaker
	slow *atomic.Bool
}

func (s slowSpeaker) List(ctx context.Context) (speaker.Table, error) {
	if s.slow.Load() {
		time.Sleep(time.Hour)
	}
	return s.worldSpeaker.List(ctx)
}

// A VIP whose check goes down is withdrawn at once, also while a pass still reads what
// there is; the pass then does nothing more about it.
func TestHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Second, t.Errorf)
		cfg := testConfig(2)
		w.holds = map[netip.Addr]vip.How{cfg.VIPs[0].Address: cfg.VIPs[0].Hold, cfg.VIPs[1].Address: cfg.VIPs[1].Hold}
		s := slowSpeaker{worldSpeaker{w}, new(atomic.Bool)}
		var bad atomic.Bool
		a := New(Options{Config: cfg, Speaker: s, Holder: worldHolder{w}, Probe: func(_ context.Context, c health.Check) error {
			if bad.Load() && c == checkOf(0) {
				return errors.New("answers badly")
			}
			return nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx) }()
		first, second := speaker.HostPrefix(cfg.VIPs[0].Address), speaker.HostPrefix(cfg.VIPs[1].Address)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if !w.routes[first] || !w.routes[second] {
			t.Fatalf("the router has %v", w.routes)
		}
		s.slow.Store(true)
		time.Sleep(15 * time.Second) // a pass begins, and reads
		bad.Store(true)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if w.routes[first] || !w.routes[second] || w.withdrawn != 1 {
			t.Errorf("the router has %v, after %d withdraws", w.routes, w.withdrawn)
		}
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		if w.withdrawn != 1 || w.released != 1 {
			t.Errorf("%d withdraws, %d releases", w.withdrawn, w.released)
		}
		s.slow.Store(false)
		time.Sleep(2 * time.Hour)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
