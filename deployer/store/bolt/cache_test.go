package bolt

import (
	"testing"

	"github.com/centra/plasmacloud/deployer/node"
)

// TestCache: what was read before a transaction is not kept after it, and what a
// transaction that failed was about is read anew.
func TestCache(t *testing.T) {
	c := newCache()
	old, changed := &node.Node{ID: "n", Attempt: 1}, &node.Node{ID: "n", Attempt: 2}
	want := func(step string, record *node.Node) {
		t.Helper()
		if k, _ := c.get("n"); k.record != record {
			t.Errorf("%s: the cache has %v, want %v", step, k.record, record)
		}
	}

	since := c.now()
	c.add("n", kept{record: old}, since)
	want("read", old)

	since = c.now()
	c.publish(map[string]kept{"n": {record: changed}}, true)
	want("changed", changed)
	c.add("n", kept{record: old}, since)
	want("read before the change, added after it", changed)

	since = c.now()
	c.publish(map[string]kept{"n": {record: old}}, false)
	want("not committed", nil)
	c.add("n", kept{record: old}, since)
	want("read before the failure", nil)

	since = c.now()
	c.add("n", kept{record: changed}, since)
	want("read anew", changed)
	c.clear()
	want("closed", nil)
	c.add("n", kept{record: old}, since)
	want("read before it was closed", nil)
}
