package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/control"
	"github.com/centra/plasmacloud/bgp/metrics"
	"github.com/centra/plasmacloud/cmd/internal/daemon"
)

// socketVariable is the environment variable behind --socket.
const socketVariable = "PLASMACLOUD_ANNOUNCER_SOCKET"

// exitDifference is the exit status of plan when there is something to do.
const exitDifference = 2

func registerSocket(cmd *cobra.Command, socket *string) {
	otherwise := control.DefaultSocket
	if fromEnv := os.Getenv(socketVariable); fromEnv != "" {
		otherwise = fromEnv
	}
	cmd.PersistentFlags().StringVar(socket, "socket", otherwise, "`SOCKET` of this host's announcer; the default is $"+socketVariable+" where it is set")
}

func vipCommand() *cobra.Command {
	var socket string
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "vip",
		Short: "Show and drain the VIPs of this host",
		Long: `Shows what this host's announcer does with its VIPs and did, and takes them out of service.

A VIP that is drained is withdrawn, and let go of after its drain delay, as if its
check were down. An order to drain stands until it is taken back, also through
restarts and reloads. The announcer listens to root, and to its own user.

The VIPs of all nodes, as the deployer knows them: plasmactl status --vips.`,
	}
	registerSocket(cmd, &socket)
	format.register(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List all VIPs of this host",
		Long: `Lists all VIPs of this host: what is wanted, whether it is announced, to which peers
the BGP daemon offers it, how the host holds it, and why it is wanted. Where something
keeps it from being announced, or from its peers, that stands behind "but".`,
		Example: `  plasmactl vip list
  plasmactl vip list -o json |
    jq -r '.status.vips[] | select(.trouble != "") | .address + ": " + .trouble'
  plasmactl vip list -o json |
    jq -r '.status.vips[] | select(.announced | not).address'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := control.NewClient(socket).State(cmd.Context())
			if err != nil {
				return err
			}
			if format == outputJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			return printVIPs(cmd.OutOrStdout(), s, s.Status.VIPs)
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use:   "show VIP",
		Short: "Show one VIP of this host",
		Example: `  plasmactl vip show 203.0.113.10
  plasmactl vip show 203.0.113.10 -o json | jq -r '.offered.peers[]'`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeVIPs(&socket),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := control.NewClient(socket).State(cmd.Context())
			if err != nil {
				return err
			}
			addr, _ := netip.ParseAddr(args[0]) // it may be written in many ways
			i := slices.IndexFunc(s.Status.VIPs, func(v metrics.VIP) bool { return v.Address == addr.String() })
			if i < 0 {
				return fmt.Errorf("%.60q is no VIP of this host; see plasmactl vip list", args[0])
			}
			one := s.Status.VIPs[i]
			s.Status.VIPs = []metrics.VIP{one}
			shown := shownVIP{State: s}
			if one.Announced {
				offered, err := control.NewClient(socket).Offered(cmd.Context(), one.Address)
				if err != nil {
					shown.OfferedError = err.Error()
				} else {
					shown.Offered = &offered
				}
			}
			if format == outputJSON {
				return printJSON(cmd.OutOrStdout(), shown)
			}
			if err := printVIPs(cmd.OutOrStdout(), s, s.Status.VIPs); err != nil || !one.Announced {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "\noffered to "+shown.routers())
			return err
		},
	})
	var reason string
	var drainNode, undrainNode bool
	drain := &cobra.Command{
		Use:   "drain VIP --reason TEXT | --node --reason TEXT",
		Short: "Take a VIP, or all of this host's, out of service",
		Example: `  plasmactl vip drain 203.0.113.10 --reason "backend is rebuilt"
  plasmactl vip drain --node --reason "new kernel"`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeVIPs(&socket),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := order(args, drainNode)
			if err != nil {
				return err
			}
			if o.Reason = reason; reason == "" {
				return daemon.UsageError(errors.New("--reason: say why, for whoever finds it drained"))
			}
			s, err := control.NewClient(socket).Drain(cmd.Context(), o)
			if err != nil {
				return err
			}
			return ordered(cmd, format, s, "drained", o)
		},
	}
	drain.Flags().StringVar(&reason, "reason", "", "why, in one line of `TEXT`, for whoever finds it drained")
	drain.Flags().BoolVar(&drainNode, "node", false, "all VIPs of this host")
	undrain := &cobra.Command{
		Use:   "undrain VIP | --node",
		Short: "Take an order to drain back",
		Long: `Takes an order to drain back. A VIP with an order of its own stays drained when the
node's is taken back, and the other way round.`,
		Example: `  plasmactl vip undrain 203.0.113.10
  plasmactl vip undrain --node`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeVIPs(&socket),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := order(args, undrainNode)
			if err != nil {
				return err
			}
			s, err := control.NewClient(socket).Undrain(cmd.Context(), o)
			if err != nil {
				return err
			}
			return ordered(cmd, format, s, "not drained any more", o)
		},
	}
	undrain.Flags().BoolVar(&undrainNode, "node", false, "the order about all VIPs of this host")
	cmd.AddCommand(drain, undrain, vipEventsCommand(&socket, &format))
	return cmd
}

