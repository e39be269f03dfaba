package server

import (
	"strings"
	"testing"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
)

// FuzzReadDigest: a cursor of WatchNodes comes from whoever asks. It is refused, or a
// watcher that has it is sent every node that it lacks.
func FuzzReadDigest(f *testing.F) {
	views := []deployer.View{{Node: node.Node{ID: "node01"}}, {Node: node.Node{ID: "node02"}}}
	marks := newMarks(views)
	f.Add(marks.buckets.cursor())
	f.Add(digest{}.cursor())
	f.Add(cursorPrefix + strings.Repeat("A", 682))
	f.Add("")
	f.Fuzz(func(t *testing.T, cursor string) {
		has, ok := readDigest(cursor)
		if !ok {
			return
		}
		if again, ok := readDigest(has.cursor()); !ok || again != has || len(cursor) < len(cursorPrefix)+64 {
			t.Fatalf("%q is %v, and that is no cursor", cursor, has)
		}
		lacks := 0
		for _, v := range views {
			if b := bucket(v.ID); has[b] != marks.buckets[b] {
				lacks++
			}
		}
		if changed := marks.changed(nil, has); len(changed) != lacks {
			t.Fatalf("%v of %d", changed, lacks)
		}
	})
}
