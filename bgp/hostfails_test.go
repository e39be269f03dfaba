package bgp

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
)

// A host that cannot be read, and one that refuses an address, show in the status with
// the reason; what is announced stays, what is held stays, and it mends itself.
func TestHostFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Second, t.Errorf)
		stranger := netip.MustParseAddr("198.51.100.7")
		w.others[stranger] = true
		cfg := testConfig(2)
		refused := cfg.VIPs[1].Address
		w.bindFails[refused] = true
		a := New(Options{Config: cfg, Speaker: worldSpeaker{w}, Holder: worldHolder{w}, Probe: func(context.Context, health.Check) error { return nil }})
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- a.Run(ctx) }()
		change := func(f func()) {
			w.mu.Lock()
			defer w.mu.Unlock()
			f()
		}
		settle := func() Status {
			time.Sleep(time.Minute)
			synctest.Wait()
			return a.Status()
		}
		if s := settle(); !strings.Contains(s.Error, "bind "+refused.String()+": no buffer space") || len(w.table) != 1 || len(w.own) != 1 {
			t.Errorf("%s: announced %v, held %v", s.Error, w.table, w.own)
		}
		change(func() { delete(w.bindFails, refused) })
		if s := settle(); s.Error != "" || len(w.table) != 2 || len(w.own) != 2 {
			t.Errorf("%s: announced %v, held %v", s.Error, w.table, w.own)
		}
		bound, announced := w.bound, len(w.table)
		change(func() { w.listFails = true })
		if s := settle(); s.HostRead || !strings.Contains(s.Error, "dump interrupted") {
			t.Errorf("host read: %v, %s", s.HostRead, s.Error)
		}
		if w.bound != bound || len(w.table) != announced || w.withdrawn != 0 || w.released != 0 {
			t.Errorf("bound %d times, before %d; announced %v; %d withdraws, %d releases", w.bound, bound, w.table, w.withdrawn, w.released)
		}
		change(func() { w.listFails = false })
		if s := settle(); s.Error != "" || !s.HostRead || w.bound != bound {
			t.Errorf("host read: %v, %s; bound %d times, before %d", s.HostRead, s.Error, w.bound, bound)
		}
		cancel()
		if err := <-stopped; err != nil || !w.others[stranger] || len(w.own) != 0 {
			t.Errorf("%v; others %v, held %v", err, w.others, w.own)
		}
	})
}
