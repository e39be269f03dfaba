package main

import (
	"cmp"
	"encoding/json"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/deployer/api"
)

func auditCommand() *cobra.Command {
	var deployer deployerFlags
	var format outputFormat
	var after string
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show what operators did, and what was refused them",
		Long: `Shows what operators did to nodes and tokens, and what was refused them, oldest first. The
deployer keeps the last 10000 entries. With -o json each line is one; its cursor is what --after
goes on from. It takes the token of an admin.`,
		Example: `  plasmactl audit
  plasmactl audit -o json | jq -r 'select(.action == "reset") | .by'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := deployer.client()
			if err != nil {
				return err
			}
			var all []api.AuditEntry
			for more := true; more; {
				log, err := c.Audit(cmd.Context(), after)
				if err != nil {
					return unreached(err)
				}
				all = append(all, log.Entries...)
				after, more = log.Next, log.More
			}
			return printAudit(cmd.OutOrStdout(), format, all)
		},
	}
	deployer.register(cmd)
	format.register(cmd)
	cmd.Flags().StringVar(&after, "after", "", "begin behind the entry with this `CURSOR`")
	return cmd
}

func printAudit(w io.Writer, format outputFormat, all []api.AuditEntry) error {
	var rows [][]any
	for _, e := range all {
		if format == outputJSON {
			if err := json.NewEncoder(w).Encode(e); err != nil {
				return err
			}
			continue
		}
		result := styled{cmp.Or(e.Code, e.Result), plain}
		if e.Code != "" {
			result.style = red
		}
		rows = append(rows, []any{e.At.Local().Format(time.DateTime), e.By, e.Remote, e.Action, cmp.Or(e.NodeID, e.Token), result, e.Reason})
	}
	if format == outputJSON {
		return nil
	}
	return printTable(w, "WHEN\tBY\tFROM\tACTION\tON\tRESULT\tREASON", rows)
}
