package store_test

import (
	"errors"
	"testing"

	"github.com/centra/plasmacloud/deployer/store"
)

// FuzzReadCursor: a cursor comes from whoever asks. It is one that MakeCursor made, or
// an error.
func FuzzReadCursor(f *testing.F) {
	f.Add("YG3C5XTA.1")
	f.Add("YG3C5XTA.1.2")
	f.Add("YG3C5XTA.-1")
	f.Add("OTHER.9223372036854775807")
	f.Fuzz(func(t *testing.T, cursor string) {
		for want := 1; want <= 2; want++ {
			numbers, err := store.ReadCursor(cursor, "YG3C5XTA", want)
			if err != nil {
				if !errors.Is(err, store.ErrBadCursor) && !errors.Is(err, store.ErrCursorGone) {
					t.Fatal(err)
				}
				continue
			}
			for _, n := range numbers {
				if n < 0 {
					t.Fatalf("%q has %d in it", cursor, n)
				}
			}
			again, err := store.ReadCursor(store.MakeCursor("YG3C5XTA", numbers...), "YG3C5XTA", want)
			if err != nil || len(again) != want {
				t.Fatalf("%q is %v, and that is no cursor: %v", cursor, numbers, err)
			}
		}
	})
}

// FuzzDecode: whatever a store has in place of a record or of events, reading it ends
// with a node or a token, or with an error that names the record; and with events.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id": "node01", "state": "Active", "since": "2026-03-01T12:00:00Z", "history": [{"from": "Pending"}]}`))
	f.Add([]byte(`{"id": "node01", "state": "Gone"}`))
	f.Add([]byte(`[{"event": "ready"}]`))
	f.Add([]byte(`{"name": "row2", "hash": "sha256:00", "uses": 40, "created": "2026-03-01T12:00:00Z"}`))
	f.Add([]byte(`{"name": "row2", "hash": ""}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		n, err := store.Decode("node01", "nodes/node01", value)
		var corrupt *store.CorruptError
		if err == nil && n.ID != "node01" || err != nil && (!errors.As(err, &corrupt) || corrupt.ID != "node01") {
			t.Fatalf("%+v, %v", n, err)
		}
		token, err := store.DecodeToken("row2", "tokens/row2", value)
		if err == nil && (token.Name != "row2" || token.Hash == "") || err != nil && (!errors.As(err, &corrupt) || corrupt.Token != "row2") {
			t.Fatalf("%+v, %v", token, err)
		}
		for _, e := range store.DecodeEvents(value) {
			if e.Event == store.EventUnreadable && e.Reason == "" {
				t.Fatal("unreadable, and nobody knows why")
			}
		}
	})
}
