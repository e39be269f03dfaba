package control

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// Share lets the group open the socket too. Whoever does is asked for credentials all
// the same, so this is for root without its capabilities: a service that reads the state.
func Share(socket, group string) error {
	g, err := user.LookupGroup(group)
	if err != nil {
		return fmt.Errorf("group of %s: %w", socket, err)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("group of %s: %w", socket, err)
	}
	// In this order, so that no other group may ever open it.
	return errors.Join(os.Chown(socket, -1, gid), os.Chmod(socket, 0o660))
}
