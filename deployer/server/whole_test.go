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
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

// goesAway is a store whose lists fail once gone is set.
type goesAway struct {
	store.Store
	gone bool
}

func (s *goesAway) List(ctx context.Context) ([]node.Node, error) {
	if s.gone {
		return nil, errors.New("gone")
	}
	return s.Store.List(ctx)
}

// onWrite is a response whose peer has something happen at each write.
type onWrite struct {
	*httptest.ResponseRecorder
	do func()
}

func (w onWrite) Write(b []byte) (int, error) {
	w.do()
	return w.ResponseRecorder.Write(b)
}

// TestHalfAList: where the store goes away while a list is written, and the fleet is no
// longer kept, the connection is broken off, so that nobody takes it for the list.
func TestHalfAList(t *testing.T) {
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
	for i := range 500 {
		nodes = append(nodes, node.Declaration{ID: fmt.Sprintf("node%03d", i), Role: "worker"})
	}
	if _, err := registry.Declare(t.Context(), nodes); err != nil {
		t.Fatal(err)
	}
	s := &server{cfg: Config{Now: time.Now, MaxWait: time.Second}, registry: registry, log: quiet, lists: newPlaces(4)}
	for _, forgets := range []bool{false, true} {
		kept.gone = false
		w := onWrite{httptest.NewRecorder(), func() {
			kept.gone = true
			if forgets {
				s.fleet.mu.Lock()
				s.fleet.last = nil
				s.fleet.mu.Unlock()
			}
		}}
		aborted := false
		func() {
			defer func() {
				err, _ := recover().(error)
				aborted = errors.Is(err, http.ErrAbortHandler)
			}()
			request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, api.PathNodes, nil)
			s.write(w, s.nodes(nil, request))
		}()
		if aborted != forgets || len(s.lists.all) != 0 {
			t.Errorf("forgotten %v: broken off %v, %d places taken", forgets, aborted, len(s.lists.all))
		}
		if all := strings.Count(w.Body.String(), `"node_id"`); all == 0 || forgets == (all == len(nodes)) {
			t.Errorf("forgotten %v: %d nodes", forgets, all)
		}
	}
}
