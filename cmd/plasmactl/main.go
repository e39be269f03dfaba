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
or as a lab that checks what every router and node does.

Exit status:
  0   done, or all is as it has to be
  1   the work failed, or something is not as it has to be
  2   plan: there is something to do
  64  the command line is wrong
  69  lab, test: this machine lacks what a lab needs, or a lab of the name stands
  78  a file with a token, a certificate or a key is wrong, or cannot be read

lab exec ends with the status of the command that it runs.`,
		Example: `  plasmactl eval --flake ./my-cluster     what the definition says
  plasmactl status                        the fleet at a glance
  plasmactl node list                     what the deployer knows
  plasmactl node hold node03              stand against its installation
  plasmactl events --follow               what happens to them
  plasmactl vip list                      what this host's announcer does
  plasmactl vip events --follow           what happens to its VIPs
  plasmactl demo                          all of it, here, in half a minute
  plasmactl lab run --flake ./my-cluster  its nodes and routers, here, checked
  plasmactl test --flake ./my-cluster     the same and more, for CI
  source <(plasmactl completion bash)     completion for this shell`,
	}
	root.AddCommand(evalCommand(), nodeCommand(), vipCommand(), planCommand(), eventsCommand(), statusCommand(), tokenCommand(), auditCommand(), simulateCommand(), demoCommand(), labCommand(), testCommand())
	return command.Prepare(root)
}
