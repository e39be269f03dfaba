package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/centra/plasmacloud/nixeval"
)

const (
	// namespaceVariable tells a command that it is in a user namespace of ours, which is
	// fresh, or furnished.
	namespaceVariable = "PLASMACLOUD_USER_NAMESPACE"
	fresh             = "fresh"
	furnished         = "furnished"
	// keptVariable is the file with what was evaluated before there was no network any
	// more, and spentVariable how long that took.
	keptVariable  = "PLASMACLOUD_EVALUATED"
	spentVariable = "PLASMACLOUD_SPENT"
)

// asRoot returns where this process may make network namespaces, and replaces it by itself
// in a user namespace where it may not. There is no network there, so evaluate is called
// before, with what keeps its result for the evaluation there. It returns the command that
// enters the user namespace, if we are in one.
func asRoot(ctx context.Context, cmd *cobra.Command, what string, cfg nixeval.Config, evaluate func(*nixeval.Evaluator) error) (string, error) {
	if os.Geteuid() == 0 {
		return enterUs()
	}
	unshare, err := findUserNamespace(ctx)
	if err != nil {
		return "", err
	}
	if evaluate == nil {
		return "", inUserNamespace(cmd, what, unshare)
	}
	begin := time.Now()
	if cfg.Keep, err = nixeval.ScratchFile(); err != nil {
		return "", err
	}
	defer os.Remove(cfg.Keep) //nolint:errcheck // where all goes well, another program reads it
	if err := evaluate(nixeval.New(cfg)); err != nil {
		return "", err
	}
	return "", inUserNamespace(cmd, what, unshare, keptVariable+"="+cfg.Keep, spentVariable+"="+time.Since(begin).String())
}

// findUserNamespace is the command that makes a user namespace with a network and mounts
// of its own.
func findUserNamespace(ctx context.Context) ([]string, error) {
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return nil, fmt.Errorf("root is needed to make network namespaces: run it as root, or install util-linux for a user namespace: %w", err)
	}
	namespace := []string{unshare, "--user", "--map-root-user", "--net", "--mount"}
	try := func(command []string) ([]byte, error) {
		return exec.CommandContext(ctx, command[0], append(slices.Clone(command[1:]), "true")...).CombinedOutput()
	}
	// With a range of ids of its own (Debian: package uidmap) there are other users
	// too, which FRR wants.
	more := append(slices.Clone(namespace), "--map-auto")
	if _, err := try(more); err == nil {
		return more, nil
	}
	if out, err := try(namespace); err != nil {
		return nil, fmt.Errorf("root is needed to make network namespaces, and this kernel gives no user namespace to others: run it as root (%w: %s)", err, out)
	}
	return namespace, nil
}

// inUserNamespace replaces this process by itself as root of a user namespace; what is
// what runs there, for the user.
func inUserNamespace(cmd *cobra.Command, what string, unshare []string, env ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "plasmactl: root is needed to make network namespaces; as another user, %s runs in a user namespace\n", what)
	args := append(append(slices.Clone(unshare), "--", self), os.Args[1:]...)
	return syscall.Exec(unshare[0], args, append(os.Environ(), append(env, namespaceVariable+"="+fresh)...))
}

// enterUs is the command that enters the user namespace that we are in, if we are, which
// is furnished if it is fresh.
func enterUs() (string, error) {
	switch os.Getenv(namespaceVariable) {
	case "":
		return "", nil
	case fresh:
		if err := errors.Join(furnish(), os.Setenv(namespaceVariable, furnished)); err != nil {
			return "", fmt.Errorf("furnish the user namespace: %w", err)
		}
	}
	return fmt.Sprintf("nsenter --target %d --user --net --mount --preserve-credentials", os.Getpid()), nil
}

// furnish brings the loopback up, and gives us a /run that we may write to, as ip netns
// does. What else is in /run stays where it is: NixOS has its programs there.
func furnish() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "plasmacloud-run-")
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	entries, err := os.ReadDir("/run")
	for _, entry := range entries {
		if slices.Contains([]string{"netns", "frr"}, entry.Name()) {
			continue // ours to make
		}
		// What we may not see is not there.
		_ = bring(entry, filepath.Join("/run", entry.Name()), filepath.Join(dir, entry.Name()))
	}
	return errors.Join(err, unix.Mount(dir, "/run", "", unix.MS_MOVE, ""), os.Remove(dir))
}

// bring has at the path to what is at the path from.
func bring(entry os.DirEntry, from, to string) error {
	switch {
	case entry.Type()&os.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case entry.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(to, nil, 0o600); err != nil {
			return err
		}
	}
	return unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
}
