package bolt

import (
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

// TestOpenErrorNamesTheMend has the errors that a test cannot bring about on every machine.
func TestOpenErrorNamesTheMend(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.EROFS:  "/x/state.db is on a filesystem that is mounted read-only; mount it for writing, or set store.path",
		syscall.EACCES: "no permission to write /x/state.db; run this as the user who owns it",
		syscall.EPERM:  "no permission to write /x/state.db",
		syscall.EISDIR: "/x/state.db is a directory; set store.path to a file in it",
	} {
		err := openError("/x/state.db", &fs.PathError{Op: "open", Path: "/x/state.db", Err: errno})
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q in it", errno, err, want)
		}
	}
}
