package bolt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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

// TestRemoveHalf: what is removed of a first start that failed is never a store.
func TestRemoveHalf(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := Open(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	removeHalf(path)
	if _, err := os.Stat(path); err != nil {
		t.Error("a store was removed:", err)
	}
	if err := os.Truncate(path, int64(3*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	removeHalf(path)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("half of one was not removed:", err)
	}
}
