package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

func statusCommand() *cobra.Command {
	var deployer deployerFlags
	var format outputFormat
	var live, vips bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the fleet at a glance, or all VIPs with their nodes",
		Long: `Shows how many nodes there are in each state, how many are online and run what
the cluster declares, how many VIPs are announced, and what somebody should look
after.

With --vips it shows every VIP in place of that: which nodes announce it and are
online, and of its other nodes what they say of it. Those that no node announces
come first. What a VIP does on one node, "plasmactl node show" tells.`,
		Example: `  plasmactl status
  plasmactl status --watch
  plasmactl status --vips
  plasmactl status --vips -o json |
    jq -r '.vips[] | select(.status == "unannounced").vip'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := deployer.client()
			if err != nil {
				return err
			}
			draw := func(ctx context.Context, w io.Writer) (string, error) {
				if vips {
					return drawVIPs(ctx, w, c, format)
				}
				s, err := c.Status(ctx)
				switch {
				case err != nil:
					return "", unreached(err)
				case format == outputJSON:
					return fmt.Sprint(s), printJSON(w, s)
				default:
					return fmt.Sprint(s), printStatus(w, deployer.url, s)
				}
			}
			if live {
				return watch(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), c, draw)
			}
			_, err = draw(cmd.Context(), cmd.OutOrStdout())
			return err
		},
	}
	deployer.register(cmd)
	format.register(cmd)
	cmd.Flags().BoolVar(&vips, "vips", false, "show every VIP with its nodes, in place of the fleet")
	cmd.Flags().BoolVarP(&live, "watch", "w", false, "go on, and show what changes, until it is interrupted")
	return cmd
}

func printStatus(w io.Writer, url string, s api.Status) error {
	bad := func(n int, style string) string {
		if n == 0 {
			return plain
		}
		return style
	}
	rows := [][]any{{"Deployer:", url + ", version " + s.Version + map[bool]string{true: "", false: ", another one leads"}[s.Leader]}, {"Nodes:", s.Nodes}}
	for _, state := range node.States {
		if n := s.States[state]; n > 0 || state == node.Active {
			rows = append(rows, []any{"  " + string(state) + ":", styled{n, coloured(state).style}})
		}
	}
	rows = append(rows,
		[]any{"Online:", s.Reachability[node.Online]},
		[]any{"  offline:", styled{s.Reachability[node.Offline], bad(s.Reachability[node.Offline], red)}},
		[]any{"  unknown:", s.Reachability[node.Unknown]},
		[]any{"Config in sync:", s.Config[node.InSync]},
		[]any{"  drifted:", styled{s.Config[node.Drifted], bad(s.Config[node.Drifted], yellow)}},
		[]any{"  unknown:", s.Config[node.ConfigUnknown]},
	)
	for _, more := range []struct {
		name string
		n    int
	}{{"Held:", s.Held}, {"Waiting:", s.Waiting}, {"Undeclared:", s.Undeclared}, {"Unreadable:", s.Unreadable}} {
		if more.n > 0 {
			rows = append(rows, []any{more.name, styled{more.n, yellow}})
		}
	}
	if len(s.VIPs) > 0 {
		rows = append(rows, []any{"VIPs announced:", s.VIPs[node.Announced]},
			[]any{"  unannounced:", styled{s.VIPs[node.Unannounced], bad(s.VIPs[node.Unannounced], red)}})
		if n := s.VIPs[node.AnnouncementUnknown]; n > 0 {
			rows = append(rows, []any{"  unknown:", n})
		}
	}
	if err := printTable(w, "", rows); err != nil {
		return err
	}
	rows = nil
	for _, warning := range s.Warnings {
		rows = append(rows, []any{styled{strings.TrimSpace(warning), yellow}})
	}
	return printSection(w, "TO LOOK AFTER", rows)
}
