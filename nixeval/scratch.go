package nixeval

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
)

// scratchDir makes a folder whose name says what process it belongs to.
func scratchDir(what string) (string, error) { return os.MkdirTemp("", pattern(what)) }

// ScratchFile makes a file of this process, which [RemoveScratch] removes once that has ended.
func ScratchFile() (string, error) {
	file, err := os.CreateTemp("", pattern("eval"))
	if err != nil {
		return "", err
	}
	return file.Name(), file.Close()
}

func pattern(what string) string { return fmt.Sprintf("plasmacloud-%s-%d-", what, os.Getpid()) }

var scratchName = regexp.MustCompile(`^plasmacloud-(?:eval|flake)-([0-9]+)-[0-9]+$`)

// RemoveScratch removes what evaluations of this user have left behind that were
// killed.
func RemoveScratch() error {
	entries, err := filepath.Glob(filepath.Join(os.TempDir(), "plasmacloud-*"))
	for _, dir := range entries {
		name := scratchName.FindStringSubmatch(filepath.Base(dir))
		if name == nil {
			continue
		}
		if _, alive := os.Stat("/proc/" + name[1]); alive == nil {
			continue
		}
		info, gone := os.Stat(dir)
		if gone != nil || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
			continue
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}
