// plasmacloud-deployer keeps the registry of a cluster's nodes: who is declared,
// who phoned home, and where each one stands.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/cmd/internal/command"
	process "github.com/centra/plasmacloud/cmd/internal/daemon"
)

const name = "plasmacloud-deployer"

func main() {
	ctx, stop := process.SignalContext(context.Background())
	defer stop()
	process.Exit(name, run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   name,
		Short: "Keep the registry of a cluster's nodes",
		Long: `plasmacloud-deployer keeps the registry of a cluster's nodes. Nodes phone home to it,
operators ask it who is there, and it survives a crash with nothing lost.

Exit statuses:
  0   done; serve: ended by a signal
  1   the work failed, or something is wrong with a backup or a store
  64  the command line is wrong
  78  the configuration, or a file that it names, is wrong or cannot be read`,
	}
	root.AddCommand(serveCommand(), checkCommand(), resetCommand(), decommissionCommand(),
		backupCommand(), restoreCommand(), verifyCommand())
	return command.Prepare(root)
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file and the files that it names",
		Long: `Check a configuration file and the files that it names (manifest, certificates, keys,
tokens, password), as serve would, without serving and without touching the store. Exit
status 78 means a mistake in one of them.`,
		Example: "  plasmacloud-deployer check /etc/plasmacloud/deployer.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := readConfig(args[0], true)
			if err != nil {
				return err
			}
			if err := cfg.check(); err != nil {
				return process.ConfigError(fmt.Errorf("configuration %s: %w", args[0], err))
			}
			if _, err := openFiles(cfg, slog.New(slog.DiscardHandler)); err != nil {
				return err
			}
			if _, err := cfg.Store.load(nil); err != nil {
				return err
			}
			manifest, err := readManifest(cfg.Manifest)
			if err != nil {
				return err
			}
			if cfg.Manifest == "" {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, no manifest, up to %d nodes may join\n", args[0], cfg.MaxUnknownNodes)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, cluster %s with %d nodes\n", args[0], manifest.cluster, len(manifest.nodes))
			return nil
		},
	}
}
