package metrics

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/centra/plasmacloud/bgp"
)

// The same events as at the socket, to be read only, page by page.
func TestEvents(t *testing.T) {
	happened := bgp.New(bgp.Options{Config: &bgp.Config{}})
	for i := range MaxEvents + 1 {
		happened.Note(slog.LevelInfo, "test", bgp.Event{Kind: bgp.EventAnnounced, VIP: netip.MustParseAddr("203.0.113.1"), Cause: bgp.CauseHealth, Reason: fmt.Sprint(i)})
	}
	web := httptest.NewServer(New(&fixed{events: happened.Events()}, "node01", "v1", slog.New(slog.DiscardHandler)).handler)
	defer web.Close()
	code, text := get(t, web.URL+"/events")
	var list EventList
	if err := json.Unmarshal([]byte(text), &list); err != nil || code != 200 || len(list.Events) != MaxEvents || !list.More {
		t.Fatalf("%d, %v, %d events", code, err, len(list.Events))
	}
	if e := list.Events[7]; e.Event != "announced" || e.VIP != "203.0.113.1" || e.Cause != "health" || e.Reason != "7" || e.At.IsZero() {
		t.Errorf("%+v", e)
	}
	if _, text := get(t, web.URL+"/events?vip=203.0.113.1&after="+list.Next); strings.Count(text, `"cursor"`) != 1 || !strings.Contains(text, `"more":false`) {
		t.Errorf("the rest is %s", text)
	}
	for query, want := range map[string]int{"after=x": 400, "follow=true": 400, "limit=x": 400} {
		if code, text := get(t, web.URL+"/events?"+query); code != want {
			t.Errorf("%s: %d %s", query, code, text)
		}
	}
}
