package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/secretfile"
)

// The environment variables behind --deployer-url, --ca-file and --token-file.
const (
	deployerURLVariable = "PLASMACLOUD_DEPLOYER_URL"
	caFileVariable      = "PLASMACLOUD_CA_FILE"
	tokenFileVariable   = "PLASMACLOUD_TOKEN_FILE"
)

func nodeCommand() *cobra.Command {
	var url string
	var timeout time.Duration
	var files api.TLSFiles
	var tokenFile string
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Show the nodes as the deployer knows them",
		Long: `Shows the nodes as the deployer knows them.

A node's state is Pending until its machine phones home, Provisioning until it
reports ready, and then Active; Failed says that it could not, and why. Two more
columns are true beside any state: whether the machine is online, and whether it
runs the configuration that the cluster declares.`,
	}
	defaultURL := "http://127.0.0.1:8080"
	if fromEnv := os.Getenv(deployerURLVariable); fromEnv != "" {
		defaultURL = fromEnv
	}
	cmd.PersistentFlags().StringVar(&url, "deployer-url", defaultURL, "base `URL` of the deployer; the default is $"+deployerURLVariable+" where it is set")
	cmd.PersistentFlags().DurationVar(&timeout, "timeout", 10*time.Second, "give up after this `DURATION`")
	cmd.PersistentFlags().StringVar(&files.CA, "ca-file", os.Getenv(caFileVariable), "PEM `FILE` of the CA of the deployer's certificate, in place of the system's CAs; the default is $"+caFileVariable)
	cmd.PersistentFlags().StringVar(&files.Cert, "cert-file", "", "PEM `FILE` of your own certificate, for a deployer with tls.client_ca")
	cmd.PersistentFlags().StringVar(&files.Key, "key-file", "", "PEM `FILE` of the key of --cert-file")
	cmd.PersistentFlags().StringVar(&tokenFile, "token-file", os.Getenv(tokenFileVariable), "`FILE` with your token, for a deployer with operators' tokens; the default is $"+tokenFileVariable)
	format.register(cmd)
	client := func() (*api.Client, error) {
		transport, err := files.Transport()
		if err != nil {
			return nil, daemon.ConfigError(err)
		}
		c, err := api.NewClient(url, timeout, transport)
		if err != nil {
			return nil, daemon.UsageError(fmt.Errorf("--deployer-url: %w", err))
		}
		if tokenFile == "" {
			return c, nil
		}
		token, err := secretfile.Token(tokenFile)
		if err != nil {
			return nil, daemon.ConfigError(fmt.Errorf("token: %w", err))
		}
		return c.WithToken(token), nil
	}

	cmd.AddCommand(&cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List all nodes",
		Example: `  plasmactl node list --deployer-url http://deployer:8080
  plasmactl node list -o json | jq -r '.nodes[] | select(.state == "Failed").node_id'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := client()
			if err != nil {
				return err
			}
			nodes, err := c.List(cmd.Context())
			if err != nil {
				return unreached(err)
			}
			if format == outputJSON {
				return printJSON(cmd.OutOrStdout(), api.NodeList{Nodes: nodes})
			}
			return printNodes(cmd.OutOrStdout(), nodes, time.Now())
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use:     "show NODE",
		Short:   "Show one node with its history",
		Example: `  plasmactl node show node01`,
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			c, err := client()
			if len(args) > 0 || err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
			defer cancel()
			nodes, _ := c.List(ctx) // completion has no place for an error
			var ids []string
			for _, n := range nodes {
				ids = append(ids, n.ID)
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := client()
			if err != nil {
				return err
			}
			n, err := c.Get(cmd.Context(), args[0])
			if err != nil {
				return unreached(err)
			}
			if format == outputJSON {
				return printJSON(cmd.OutOrStdout(), n)
			}
			return printNode(cmd.OutOrStdout(), n, time.Now())
		},
	})
	return cmd
}

// unreached adds the mend to an error that no deployer answered.
func unreached(err error) error {
	var answer *api.Error
	if errors.As(err, &answer) {
		return err
	}
	return fmt.Errorf("no answer from a deployer: %w; name the right one with --deployer-url or $%s", err, deployerURLVariable)
}

func printNodes(w io.Writer, nodes []api.Node, now time.Time) error {
	var rows [][]any
	for _, n := range nodes {
		rows = append(rows, []any{n.ID, n.Role, n.IP, n.State, n.Reachability, n.Config, ago(n.LastSeen, now), lastError(n)})
	}
	return printTable(w, "NODE\tROLE\tIP\tSTATE\tREACHABILITY\tCONFIG\tLAST SEEN\tLAST ERROR", rows)
}

func printNode(w io.Writer, n api.Node, now time.Time) error {
	rows := [][]any{
		{"Node:", n.ID},
		{"Role:", n.Role},
		{"IP:", n.IP},
		{"State:", fmt.Sprintf("%s since %s (%s)", n.State, n.Since.Local().Format(time.DateTime), ago(&n.Since, now))},
		{"Reachability:", fmt.Sprintf("%s, last seen %s", n.Reachability, ago(n.LastSeen, now))},
		{"Config:", n.Config},
		{"  expected:", n.ConfigHash},
		{"  reported:", n.ReportedHash},
		{"Attempt:", n.Attempt},
	}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []any{name, value})
		}
	}
	if !n.Declared {
		add("Declared:", "no: the cluster's definition does not have this node")
	}
	if n.Deadline != nil {
		add("Deadline:", n.Deadline.Local().Format(time.DateTime))
	}
	if n.State != node.Active { // there it only says that nobody installs over it
		add("Hold:", n.Hold)
	}
	add("Last error:", lastError(n))
	add("Machine:", strings.TrimSpace(n.Hostname+" "+n.MachineID))
	add("  serial:", n.Facts["serial"])
	add("  MACs:", strings.ReplaceAll(n.Facts["macs"], ",", ", "))
	if n.ReportedIP != "" && n.ReportedIP != n.IP {
		add("Reported IP:", n.ReportedIP)
	}
	add("VIPs:", strings.Join(n.VIPs, ", "))
	if err := printTable(w, "", rows); err != nil {
		return err
	}
	if len(n.History) == 0 {
		return nil
	}
	rows = nil
	for _, t := range n.History {
		rows = append(rows, []any{t.At.Local().Format(time.DateTime), t.From, t.To, t.Reason})
	}
	fmt.Fprintln(w)
	return printTable(w, "WHEN\tFROM\tTO\tREASON", rows)
}

func lastError(n api.Node) string {
	if n.LastError == nil {
		return ""
	}
	return n.LastError.Message
}

func ago(at *time.Time, now time.Time) string {
	if at == nil {
		return "never"
	}
	return now.Sub(*at).Truncate(time.Second).String() + " ago"
}
