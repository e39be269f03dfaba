package api

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzReadStream: whatever comes from what is taken for a deployer, the cursor is that of
// the last event that was handed over, and a problem does not drive the terminal.
func FuzzReadStream(f *testing.F) {
	for _, seed := range []string{
		": events\n\nid: A.1\ndata: {\"cursor\":\"A.1\",\"node_id\":\"node01\",\"event\":\"ready\"}\n\n: heartbeat\n\n",
		"event: problem\ndata: {\"title\":\"Gone\\u001b[2J\",\"status\":410,\"code\":\"cursor_gone\"}\n\n",
		"event: problem\n\ndata: {}\r\n", "data: [\n", "data: " + strings.Repeat("x", maxEventLine), "\x00\xff",
	} {
		f.Add([]byte(seed), 1)
	}
	stop := errors.New("enough")
	f.Fuzz(func(t *testing.T, text []byte, most int) {
		cursor, last, lines, events := "before", "before", 0, 0
		err := readStream(strings.NewReader(string(text)), func() { lines++ }, &cursor, func(e Event) error {
			if events++; events == most {
				return stop
			}
			last = e.Cursor
			return nil
		})
		if cursor != last || events > lines {
			t.Errorf("%d events of %d lines, the cursor is %q and that of the last event %q", events, lines, cursor, last)
		}
		var problem *Error
		if errors.As(err, &problem) && (problem.Error() != printable(problem.Error()) || !utf8.ValidString(problem.Error())) {
			t.Errorf("%q", problem.Error())
		}
		var stopped *stopError
		if errors.As(err, &stopped) != (events == most && most > 0) {
			t.Errorf("%v after %d events of %d", err, events, most)
		}
	})
}
