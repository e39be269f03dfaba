package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/demo"
)

func demoCommand() *cobra.Command {
	var flags evalFlags
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the whole way, from Nix definition to BGP route, on this machine",
		Long: `Runs the whole way on this machine, with the real programs, and tells each step
and its time: evaluates the cluster, starts a BGP speaker on 127.0.0.1:50051 and
a second one as the router, starts the deployer, boots the nodes' phone-home
clients until all are Active, announces the VIPs, makes one health check fail
and recover, and at the end withdraws and lets go of everything.

Root is needed to make a network namespace and to hold the VIPs in it. For
anybody else the demo runs in a user namespace, where nobody outside can reach it.

Exit status: 0 all of it worked; 1 it did not; 64 the command line is wrong.`,
		Example: `  plasmactl demo --flake .#three-nodes
  plasmactl demo --flake ./my-cluster --keep`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			eval, err := flags.config(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			inside, err := asRoot(cmd.Context(), cmd, "all of the demo", eval, func(e *nixeval.Evaluator) error {
				_, err := e.Eval(cmd.Context(), flags.flake)
				return err
			})
			if err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			return demo.Run(cmd.Context(), demo.Config{
				Flake: flags.flake,
				Eval:  eval,
				Bin:   filepath.Dir(self),
				Keep:  keep,
				Out:   cmd.OutOrStdout(),
				Enter: inside,
				Table: printTable,
			})
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&keep, "keep", false, "go on serving until Ctrl-C")
	return cmd
}
