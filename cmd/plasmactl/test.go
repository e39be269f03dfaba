package main

import (
	"github.com/spf13/cobra"
)

func testCommand() *cobra.Command {
	var flags labFlags
	var result resultFlags
	var play playFlags
	cmd := &cobra.Command{
		Use:   "test [SCENARIO...]",
		Short: "Test a cluster: evaluate it, check its daemons' files, run it in a lab, play scenarios",
		Long: `Tests a cluster's definition with one command, for CI:

  the evaluation, with the assertions of the cluster and of its modules; what NixOS
  refuses to build a machine for, such as a disk that is missing, is a warning;
  what each daemon's own checker says of the file that Nix made for it;
  the lab: all that "plasmactl lab run" checks;
  the scenarios that are named, or "all".
` + exitStatuses,
		Example: `  plasmactl test --flake .
  plasmactl test --flake . vip-drains rolling-reload --junit test.xml
  plasmactl test --flake . all --runs 3 -o json > test.json`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeScenarios,
		RunE: func(cmd *cobra.Command, args []string) error {
			console := newConsole(cmd)
			defer console.Close()
			cfg, err := flags.config(cmd, console)
			if err != nil {
				return err
			}
			cfg.Checkers = true
			return runLab(cmd, cfg, result, play, args)
		},
	}
	flags.register(cmd)
	result.register(cmd)
	play.register(cmd)
	return cmd
}
