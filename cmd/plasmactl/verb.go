package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// verb is one of node.Verbs as a command.
type verb struct {
	event       node.Event
	short, long string
	// wants says of which of the nodes that a selector finds it makes sense; nil: of all.
	wants func(api.Node) bool
}

var verbs = []verb{
	{node.EventApprove, "Let the machine that waits be the node",
		"Lets the machine that waits for an approval be the node. It is that machine which is shown before,\nand no other that came meanwhile.",
		func(n api.Node) bool { return n.Waiting }},
	{node.EventHold, "Stand against the installation of a node",
		"Stands against the installation of a node until it is released, whatever boots there. An\ninstallation under way goes on, and so does a node that runs.", nil},
	{node.EventRelease, "Take a hold back", "Takes a hold back.",
		func(n api.Node) bool { return n.Held != nil }},
	{node.EventRetry, "Give a failed node another attempt",
		"Gives a Failed node another attempt, with a new deadline.",
		func(n api.Node) bool { return n.State == node.Failed }},
	{node.EventReinstall, "Let a node's machine be installed once more",
		"Lets a node's machine be installed once more, over what is on its disk: the next time that the\nISO boots there, and never again by itself. Until then the node goes on running, and hold takes\nthe word back.",
		func(n api.Node) bool { return n.State != node.Decommissioned }},
	{node.EventDecommission, "Take a node out",
		"Takes a node out: its reports are refused until it is reset. The node hears of it with its next\nreport and acknowledges, which node show tells.",
		func(n api.Node) bool { return n.State != node.Decommissioned }},
	{node.EventReset, "Let a node be provisioned anew, on any machine",
		"Lets a node be provisioned anew, on any machine: it is Pending again, no machine is bound to it,\nand the installer may write its disk. So another machine takes the place of one that is dead. Do\nit with the node switched off: one that is up reports itself ready again. It also rewrites a\nrecord that cannot be read.", nil},
	{node.EventResetSecret, "Forget a node's secret, so that it joins anew",
		"Forgets a node's secret, for one that is lost or known to others: the next report needs a token\nto join anew.", nil},
}

// nodeOrder is a command line of a verb.
type nodeOrder struct {
	verb
	deployer  *deployerFlags
	format    *outputFormat
	selection selection
	all, yes  bool
	reason    string
}

func verbCommand(v verb, deployer *deployerFlags, format *outputFormat) *cobra.Command {
	o := nodeOrder{verb: v, deployer: deployer, format: format}
	cmd := &cobra.Command{
		Use:   string(v.event) + " [NODE...]",
		Short: v.short,
		Long: v.long + `

Name nodes, or select them: what is to be done is shown first and asked for, unless it is one
node by its name, or --yes says so. Without a terminal to ask on, --yes has to. Exit status 1
means that it failed for one node at least; the others are done all the same.`,
		Example: fmt.Sprintf("  plasmactl node %[1]s node03 --reason \"new disks\"\n  plasmactl node %[1]s --selector rack=a1 --role worker --yes", v.event),
		Args:    cobra.ArbitraryArgs,
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return deployer.completeNodes(cmd)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.selection.register(cmd)
	cmd.Flags().BoolVar(&o.all, "all", false, "all nodes"+map[bool]string{true: " of which it makes sense"}[v.wants != nil])
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.Flags().StringVar(&o.reason, "reason", "", "why, a `TEXT` for the node's history and the audit log")
	return cmd
}

func (o *nodeOrder) run(cmd *cobra.Command, args []string) error {
	usage := func(format string, args ...any) error {
		return daemon.UsageError(fmt.Errorf(format+"; see plasmactl node %s --help", append(args, o.event)...))
	}
	switch selected := !o.selection.empty() || o.all; {
	case len(args) == 0 && !selected:
		return usage("name a node, or select some with --selector, --role, --state or --all")
	case len(args) > 0 && selected:
		return usage("name nodes or select them, not both")
	case len(o.reason) > api.MaxReason:
		return usage("--reason: at most %d bytes", api.MaxReason)
	}
	if err := o.selection.check(); err != nil {
		return err
	}
	asks := len(args) != 1 && !o.yes
	if asks && !onTerminal(cmd.InOrStdin()) {
		return usage("there is no terminal to ask on; add --yes")
	}
	c, err := o.deployer.client()
	if err != nil {
		return err
	}
	nodes, err := o.targets(cmd.Context(), c, args)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "there is no node to %s among those that are selected\n", o.event)
		return o.print(cmd.OutOrStdout(), nil)
	}
	if asks {
		if err := o.preview(cmd.ErrOrStderr(), nodes); err != nil {
			return err
		}
		if !confirm(cmd.InOrStdin(), cmd.ErrOrStderr(), fmt.Sprintf("%s these %d nodes? [y/N] ", o.event, len(nodes))) {
			return errors.New("nothing was done")
		}
	}
	results := o.do(cmd.Context(), c, nodes)
	if err := o.print(cmd.OutOrStdout(), results); err != nil {
		return err
	}
	failed := slices.DeleteFunc(slices.Clone(results), func(r result) bool { return r.err == nil })
	switch {
	case len(failed) == 0:
		return nil
	case len(results) == 1:
		return unreached(failed[0].err)
	default:
		return fmt.Errorf("%s failed for %d of %d nodes", o.event, len(failed), len(results))
	}
}

