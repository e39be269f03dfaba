package nixeval

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// flakeRef is a flake reference that was split where we have to look inside.
type flakeRef struct {
	given    string // as the user wrote it, without the fragment
	fragment string // after '#', may be empty
	plain    bool   // just a folder, no scheme and no query
	dir      string // the folder of flake.nix, absolute; empty for a flake that is not local
}

// parseRef splits REF[#FRAGMENT]. Only local folders are looked at; what another
// reference means is for Nix to say.
func parseRef(ref string) (flakeRef, error) {
	given, fragment, _ := strings.Cut(ref, "#")
	if given == "" {
		given = "."
	}
	out := flakeRef{given: given, fragment: fragment}

	path := given
	for _, scheme := range []string{"path:", "git+file:"} {
		if rest, ok := strings.CutPrefix(given, scheme); ok {
			path = strings.TrimPrefix(rest, "//")
		}
	}
	out.plain = path == given && !strings.Contains(path, "?")
	path, query, _ := strings.Cut(path, "?")
	if strings.Contains(path, ":") {
		return out, nil
	}
	if sub, ok := strings.CutPrefix(query, "dir="); ok {
		path = filepath.Join(path, sub)
	} else if query != "" {
		return out, nil
	}
	dir, err := filepath.Abs(path)
	if err != nil {
		return out, err
	}
	if _, err := os.Stat(filepath.Join(dir, "flake.nix")); err != nil {
		if path == given && !strings.HasPrefix(path, ".") && !strings.HasPrefix(path, "/") {
			return out, nil // perhaps an entry of Nix' flake registry
		}
		return out, fmt.Errorf("no flake.nix in %s: give the folder of a cluster's flake, such as nix/examples/three-nodes", dir)
	}
	out.dir = dir
	return out, nil
}

// lockFile is the part of flake.lock (version 7) that we read.
type lockFile struct {
	Root  string              `json:"root"`
	Nodes map[string]lockNode `json:"nodes"`
}

type lockNode struct {
	Inputs map[string]any  `json:"inputs"`
	Locked map[string]any  `json:"locked"`
	Parent json.RawMessage `json:"parent"`
}

// hasRelativeInputs tells whether the lock has inputs of the form path:./dir,
// which Nix before 2.26 refuses as "mutable".
func (l lockFile) hasRelativeInputs() bool {
	for _, node := range l.Nodes {
		if node.Parent != nil {
			return true
		}
	}
	return false
}

// pins gives each direct input that the lock pins to a revision, by name, as a
// flake reference.
func (l lockFile) pins() map[string]string {
	pins := map[string]string{}
	for name, key := range l.Nodes[l.Root].Inputs {
		key, ok := key.(string)
		if !ok {
			continue // a list: the input follows another
		}
		locked := l.Nodes[key].Locked
		text := func(field string) string { s, _ := locked[field].(string); return s }
		switch typ := text("type"); typ {
		case "github", "gitlab", "sourcehut":
			pins[name] = fmt.Sprintf("%s:%s/%s/%s", typ, text("owner"), text("repo"), text("rev"))
		case "git":
			pins[name] = fmt.Sprintf("git+%s?rev=%s", text("url"), text("rev"))
		case "tarball":
			pins[name] = text("url")
		}
	}
	return pins
}

func readLock(dir string) (lockFile, error) {
	var lock lockFile
	name := filepath.Join(dir, "flake.lock")
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return lock, nil
	}
	if err != nil {
		return lock, err
	}
	if err := json.Unmarshal(raw, &lock); err != nil {
		return lock, fmt.Errorf("%s is not a lock file: %w", name, err)
	}
	return lock, nil
}

// sourceRoot is the git work tree that holds dir, or dir itself.
func sourceRoot(dir string) (root string, isGit bool) {
	for at := dir; ; at = filepath.Dir(at) {
		// A file in a work tree beside the first (git-worktree(1)), and in a submodule.
		if _, err := os.Stat(filepath.Join(at, ".git")); err == nil {
			return at, true
		}
		if at == filepath.Dir(at) {
			return dir, false
		}
	}
}

// copyFlake copies the tree that holds the flake in dir to the folder into, and
// its lock file only where asked to: Nix before 2.26 evaluates a copy without
// one where it refuses the original. In a git checkout the copy has the tracked
// files only, as a flake has. It returns a flake reference to the copy.
func copyFlake(dir, into string, withLock bool) (string, error) {
	root, isGit := sourceRoot(dir)
	var files []string
	if isGit {
		out, err := exec.Command("git", "-c", "safe.directory=*", "-C", root, "ls-files", "-z", "--cached").Output()
		if err != nil {
			return "", fmt.Errorf("list the tracked files of %s: %w", root, err)
		}
		files = strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	} else {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				rel, _ := filepath.Rel(root, path)
				files = append(files, rel)
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}

	sub, err := filepath.Rel(root, dir)
	if err != nil {
		return "", err
	}
	for _, file := range files {
		if !withLock && file == filepath.Join(sub, "flake.lock") {
			continue
		}
		if err := copyFile(filepath.Join(root, file), filepath.Join(into, file)); err != nil {
			return "", err
		}
	}
	return "path:" + filepath.Join(into, sub), nil // Nix 2.8 knows no path:...?dir=
}

func copyFile(from, to string) error {
	info, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // tracked, but removed from the work tree
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case !info.Mode().IsRegular():
		return nil // a submodule's folder, a socket, a pipe
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode().Perm()|0o200)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
