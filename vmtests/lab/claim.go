package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrBusy says that a lab of the name runs.
var ErrBusy = errors.New("a lab of this name runs already")

// Name is what a lab may be called: it is part of paths of sockets.
var Name = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,23}$`)

// pidFile is in the folder of a lab that claims its name, and has its process. No host is
// called so, which has a folder beside it.
const pidFile = "lab.pid"

// claimed is the number of a lab that is alone in having its name.
const claimed = "-0"

// Claim makes an empty lab that is the only one of its name, [ErrBusy] if there is
// one. What a killed one has left behind goes first.
func Claim(name string) (*Lab, error) {
	if !Name.MatchString(name) {
		return nil, fmt.Errorf("%q is no name of a lab: want at most 24 small letters, digits and -", name)
	}
	if err := RemoveStale(name); err != nil {
		return nil, err
	}
	dir := folderOf(name)
	making, lock, err := newDir(name)
	if err == nil {
		// A folder takes the place of another one only if that is empty.
		err = os.WriteFile(filepath.Join(making, pidFile), fmt.Appendln(nil, os.Getpid()), 0o600)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Rename(making, dir); err != nil {
		err = errors.Join(lock.Close(), os.RemoveAll(making), err)
		if _, exists := os.Stat(dir); exists == nil {
			return nil, fmt.Errorf("%w: %s", ErrBusy, name)
		}
		return nil, err
	}
	return &Lab{Dir: dir, id: labID(dir), lock: lock}, nil
}

func folderOf(name string) string { return filepath.Join(os.TempDir(), prefix+name+claimed) }

// Find is the folder of the lab that claims the name, and whether its process runs.
// Without one, the error is [os.ErrNotExist].
func Find(name string) (dir string, running bool, err error) {
	return FindDir(folderOf(name))
}

// FindDir is Find for a folder that was found before.
func FindDir(dir string) (string, bool, error) {
	if _, err := os.Stat(dir); err != nil {
		return "", false, err
	}
	running, lock := runs(dir)
	if lock != nil {
		lock.Close()
	}
	return dir, running, nil
}

// PID is the process of a lab that claims its name.
func PID(dir string) (int, error) {
	text, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 2 {
		return 0, fmt.Errorf("%s: %q is no process", filepath.Join(dir, pidFile), text)
	}
	return pid, nil
}

// Claims are the names of all labs of this user that claim theirs, running or left behind.
func Claims() ([]string, error) {
	dirs, err := folders("*")
	var names []string
	for _, dir := range dirs {
		if !ours(dir) {
			continue
		}
		if name, is := strings.CutSuffix(strings.TrimPrefix(filepath.Base(dir), prefix), claimed); is {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, err
}

// ours tells whether a folder is there, and this user's.
func ours(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.Sys().(*syscall.Stat_t).Uid == uint32(os.Geteuid())
}

// removeHalfMade removes the folders of labs that were killed before these had their names.
func removeHalfMade(name string) error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), making+prefix+name+"-*"))
	for _, dir := range dirs {
		info, statErr := os.Stat(dir)
		if statErr != nil || time.Since(info.ModTime()) < time.Second || !ours(dir) {
			continue // gone by now, being made, or another user's
		}
		if alive, lock := runs(dir); !alive && lock != nil {
			err = errors.Join(err, os.RemoveAll(dir), lock.Close())
		}
	}
	return err
}
