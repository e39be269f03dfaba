package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

func nodeCommand() *cobra.Command {
	var deployer deployerFlags
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
	deployer.register(cmd)
	format.register(cmd)

	cmd.AddCommand(&cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List all nodes",
		Example: `  plasmactl node list --deployer-url http://deployer:8080
  plasmactl node list -o json | jq -r '.nodes[] | select(.state == "Failed").node_id'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := deployer.client()
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
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return deployer.completeNodes(cmd)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := deployer.client()
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
