package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockPatience is far longer than anybody needs to read a file and to replace it.
const lockPatience = 5 * time.Second

// LockThere is Lock where there is a file, and else nil: then there is nothing to undo.
func LockThere(file string) (unlock func(), err error) {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return Lock(file)
}

// Lock keeps others who Lock a file of the same folder waiting until unlock, so that what
// was read of it is still so when it is replaced. The lock is flock(2) of the folder, since
// Replace makes the file anew, and leaves nothing behind.
func Lock(file string) (unlock func(), err error) {
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockPatience); ; time.Sleep(5 * time.Millisecond) {
		err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: not locked within %s: %w; who keeps it locked, fuser(1) says", dir.Name(), lockPatience, err), dir.Close())
	}
	return func() { _ = dir.Close() }, nil
}
