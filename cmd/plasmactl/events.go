package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/deployer/api"
)

func eventsCommand() *cobra.Command {
	var deployer deployerFlags
	var format outputFormat
	var follow bool
	var after, node string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened to the nodes, as the deployer recorded it",
		Long: `Shows what happened to the nodes, as the deployer recorded it, oldest first: what moved
them from state to state, what operators ordered, manifests, and reports that were refused.
The deployer keeps the last 10000 events.

With --follow it goes on with what happens from then on, over restarts of the deployer.
With -o json each line is one event; its cursor is what --after goes on from. A cursor
whose events are not all kept any more is an error.`,
		Example: `  plasmactl events --node node03
  plasmactl events --follow
  plasmactl events --follow -o json | jq -r 'select(.to == "Failed").node_id'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := deployer.client()
			if err != nil {
				return err
			}
			show := func(e api.Event) error {
				if node != "" && e.NodeID != node {
					return nil
				}
				return printEvent(cmd.OutOrStdout(), format, e)
			}
			if follow {
				err := c.Follow(cmd.Context(), after, show)
				if errors.Is(err, context.Canceled) { // a signal ends it well
					return nil
				}
				return unfollowed(err)
			}
			for {
				list, err := c.Events(cmd.Context(), after)
				if err != nil {
					return unreached(err)
				}
				for _, e := range list.Events {
					if err := show(e); err != nil {
						return err
					}
				}
				if after = list.Next; !list.More {
					return nil
				}
			}
		},
	}
	deployer.register(cmd)
	format.register(cmd)
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on, until it is interrupted")
	flags.StringVar(&after, "after", "", "begin behind the event with this `CURSOR`")
	flags.StringVar(&node, "node", "", "only the events of this `NODE`")
	_ = cmd.RegisterFlagCompletionFunc("node", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return deployer.completeNodes(cmd)
	})
	return cmd
}

// unfollowed leaves an error of our own output as it is.
func unfollowed(err error) error {
	var output *outputError
	if errors.As(err, &output) {
		return err
	}
	return unreached(err)
}

type outputError struct{ err error }

func (e *outputError) Error() string { return "write the events: " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// printEvent writes one line.
func printEvent(w io.Writer, format outputFormat, e api.Event) error {
	var err error
	if format == outputJSON {
		err = json.NewEncoder(w).Encode(e)
	} else {
		state := string(e.To)
		switch {
		case e.Code != "":
			state = e.Code
		case e.From != e.To:
			state = fmt.Sprintf("%s -> %s", e.From, e.To)
		}
		reason := e.Reason
		if e.By != "" {
			reason = strings.TrimSuffix("by "+e.By+": "+reason, ": ")
		}
		line := fmt.Sprintf("%s  %-12s  %-12s  %-26s  %s", e.At.Local().Format(time.DateTime), cmp.Or(e.NodeID, e.VIP), e.Event, state, reason)
		_, err = fmt.Fprintln(w, strings.Map(printable, strings.TrimRight(line, " ")))
	}
	if err != nil {
		return &outputError{err}
	}
	return nil
}