// targets are the nodes that are meant, as they are now.
func (o *nodeOrder) targets(ctx context.Context, c *api.Client, args []string) ([]api.Node, error) {
	if len(args) == 1 && o.event != node.EventApprove {
		// There may be nothing to read: reset mends that.
		return []api.Node{{ID: args[0]}}, nil
	}
	all, err := c.List(ctx)
	if err != nil {
		return nil, unreached(err)
	}
	if len(args) == 0 {
		nodes := o.selection.of(all)
		if o.wants != nil {
			nodes = slices.DeleteFunc(nodes, func(n api.Node) bool { return !o.wants(n) })
		}
		return nodes, nil
	}
	var nodes []api.Node
	for _, id := range args {
		at := slices.IndexFunc(all, func(n api.Node) bool { return n.ID == id })
		switch {
		case at < 0:
			return nil, fmt.Errorf("the deployer knows no node %s; nothing was done", id)
		case !slices.ContainsFunc(nodes, func(n api.Node) bool { return n.ID == id }):
			nodes = append(nodes, all[at])
		}
	}
	return nodes, nil
}

func (o *nodeOrder) preview(w io.Writer, nodes []api.Node) error {
	var rows [][]any
	for _, n := range nodes {
		rows = append(rows, []any{n.ID, n.Role, n.IP, coloured(n.State), coloured(n.Reachability), cmp.Or(n.Machine, "none")})
	}
	return printTable(w, "NODE\tROLE\tIP\tSTATE\tREACHABILITY\tMACHINE", rows)
}

// result is what became of one node.
type result struct {
	id   string
	node api.Node
	err  error
}

// do gives the order for all nodes, some at a time.
func (o *nodeOrder) do(ctx context.Context, c *api.Client, nodes []api.Node) []result {
	const atOnce = 8
	results := make([]result, len(nodes))
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, n := range nodes {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			request := api.OperateRequest{Reason: o.reason}
			if o.event == node.EventApprove {
				request.Machine = cmp.Or(n.Machine, "none") // the one that was seen
			}
			done, err := c.Operate(ctx, n.ID, o.event, request)
			results[i] = result{n.ID, done, err}
		})
	}
	all.Wait()
	return results
}

func (o *nodeOrder) print(w io.Writer, results []result) error {
	if *o.format == outputJSON {
		type failure struct {
			ID    string `json:"node_id"`
			Code  string `json:"code,omitempty"` // of the deployer's problem
			Error string `json:"error"`
		}
		out := struct {
			Nodes  []api.Node `json:"nodes"`
			Failed []failure  `json:"failed"`
		}{[]api.Node{}, []failure{}}
		for _, r := range results {
			var refused *api.Error
			switch {
			case r.err == nil:
				out.Nodes = append(out.Nodes, r.node)
			case errors.As(r.err, &refused):
				out.Failed = append(out.Failed, failure{r.id, refused.Code, refused.Detail})
			default:
				out.Failed = append(out.Failed, failure{r.id, "", r.err.Error()})
			}
		}
		return printJSON(w, out)
	}
	if len(results) == 0 || len(results) == 1 && results[0].err != nil {
		return nil // the error says it
	}
	var rows [][]any
	for _, r := range results {
		var refused *api.Error
		switch {
		case r.err == nil:
			rows = append(rows, []any{r.id, coloured(r.node.State), r.node.Hold})
		case errors.As(r.err, &refused):
			rows = append(rows, []any{r.id, styled{refused.Code, red}, refused.Detail})
		default:
			rows = append(rows, []any{r.id, styled{"failed", red}, r.err})
		}
	}
	return printTable(w, "NODE\tSTATE\tHOLD", rows)
}

func onTerminal(r io.Reader) bool {
	file, ok := r.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// confirm asks, and takes nothing but a yes for one.
func confirm(r io.Reader, w io.Writer, question string) bool {
	fmt.Fprint(w, question)
	line, _ := bufio.NewReader(r).ReadString('\n')
	word := strings.ToLower(strings.TrimSpace(line))
	return word == "y" || word == "yes"
}
