package nixeval

import (
	"errors"
	"os"
	"path/filepath"
)

// CopiedFlake is a copy of a local flake.
type CopiedFlake struct {
	Dir string // to be removed
	Ref string // the reference to the copy, with the fragment of the original
}

// CopyFlake copies the flake that ref names, a local one, with some of its files
// replaced: those beside its flake.nix, by name. Each of them must be there.
func CopyFlake(ref string, replace map[string]string) (*CopiedFlake, error) {
	flake, err := parseRef(ref)
	if err != nil {
		return nil, err
	}
	if flake.dir == "" {
		return nil, errors.New("only a flake in a local folder can be changed for a while")
	}
	dir, err := scratchDir("flake")
	if err != nil {
		return nil, err
	}
	copied := &CopiedFlake{Dir: dir}
	if copied.Ref, err = copyFlake(flake.dir, filepath.Join(dir, "source"), true); err == nil {
		root, _ := sourceRoot(flake.dir)
		sub, _ := filepath.Rel(root, flake.dir)
		for name, text := range replace {
			file := filepath.Join(dir, "source", sub, filepath.Clean("/"+name))
			if _, statErr := os.Stat(file); statErr != nil {
				err = errors.Join(err, statErr)
				continue
			}
			err = errors.Join(err, os.WriteFile(file, []byte(text), 0o600))
		}
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if flake.fragment != "" {
		copied.Ref += "#" + flake.fragment
	}
	return copied, nil
}
