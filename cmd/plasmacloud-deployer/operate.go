package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	process "github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// These work on the store and not on the API, for a deployer that has no operators'
// tokens or does not start: who may write the store is an operator. A bbolt file has one
// owner, so with it they run while the deployer is stopped.

func resetCommand() *cobra.Command {
	return operatorCommand(&cobra.Command{
		Use:   "reset NODE",
		Short: "Let a node be provisioned anew, on any machine",
		Long: `Let a node be provisioned anew, on any machine: it is pending again, no machine is bound
to it, and the installer may write its disk. Use it to install an active node again and
to bring a decommissioned one back. Run it with the node switched off: a node that is up
reports itself ready again. With a bbolt store the deployer has to be stopped.`,
		Example: `  systemctl stop plasmacloud-deployer
  plasmacloud-deployer reset node03 --reason "new disks"
  systemctl start plasmacloud-deployer`,
	}, node.EventReset)
}

func decommissionCommand() *cobra.Command {
	return operatorCommand(&cobra.Command{
		Use:   "decommission NODE",
		Short: "Take a node out: its reports are refused until it is reset",
		Long: `Take a node out: its record stays and its reports are refused until it is reset. With a
bbolt store the deployer has to be stopped.`,
		Example: `  plasmacloud-deployer decommission node03 --reason "sold"`,
	}, node.EventDecommission)
}

func operatorCommand(cmd *cobra.Command, verb node.Event) *cobra.Command {
	var reason string
	cmd.Args = cobra.ExactArgs(1)
	storeCommand(cmd, func(ctx context.Context, at *storeConfig, args []string, out io.Writer) error {
		return operate(ctx, at, args[0], reason, verb, out)
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why, a `TEXT` for the node's history")
	return cmd
}

// storeCommand gives cmd the flags that name a store, and work that store.
func storeCommand(cmd *cobra.Command, work func(ctx context.Context, at *storeConfig, args []string, out io.Writer) error) *cobra.Command {
	var path, storePath string
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := readConfig(path, cmd.Flags().Changed("config"))
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("store") {
			cfg.Store = boltStore(storePath)
		}
		if err := cfg.Store.check(); err != nil {
			return process.ConfigError(fmt.Errorf("configuration %s: %w", path, err))
		}
		return work(cmd.Context(), &cfg.Store, args, cmd.OutOrStdout())
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&path, "config", defaultConfigPath, "configuration `FILE`; the default one may be missing")
	cmd.Flags().StringVar(&storePath, "store", "", "bbolt `FILE` of the deployer, over the file's store")
	return cmd
}

func operate(ctx context.Context, at *storeConfig, id, reason string, verb node.Event, out io.Writer) (err error) {
	nodeStore, err := at.openExisting(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, nodeStore.Close()) }()
	registry, err := deployer.New(ctx, deployer.Config{Store: nodeStore, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("store %s: %w", at, err)
	}
	n, err := registry.Operate(ctx, id, verb, deployer.Operator{Name: "plasmacloud-deployer"}, reason)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("the store %s has no node %q", at, id)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: %s\n", n.ID, n.State)
	return err
}
