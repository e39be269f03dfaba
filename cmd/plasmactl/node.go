package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
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
		Short: "Show the nodes as the deployer knows them, and give orders about them",
		Long: `Shows the nodes as the deployer knows them, and gives orders about them.

A node's state is Pending until its machine phones home, Provisioning until it
reports ready, and then Active; Failed says that it could not, and why. Two more
columns are true beside any state: whether the machine is online, and whether it
runs the configuration that the cluster declares.`,
	}
	deployer.register(cmd)
	format.register(cmd)

	cmd.AddCommand(listCommand(&deployer, &format))
	cmd.AddCommand(&cobra.Command{
		Use:   "show NODE",
		Short: "Show one node with its services, its VIPs and its history",
		Long: `Shows one node: where it stands, how the services and VIPs are that it reported last,
and its history.`,
		Example: `  plasmactl node show node01
  plasmactl node show node01 -o json |
    jq -r '.vip_states[]? | select(.state == "drained").vip'`,
		Args: cobra.ExactArgs(1),
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
	for _, v := range verbs {
		cmd.AddCommand(verbCommand(v, &deployer, &format))
	}
	return cmd
}

func listCommand(deployer *deployerFlags, format *outputFormat) *cobra.Command {
	var selected selection
	var live bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the nodes",
		Example: `  plasmactl node list --deployer-url http://deployer:8080
  plasmactl node list --state Failed --selector rack=a1
  plasmactl node list --watch
  plasmactl node list -o json |
    jq -r '.nodes[] | select(.state == "Failed").node_id'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := selected.check(); err != nil {
				return err
			}
			c, err := deployer.client()
			if err != nil {
				return err
			}
			draw := func(ctx context.Context, w io.Writer) (string, error) {
				nodes, err := c.List(ctx)
				if err != nil {
					return "", unreached(err)
				}
				nodes = selected.of(nodes)
				var seen strings.Builder
				for _, n := range nodes {
					fmt.Fprintln(&seen, n.ID, n.Role, n.IP, n.State, n.Reachability, n.Config, remark(n))
				}
				if *format == outputJSON {
					return seen.String(), printJSON(w, api.NodeList{Nodes: nodes})
				}
				return seen.String(), printNodes(w, nodes, time.Now())
			}
			if live {
				return watch(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), c, draw)
			}
			_, err = draw(cmd.Context(), cmd.OutOrStdout())
			return err
		},
	}
	selected.register(cmd)
	cmd.Flags().BoolVarP(&live, "watch", "w", false, "go on, and show what changes, until it is interrupted")
	return cmd
}

func printNodes(w io.Writer, nodes []api.Node, now time.Time) error {
	var rows [][]any
	for _, n := range nodes {
		rows = append(rows, []any{n.ID, n.Role, n.IP, coloured(n.State), coloured(n.Reachability), coloured(n.Config), ago(n.LastSeen, now), remark(n)})
	}
	return printTable(w, "NODE\tROLE\tIP\tSTATE\tREACHABILITY\tCONFIG\tLAST SEEN\tREMARK", rows)
}

func printNode(w io.Writer, n api.Node, now time.Time) error {
	rows := [][]any{
		{"Node:", n.ID},
		{"Role:", n.Role},
		{"IP:", n.IP},
		{"State:", fmt.Sprintf("%s since %s (%s)", n.State, n.Since.Local().Format(time.DateTime), ago(&n.Since, now))},
		{"Reachability:", fmt.Sprintf("%s, last seen %s", n.Reachability, ago(n.LastSeen, now))},
		{"Config:", coloured(n.Config)},
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
	add("Labels:", labels(n.Labels))
	if n.State != node.Active || n.Held != nil { // there it only says that nobody installs over it
		add("Hold:", n.Hold)
	}
	add("Approved:", mark(n.Approved, now))
	add("Reinstall:", mark(n.Reinstall, now))
	if n.State == node.Decommissioned {
		add("Acknowledged:", ago(n.Acknowledged, now))
	}
	add("Last error:", lastError(n))
	add("Machine:", strings.TrimSpace(n.Hostname+" "+n.MachineID))
	add("  serial:", n.Facts["serial"])
	add("  MACs:", strings.ReplaceAll(n.Facts["macs"], ",", ", "))
	if n.ReportedIP != "" && n.ReportedIP != n.IP {
		add("Reported IP:", n.ReportedIP)
	}
	if err := printTable(w, "", rows); err != nil {
		return err
	}
	return errors.Join(printServices(w, n), printVIPsOf(w, n), printHistory(w, n))
}

func printServices(w io.Writer, n api.Node) error {
	var rows [][]any
	for _, s := range n.Services {
		rows = append(rows, []any{s.Name, serviceState(s), s.Reason})
	}
	return printSection(w, "SERVICE\tSTATE\tREASON", rows)
}

// printVIPsOf prints what the node said last of its VIPs, by address.
func printVIPsOf(w io.Writer, n api.Node) error {
	vips := slices.Clone(n.VIPStates)
	for _, vip := range n.VIPs {
		if !slices.ContainsFunc(n.VIPStates, func(s node.VIPState) bool { return s.VIP == vip }) {
			vips = append(vips, node.VIPState{VIP: vip, State: node.VIPAnnounced})
		}
	}
	slices.SortFunc(vips, func(a, b node.VIPState) int { return node.CompareVIPs(a.VIP, b.VIP) })
	var rows [][]any
	for _, v := range vips {
		rows = append(rows, []any{v.VIP, vipState(v.State), v.Reason})
	}
	err := printSection(w, "VIP\tSTATE\tREASON", rows)
	if err == nil && n.VIPsLeftOut > 0 {
		_, err = fmt.Fprintf(w, "and %d more, for which its report had no room\n", n.VIPsLeftOut)
	}
	return err
}

func printHistory(w io.Writer, n api.Node) error {
	var rows [][]any
	for _, t := range n.History {
		rows = append(rows, []any{t.At.Local().Format(time.DateTime), t.From, t.To, t.Event, t.By, t.Reason})
	}
	return printSection(w, "WHEN\tFROM\tTO\tEVENT\tBY\tREASON", rows)
}

// remark is what else is worth knowing of a node in one line.
func remark(n api.Node) string {
	var remarks []string
	add := func(is bool, remark string) {
		if is {
			remarks = append(remarks, remark)
		}
	}
	add(n.Waiting, "waits for an approval")
	if n.Held != nil {
		remarks = append(remarks, strings.TrimSuffix("held: "+n.Held.Reason, ": "))
	}
	add(n.Reinstall != nil, "to be installed once more")
	add(n.State == node.Decommissioned && n.Acknowledged == nil, "has not acknowledged it")
	add(n.LastError != nil, lastError(n))
	return strings.Join(remarks, "; ")
}

func labels(all map[string]string) string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		list = append(list, key+"="+all[key])
	}
	return strings.Join(list, ", ")
}

func mark(m *node.Mark, now time.Time) string {
	if m == nil {
		return ""
	}
	text := ago(&m.At, now)
	if m.By != "" {
		text = "by " + m.By + ", " + text
	}
	if m.Reason != "" {
		text += ": " + m.Reason
	}
	return text
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
