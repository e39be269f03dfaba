// Command plasmacloud-announcer keeps a host's load-balancer VIPs announced over BGP.
package main

import (
	"os"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
)

func main() {
	daemon.Exit("plasmacloud-announcer", newCommand(os.Stderr).Execute())
}
