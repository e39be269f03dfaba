// Command plasmactl is the operator's command line for a PlasmaCloud cluster.
package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/cmd/internal/command"
	"github.com/centra/plasmacloud/cmd/internal/daemon"
)

func main() {
	ctx, stop := daemon.SignalContext(context.Background())
	defer stop()
	daemon.Exit("plasmactl", rootCommand().ExecuteContext(ctx))
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "plasmactl",
		Short: "Operate a PlasmaCloud cluster",
		Long: `plasmactl evaluates a cluster's Nix definition, shows what the deployer knows
of its nodes and gives orders about them, drains the VIPs of the host that it runs on, and
runs a cluster on this machine: as a demo of the whole way from definition to BGP route,
or as a lab that checks what every router and node does.`,
		Example: `  plasmactl eval --flake ./my-cluster     what the definition says
  plasmactl status                        the fleet at a glance
  plasmactl node list                     what the deployer knows
  plasmactl node hold node03              stand against its installation
  plasmactl events --follow               what happens to them
  plasmactl vip list                      what this host's announcer does (as root)
  plasmactl vip events --follow           what happens to its VIPs
  plasmactl demo                          all of it, here, in half a minute
  plasmactl lab run --flake ./my-cluster  every node and router of it, here, and checked
  plasmactl test --flake ./my-cluster     the same in CI, and what the daemons say of their files
  source <(plasmactl completion bash)     completion for this shell`,
	}
	root.AddCommand(evalCommand(), nodeCommand(), vipCommand(), planCommand(), eventsCommand(), statusCommand(), tokenCommand(), auditCommand(), simulateCommand(), demoCommand(), labCommand(), testCommand())
	return command.Prepare(root)
}
