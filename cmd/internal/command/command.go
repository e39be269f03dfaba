// Package command gives the cobra commands of all binaries the same manners:
// one-line errors, exit status 64 for a wrong command line, the same --version.
package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
)

// Prepare sets up a root command and all of its subcommands. Call it last.
func Prepare(root *cobra.Command) *cobra.Command {
	root.Version = daemon.Version()
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", ".FlagUsagesWrapped 80 "))
	root.SetFlagErrorFunc(usage)
	checkArguments(root)
	return root
}

// fileNames are the names of values of flags that the shell completes as files.
var fileNames = []string{"FILE", "DIR", "FLAKE", "INPUT=REF", "EXECUTABLE", "PROGRAM", "SOCKET"}

// completeNoFiles keeps the shell from offering files where none is wanted.
func completeNoFiles(cmd *cobra.Command) {
	if cmd.Args == nil && cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	flags := func(f *pflag.Flag) {
		if name, _ := pflag.UnquoteUsage(f); !slices.Contains(fileNames, name) {
			_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.NoFileCompletions) // an error: it has one of its own
		}
	}
	cmd.Flags().VisitAll(flags)
	cmd.PersistentFlags().VisitAll(flags)
}

func checkArguments(cmd *cobra.Command) {
	completeNoFiles(cmd)
	check := cmd.Args
	if check == nil {
		check = cobra.NoArgs
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usage(cmd, fmt.Errorf("%w; usage: %s", err, cmd.UseLine()))
		}
		return nil
	}
	if cmd.Run == nil && cmd.RunE == nil {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			var names []string
			for _, sub := range cmd.Commands() {
				if sub.IsAvailableCommand() && sub.Name() != "completion" {
					names = append(names, sub.Name())
				}
			}
			return usage(cmd, fmt.Errorf("name a command: %s", strings.Join(names, ", ")))
		}
	}
	for _, sub := range cmd.Commands() {
		checkArguments(sub)
	}
}

func usage(cmd *cobra.Command, err error) error {
	return daemon.UsageError(fmt.Errorf("%w; see %s --help", err, cmd.CommandPath()))
}
