// Package command gives the cobra commands of all binaries the same manners:
// one-line errors, exit status 64 for a wrong command line, the same --version, and a
// --help of at most 80 columns.
package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/cmd/internal/help"
)

// Prepare sets up a root command and all of its subcommands. Call it last.
func Prepare(root *cobra.Command) *cobra.Command {
	root.Version = daemon.Version()
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SilenceErrors, root.SilenceUsage = true, true
	cobra.AddTemplateFunc("flags", help.Flags)
	cobra.AddTemplateFunc("column", help.Column)
	root.SetUsageTemplate(strings.NewReplacer(
		".LocalFlags.FlagUsages ", "flags .LocalFlags ",
		".InheritedFlags.FlagUsages ", "flags .InheritedFlags ",
		"{{rpad .Name .NamePadding }} {{.Short}}", "{{rpad .Name .NamePadding }} {{column (len (rpad .Name .NamePadding | printf \"  %s \")) .Short}}",
		"{{if .Runnable}}", "{{if not .HasAvailableSubCommands}}", // those with subcommands do nothing by themselves
		" for more information about a command", " for more about each",
	).Replace(root.UsageTemplate()))
	root.SetFlagErrorFunc(usage)
	root.InitDefaultCompletionCmd()
	for _, shell := range completionCommand(root).Commands() {
		shell.Long = fmt.Sprintf(completion[shell.Name()], root.Name())
	}
	checkArguments(root)
	return root
}

// completion is what the completion commands say of themselves, with the program's name.
var completion = map[string]string{
	"bash": `Prints a script that completes commands in bash, which needs bash-completion.

  source <(%[1]s completion bash)

is for this shell. For every new one, write the script into the file
/etc/bash_completion.d/%[1]s.`,
	"zsh": `Prints a script that completes commands in zsh, after "autoload -U compinit; compinit".

  source <(%[1]s completion zsh)

is for this shell. For every new one, write the script into the file _%[1]s
in a folder of $fpath.`,
	"fish": `Prints a script that completes commands in fish.

  %[1]s completion fish | source

is for this shell. For every new one, write the script into the file
~/.config/fish/completions/%[1]s.fish.`,
	"powershell": `Prints a script that completes commands in PowerShell.

  %[1]s completion powershell | Out-String | Invoke-Expression

is for this shell. For every new one, put that line into your profile.`,
}

func completionCommand(root *cobra.Command) *cobra.Command {
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			return cmd
		}
	}
	return &cobra.Command{} // a program without subcommands has none
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
	cmd.Long = help.Wrap(cmd.Long)
	completeNoFiles(cmd)
	check := cmd.Args
	if check == nil {
		check = cobra.NoArgs
	}
	if cmd.Run == nil && cmd.RunE == nil {
		check = cobra.ArbitraryArgs
		cmd.RunE = noSuchCommand
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usage(cmd, fmt.Errorf("%w; usage: %s", err, cmd.UseLine()))
		}
		return nil
	}
	for _, sub := range cmd.Commands() {
		checkArguments(sub)
	}
}

// noSuchCommand is what a command does that has subcommands, where it gets none of them.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "completion" {
			names = append(names, sub.Name())
		}
	}
	err := fmt.Errorf("name a command: %s", strings.Join(names, ", "))
	if len(args) > 0 {
		err = fmt.Errorf("%s has no command %q; %w", cmd.CommandPath(), args[0], err)
	}
	return usage(cmd, err)
}

func usage(cmd *cobra.Command, err error) error {
	return daemon.UsageError(fmt.Errorf("%w; see %s --help", err, cmd.CommandPath()))
}