// shownVIP is what vip show prints as JSON: the state with the one VIP alone, and where
// that is announced, who has its path on offer, or why that is not known.
type shownVIP struct {
	control.State
	Offered      *control.Offered `json:"offered"`
	OfferedError string           `json:"offered_error,omitempty"`
}

// routers says in words to whom the path is offered.
func (s shownVIP) routers() string {
	switch {
	case s.Offered == nil:
		return "routers that are not known: " + s.OfferedError
	case len(s.Offered.Peers) == 0:
		return "no router"
	default:
		return strings.Join(s.Offered.Peers, ", ")
	}
}

// completeVIPs completes a VIP of this host. Completion has no place for an error.
func completeVIPs(socket *string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) (vips []string, _ cobra.ShellCompDirective) {
		if len(args) == 0 {
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
			defer cancel()
			s, _ := control.NewClient(*socket).State(ctx)
			for _, v := range s.Status.VIPs {
				vips = append(vips, v.Address)
			}
		}
		return vips, cobra.ShellCompDirectiveNoFileComp
	}
}

// order is about a VIP or about the node.
func order(args []string, node bool) (control.Order, error) {
	switch {
	case len(args) == 1 && !node:
		return control.Order{VIP: args[0]}, nil
	case len(args) == 0 && node:
		return control.Order{}, nil
	default:
		return control.Order{}, daemon.UsageError(errors.New("name one VIP, or --node"))
	}
}

func ordered(cmd *cobra.Command, format outputFormat, s control.State, done string, o control.Order) error {
	if format == outputJSON {
		return printJSON(cmd.OutOrStdout(), s.Drains)
	}
	what := o.VIP
	if what == "" {
		what = s.Status.NodeID
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", what, done)
	return err
}

func planCommand() *cobra.Command {
	var socket string
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "plan [FILE]",
		Short: "Say what this host's announcer has to do, or would with another file",
		Long: `Says what this host's announcer has to do so that what is announced and held is what
should be: nothing, unless something just changed, or something keeps it from it. With
FILE, an announcer.json, it says what a reload with that would do. Nothing is done.

Exit status: 0 there is nothing to do; 1 it cannot be said; 2 there is something
to do; 64 the command line is wrong.`,
		Example: `  plasmactl plan
  plasmactl plan ./announcer.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var candidate []byte
			if len(args) == 1 {
				var err error
				if candidate, err = bgp.ReadConfig(args[0]); err != nil {
					return err
				}
			}
			plan, err := control.NewClient(socket).Plan(cmd.Context(), candidate)
			if problem := (*control.Problem)(nil); len(args) == 1 && errors.As(err, &problem) && problem.Status == http.StatusBadRequest {
				return fmt.Errorf("%s: %w", args[0], err) // which has a mistake
			}
			if err != nil {
				return err
			}
			if format == outputJSON {
				err = printJSON(cmd.OutOrStdout(), plan)
			} else {
				for _, step := range plan.Steps {
					fmt.Fprintln(cmd.OutOrStdout(), step.Text)
				}
				if len(plan.Steps) == 0 {
					fmt.Fprintln(cmd.OutOrStdout(), "there is nothing to do")
				}
			}
			switch n := len(plan.Steps); {
			case err != nil || n == 0:
			case n == 1:
				err = &daemon.ExitError{Code: exitDifference, Err: errors.New("1 step to do")}
			default:
				err = &daemon.ExitError{Code: exitDifference, Err: fmt.Errorf("%d steps to do", n)}
			}
			return err
		},
	}
	registerSocket(cmd, &socket)
	format.register(cmd)
	return cmd
}

func printVIPs(w io.Writer, s control.State, vips []metrics.VIP) error {
	fmt.Fprintln(w, s.Status.NodeID+": "+s.Status.Summary)
	if s.Status.Refused != "" {
		fmt.Fprintln(w, "the last reload was refused, and an older configuration is in force: "+s.Status.Refused)
	}
	if d := s.Drains.Node; d != nil {
		fmt.Fprintf(w, "the node is drained since %s by %s: %s\n", d.Since.Local().Format("2006-01-02 15:04:05"), d.By, d.Reason)
	}
	var rows [][]any
	for _, v := range vips {
		held := v.HeldAs
		if v.Held && held == "none" {
			held = "by others"
		}
		announced := "no"
		switch {
		case !s.Status.TableRead:
			announced = "unknown"
		case v.Lowered:
			announced = "lowered"
		case v.Announced:
			announced = "yes"
		}
		why := v.Why
		if v.Trouble != "" {
			why += "; but " + v.Trouble
		}
		if v.Conflict != "" {
			why += "; " + v.Conflict + " of somebody else's is left alone"
		}
		rows = append(rows, []any{v.Address, v.Want, announced, offeredTo(v), held, why})
	}
	fmt.Fprintln(w)
	return printTable(w, "VIP\tWANT\tANNOUNCED\tOFFERED TO\tHELD\tWHY", rows)
}

// offeredTo says in a few words which peers are offered v.
func offeredTo(v metrics.VIP) string {
	switch n := len(v.OfferedTo); {
	case !v.Announced:
		return "-"
	case v.OfferedTo == nil:
		return "unknown"
	case n == 0:
		return "nobody"
	case n == 1:
		return v.OfferedTo[0]
	default:
		return fmt.Sprintf("%d peers", n)
	}
}
