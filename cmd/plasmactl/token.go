package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/api"
)

func tokenCommand() *cobra.Command {
	var deployer deployerFlags
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke the tokens by which machines join",
		Long: `Makes, lists and revokes the tokens by which machines join, in the deployer's store. Those
of its file (tokens.join_file) are not among them. It takes the token of an admin.`,
	}
	deployer.register(cmd)
	format.register(cmd)
	cmd.AddCommand(createTokenCommand(&deployer, &format), listTokensCommand(&deployer, &format), revokeTokenCommand(&deployer, &format))
	return cmd
}

func createTokenCommand(deployer *deployerFlags, format *outputFormat) *cobra.Command {
	var wanted api.TokenRequest
	var expires string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a join token, and print it",
		Long: `Makes a join token and prints it, the token alone on stdout: the deployer keeps a hash, so
nobody can print it again. NAME has letters, digits, dash and underscore, at most 63.`,
		Example: `  umask 077   # a machine refuses a token that all may read
  plasmactl token create row2 --expires 24h --uses 40 --role worker > row2.token
  plasmactl token create node03 --node node03 --uses 1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted.Name = args[0]
			var err error
			if wanted.Expires, err = expiry(expires, time.Now()); err != nil {
				return err
			}
			if cmd.Flags().Changed("uses") && wanted.Uses < 1 {
				return daemon.UsageError(fmt.Errorf("--uses %d: want at least 1", wanted.Uses))
			}
			c, err := deployer.client()
			if err != nil {
				return err
			}
			made, err := c.CreateToken(cmd.Context(), wanted)
			if err != nil {
				return unreached(err)
			}
			if *format == outputJSON {
				return printJSON(cmd.OutOrStdout(), made)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "token %s for %s, %s uses, expires %s\n", made.Name, isFor(made.Token), uses(made.Token), ends(made.Token))
			_, err = fmt.Fprintln(cmd.OutOrStdout(), made.Secret)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&wanted.Node, "node", "", "the one `NODE` that may join with it")
	flags.StringVar(&wanted.Role, "role", "", "the `ROLE` of the nodes that may: control-plane or worker")
	flags.StringVar(&expires, "expires", "", "how long it is good (a `TIME` such as 24h), or until when (2026-12-31T00:00:00Z); without it, for ever")
	flags.IntVar(&wanted.Uses, "uses", 0, "how many machines may join with it, a `NUMBER`; without it, any number")
	_ = cmd.RegisterFlagCompletionFunc("node", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return deployer.completeNodes(cmd)
	})
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"control-plane", "worker"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// expiry reads a duration from now on or a time.
func expiry(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(d).Truncate(time.Second), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	return time.Time{}, daemon.UsageError(fmt.Errorf("--expires %q: want a duration such as 24h, or a time such as 2026-12-31T00:00:00Z", text))
}

func listTokensCommand(deployer *deployerFlags, format *outputFormat) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the join tokens, without the tokens themselves",
		Example: `  plasmactl token list`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := deployer.client()
			if err != nil {
				return err
			}
			tokens, err := c.Tokens(cmd.Context())
			if err != nil {
				return unreached(err)
			}
			if *format == outputJSON {
				return printJSON(cmd.OutOrStdout(), api.TokenList{Tokens: tokens})
			}
			return printTokens(cmd.OutOrStdout(), tokens, time.Now())
		},
	}
}

func printTokens(w io.Writer, tokens []api.Token, now time.Time) error {
	var rows [][]any
	for _, t := range tokens {
		expires := styled{ends(t), plain}
		if t.Expires != nil && !now.Before(*t.Expires) {
			expires.style = red
		}
		last := "never"
		if t.LastUsed != nil {
			last = t.LastNode + " " + ago(t.LastUsed, now)
		}
		created := t.Created.Local().Format(time.DateOnly)
		if t.CreatedBy != "" {
			created += " by " + t.CreatedBy
		}
		rows = append(rows, []any{t.Name, isFor(t), strconv.Itoa(t.Used) + "/" + uses(t), expires, created, last})
	}
	return printTable(w, "NAME\tFOR\tUSED\tEXPIRES\tCREATED\tLAST USED", rows)
}

func isFor(t api.Token) string {
	var limits []string
	if t.Node != "" {
		limits = append(limits, "node "+t.Node)
	}
	if t.Role != "" {
		limits = append(limits, "role "+t.Role)
	}
	if len(limits) == 0 {
		return "all nodes"
	}
	return strings.Join(limits, ", ")
}

func uses(t api.Token) string {
	if t.Uses == 0 {
		return "any"
	}
	return strconv.Itoa(t.Uses)
}

func ends(t api.Token) string {
	if t.Expires == nil {
		return "never"
	}
	return t.Expires.Local().Format(time.DateTime)
}

func revokeTokenCommand(deployer *deployerFlags, format *outputFormat) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke NAME",
		Short:   "Take a join token away",
		Long:    `Takes a join token away. Nodes that joined with it stay joined.`,
		Example: `  plasmactl token revoke row2`,
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if c, err := deployer.client(); err == nil && len(args) == 0 {
				tokens, _ := c.Tokens(cmd.Context())
				for _, t := range tokens {
					names = append(names, t.Name)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := deployer.client()
			if err != nil {
				return err
			}
			if err := c.RevokeToken(cmd.Context(), args[0]); err != nil {
				return unreached(err)
			}
			if *format == outputJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"name": args[0], "revoked": true})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: revoked\n", args[0])
			return err
		},
	}
}
