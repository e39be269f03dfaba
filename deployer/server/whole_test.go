package server

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/centra/plasmacloud/deployer/api"
)

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
	s, kept := bareServer(t)
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
		if all := strings.Count(w.Body.String(), `"node_id"`); all == 0 || forgets == (all == bareNodes) {
			t.Errorf("forgotten %v: %d nodes", forgets, all)
		}
	}
}
