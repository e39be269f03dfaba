package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
)

// enterVariable tells a command in a user namespace how to get there from outside.
const enterVariable = "PLASMACLOUD_DEMO_ENTER"

// inUserNamespace replaces this process by itself as root of a user namespace
// with a network and a /run of its own; what is what runs there, for the user.
func inUserNamespace(cmd *cobra.Command, what string) error {
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return fmt.Errorf("root is needed to make network namespaces: run it as root, or install util-linux for a user namespace: %w", err)
	}
	namespace := []string{"--user", "--map-root-user", "--net", "--mount"}
	try := func(args []string) ([]byte, error) {
		return exec.CommandContext(cmd.Context(), unshare, append(slices.Clone(args), "true")...).CombinedOutput()
	}
	// With a range of ids of its own (Debian: package uidmap) there are other users
	// too, which FRR wants.
	if more := append(slices.Clone(namespace), "--map-auto"); true {
		if _, err := try(more); err == nil {
			namespace = more
		} else if out, err := try(namespace); err != nil {
			return fmt.Errorf("root is needed to make network namespaces, and this kernel gives no user namespace to others: run it as root (%w: %s)", err, out)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "plasmactl: root is needed to make network namespaces; as another user, %s runs in a user namespace\n", what)
	args := append([]string{"unshare"}, namespace...)
	args = append(args, "--", "sh", "-c", "ip link set lo up && mount -t tmpfs tmpfs /run && "+
		enterVariable+`="nsenter --target $$ --user --net --mount --preserve-credentials" exec "$@"`, "sh", self)
	return syscall.Exec(unshare, append(args, os.Args[1:]...), os.Environ())
}
