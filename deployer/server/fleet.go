package server

import (
	"context"
	"sync"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/server/page"
)

// Lists of nodes and VIPs, the status, what watchers of nodes are sent and the web page are
// cut from the fleet as it was at one time, which is read from the store for all who ask.
// There is one, and whoever is slow to read his answer keeps none of it but a part.
type fleet struct {
	mu      sync.Mutex // never held over a read
	last    *fleetState
	idle    *time.Timer
	reading *reading[*fleetState]
}

const (
	fleetIdle = 15 * time.Second // then nobody wants it any more
	fleetRead = 30 * time.Second // of a reading
)

// fleetState is all nodes at one time, and what follows from them, which is made once it
// is asked for. It does not change.
type fleetState struct {
	began time.Time
	took  time.Duration   // to be read
	views []deployer.View // by ascending id, without history

	vips     func() []deployer.VIP
	wireVIPs func() api.VIPList
	status   func() api.Status
	page     func() *page.Fleet
	marks    func() *marks
}

// fleetState is the one that was read last where that will do, else a new one. It waits
// for that no longer than ctx. All who wait for a reading that fails share the failure, so
// that nobody waits for one reading after the other while the store is away.
func (s *server) fleetState(ctx context.Context, enough func(*fleetState) bool) (*fleetState, error) {
	for {
		state, reading := s.lastFleet(enough)
		if state != nil {
			return state, nil
		}
		state, err := reading.wait(ctx)
		if err != nil {
			return nil, err
		}
		if enough(state) { // or it began too early
			return state, nil
		}
	}
}

// lastFleet is the fleet that was read last where that will do, else the reading that is
// under way, which it begins where there is none.
func (s *server) lastFleet(enough func(*fleetState) bool) (*fleetState, *reading[*fleetState]) {
	f := &s.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last != nil && enough(f.last) {
		f.idle.Reset(fleetIdle)
		return f.last, nil
	}
	if f.reading == nil || f.reading.over() {
		f.reading = beginReading(fleetRead, s.readFleet)
	}
	return nil, f.reading
}

// keep has state be what was read last.
func (f *fleet) keep(state *fleetState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = state
	if f.idle == nil {
		f.idle = time.AfterFunc(fleetIdle, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.last = nil
			if f.reading != nil && f.reading.over() { // it has the same
				f.reading = nil
			}
		})
	}
	f.idle.Reset(fleetIdle)
}

// since is enough for who asked then, and has to find what was answered before.
func since(asked time.Time) func(*fleetState) bool {
	return func(f *fleetState) bool { return !f.began.Before(asked) }
}

func (s *server) readFleet(ctx context.Context) (*fleetState, error) {
	f := &fleetState{began: time.Now()}
	var err error
	if f.views, err = s.registry.Nodes(ctx); err != nil {
		return nil, err
	}
	for i := range f.views {
		f.views[i].History = nil
	}
	f.took = time.Since(f.began)
	at := s.cfg.Now()
	f.vips = sync.OnceValue(func() []deployer.VIP { return s.registry.VIPsOf(f.views) })
	f.wireVIPs = sync.OnceValue(func() api.VIPList { return wireVIPs(f.vips()) })
	f.status = sync.OnceValue(func() api.Status { return s.wireStatus(s.registry.StatusOf(f.views, f.vips())) })
	f.marks = sync.OnceValue(func() *marks { return newMarks(f.views) })
	f.page = sync.OnceValue(func() *page.Fleet {
		made := page.NewFleet(f.views, f.vips(), at)
		made.Unreadable, made.Usable, made.Heartbeat = s.registry.Unreadable(), s.registry.StoreUsable(), s.registry.HeartbeatInterval()
		return made
	})
	s.fleet.keep(f)
	return f, nil
}
