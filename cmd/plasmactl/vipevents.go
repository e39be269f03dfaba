package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/bgp/control"
	"github.com/centra/plasmacloud/bgp/metrics"
	"github.com/centra/plasmacloud/cmd/internal/daemon"
)

func vipEventsCommand(socket *string, format *outputFormat) *cobra.Command {
	var follow bool
	var after, vip string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened to the VIPs",
		Long: `Shows what happened to the VIPs of this host, oldest first: what was wanted of them and
why, what was done, checks that changed, orders to drain, sessions that came and went.
The announcer keeps it in memory, the last 10000 events; what happened to many VIPs at
once and for one reason counts as one there. A restart of the announcer begins anew.

With --follow it goes on with what happens from then on, over restarts of the announcer.
With -o json each line is one event; its cursor is what --after goes on from. A cursor
whose events are not all kept any more is an error, and so is a reader that is too slow.`,
		Example: `  plasmactl vip events --vip 203.0.113.10
  plasmactl vip events --follow
  plasmactl vip events --follow -o json |
    jq -r 'select(.event == "withdrawn").vip'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var of netip.Addr
			if vip != "" {
				var err error
				if of, err = netip.ParseAddr(vip); err != nil {
					return daemon.UsageError(fmt.Errorf("--vip %.60q: want an address", vip))
				}
			}
			c := control.NewClient(*socket)
			show := func(e metrics.Event) error { return printVIPEvent(cmd.OutOrStdout(), *format, e) }
			if follow {
				err := c.Follow(cmd.Context(), after, of, show)
				if errors.Is(err, context.Canceled) { // a signal ends it well
					return nil
				}
				return err
			}
			for {
				list, err := c.Events(cmd.Context(), after, of)
				if err != nil {
					return err
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
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on, until it is interrupted")
	flags.StringVar(&after, "after", "", "begin behind the event with this `CURSOR`")
	flags.StringVar(&vip, "vip", "", "only the events of this `VIP`")
	_ = cmd.RegisterFlagCompletionFunc("vip", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return completeVIPs(socket)(cmd, nil, "")
	})
	return cmd
}

// printVIPEvent writes one line.
func printVIPEvent(w io.Writer, format outputFormat, e metrics.Event) error {
	var err error
	if format == outputJSON {
		err = json.NewEncoder(w).Encode(e)
	} else {
		about, reason := e.VIP, e.Reason
		if about == "" {
			about = e.Peer
		}
		for _, first := range []string{e.Check, e.By} {
			if first != "" {
				reason = first + ": " + reason
			}
		}
		line := fmt.Sprintf("%s  %-17s  %-17s  %s", e.At.Local().Format(time.DateTime), about, e.Event, reason)
		_, err = fmt.Fprintln(w, strings.Map(printable, strings.TrimRight(line, " ")))
	}
	if err != nil {
		return &outputError{err}
	}
	return nil
}
