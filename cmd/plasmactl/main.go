// Command plasmactl is the operator's command line for a PlasmaCloud cluster.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

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
of its nodes, and runs the whole way from definition to BGP route on this
machine as a demo.`,
		Example: `  plasmactl eval --flake ./my-cluster     what the definition says
  plasmactl node list                     what the deployer knows
  plasmactl demo                          all of it, here, in half a minute
  source <(plasmactl completion bash)     completion for this shell`,
		Version:       daemon.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("plasmactl {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return daemon.UsageError(fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath()))
	})
	root.SetOut(os.Stdout)
	root.AddCommand(evalCommand(), nodeCommand(), demoCommand())
	return root
}
