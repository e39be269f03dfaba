package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

// goesAway is a store whose lists take their time, and fail once gone is set.
type goesAway struct {
	store.Store
	takes time.Duration
	gone  bool
	reads atomic.Int32
}

func (s *goesAway) List(ctx context.Context) ([]node.Node, error) {
	s.reads.Add(1)
	time.Sleep(s.takes)
	if s.gone {
		return nil, errors.New("gone")
	}
	return s.Store.List(ctx)
}

const bareNodes = 500

// bareServer is a server of bareNodes nodes that does no more than list them.
func bareServer(t *testing.T) (*server, *goesAway) {
	t.Helper()
	file, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	kept := &goesAway{Store: file}
	quiet := slog.New(slog.DiscardHandler)
	registry, err := deployer.New(t.Context(), deployer.Config{Store: kept, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	var nodes []node.Declaration
	for i := range bareNodes {
		nodes = append(nodes, node.Declaration{ID: fmt.Sprintf("node%03d", i), Role: "worker"})
	}
	if _, err := registry.Declare(t.Context(), nodes); err != nil {
		t.Fatal(err)
	}
	return &server{cfg: Config{Now: time.Now, MaxWait: time.Second}, registry: registry, log: quiet, lists: newPlaces(4)}, kept
}

// TestStoreAway: with the store away, all who ask share one reading and its failure, and
// who leaves waits no longer.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	s, kept := bareServer(t)
	kept.gone, kept.takes = true, time.Second
	before := kept.reads.Load()
	ask := func(patience time.Duration) (status int, took time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		began := time.Now()
		a := s.status(nil, httptest.NewRequestWithContext(ctx, http.MethodGet, api.PathStatus, nil))
		return a.status, time.Since(began)
	}
	var all sync.WaitGroup
	for i := range 15 {
		all.Go(func() {
			patience := 100 * time.Millisecond
			if i%3 == 0 {
				patience = time.Minute
			}
			switch status, took := ask(patience); {
			case i%3 == 0 && (status != http.StatusServiceUnavailable || took > 10*time.Second):
				t.Errorf("one who waits: %d after %s", status, took)
			case i%3 != 0 && took >= kept.takes:
				t.Errorf("one who leaves: %d after %s", status, took)
			}
		})
	}
	all.Wait()
	if reads := kept.reads.Load() - before; reads != 1 {
		t.Errorf("%d readings", reads)
	}
	kept.gone = false
	if status, took := ask(time.Minute); status != http.StatusOK {
		t.Errorf("once it is back: %d after %s", status, took)
	}
}

// TestListWhileOthersRead: a list that is being written waits for nobody else's reading.
func TestListWhileOthersRead(t *testing.T) {
	t.Parallel()
	s, kept := bareServer(t)
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, api.PathNodes, nil)
	parts := 0
	w := onWrite{httptest.NewRecorder(), func() {
		if parts++; parts == 1 {
			before := kept.reads.Load()
			kept.takes = 2 * time.Second
			go s.status(nil, request)
			within(t, func() bool { return kept.reads.Load() > before }, "nobody reads")
		}
	}}
	s.write(w, s.nodes(nil, request))
	if all := strings.Count(w.Body.String(), `"node_id"`); all != bareNodes || parts < 3 {
		t.Errorf("%d nodes in %d parts", all, parts)
	}
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	if s.fleet.reading.over() {
		t.Error("the list waited for a reading of others")
	}
}

// TestFleetIdle: nothing holds a fleet that nobody wants any more.
func TestFleetIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f fleet
		f.mu.Lock()
		f.reading = beginReading(fleetRead, func(context.Context) (*fleetState, error) {
			state := new(fleetState)
			f.keep(state)
			return state, nil
		})
		f.mu.Unlock()
		time.Sleep(fleetIdle - time.Second)
		f.mu.Lock()
		if f.last == nil {
			t.Error("it was not kept")
		}
		f.mu.Unlock()
		time.Sleep(2 * time.Second)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.last != nil || f.reading != nil {
			t.Errorf("after %s: %v, %v", fleetIdle, f.last, f.reading)
		}
	})
}
