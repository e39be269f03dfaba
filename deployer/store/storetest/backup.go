package storetest

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/backup"
)

// backedUp: what is restored, with an interruption on the way, is what a backup has
// then. Restoring makes no events of its own.
func backedUp(t *testing.T, s Opened) {
	operator := store.Event{At: start, Node: "node01", Event: node.EventHold, By: "alice", Remote: "192.0.2.1", Reason: "new disks", Result: store.ResultDone}
	c := backup.Content{
		Nodes: []node.Node{Full("node01"), Full("node02")}, Tokens: []node.Token{FullToken("a")},
		Audit: []store.Event{operator}, Made: start,
	}
	for i := range 250 {
		c.Events = append(c.Events, store.Event{At: start, Node: "node01", Event: node.EventBooted, From: node.Pending, To: node.Provisioning, Reason: fmt.Sprint(i)})
	}
	interrupted := c
	interrupted.Nodes, interrupted.Events, interrupted.Audit = c.Nodes[:1], c.Events[:120], nil
	for _, part := range []backup.Content{interrupted, c, c} {
		if err := backup.Restore(t.Context(), s, part); err != nil {
			t.Fatal(err)
		}
	}
	var file bytes.Buffer
	if _, unreadable, err := backup.Write(t.Context(), &file, s.Reopen(), start); err != nil || len(unreadable) > 0 {
		t.Fatal(unreadable, err)
	}
	if got, err := backup.Read(&file); err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("%v; got\n%+v, want\n%+v", err, got, c)
	}
}

// restoredOverEvents: a store with events of its own is left as it is, and a backup that
// has none, of an older version, gives the last one of each node.
func restoredOverEvents(t *testing.T, s Opened) {
	if err := s.Append(t.Context(), store.Event{At: start, Event: store.EventManifest, Reason: "own"}); err != nil {
		t.Fatal(err)
	}
	c := backup.Content{Nodes: []node.Node{Full("node01")}, Made: start.Add(time.Hour)}
	if err := backup.Restore(t.Context(), s, c); err == nil || !strings.Contains(err.Error(), "the store has events that the backup has not") {
		t.Errorf("over events: %v", err)
	}
	if nodes := list(t, s); len(nodes) > 0 {
		t.Errorf("it was written all the same: %+v", nodes)
	}
	c.NoLogs = true
	if err := backup.Restore(t.Context(), s, c); err != nil {
		t.Error(err)
	}
	if all, _ := events(t, s, "", 10); !reflect.DeepEqual(all, []string{"own", "late"}) {
		t.Errorf("events: %q", all)
	}
}
