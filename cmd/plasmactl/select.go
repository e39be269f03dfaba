package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// selection says which nodes are meant.
type selection struct {
	labels []string // KEY=VALUE, or KEY for any value
	role   string
	state  string
}

func (s *selection) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVarP(&s.labels, "selector", "l", nil, "only nodes that are declared with this `LABEL=VALUE`, or with this LABEL; repeatable, all of them count")
	flags.StringVar(&s.role, "role", "", "only nodes with this `ROLE`")
	flags.StringVar(&s.state, "state", "", "only nodes in this `STATE`: Pending, Provisioning, Active, Failed or Decommissioned")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"control-plane", "worker"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(states(), cobra.ShellCompDirectiveNoFileComp))
}

func states() []string {
	var all []string
	for _, state := range node.States {
		all = append(all, string(state))
	}
	return all
}

func (s *selection) empty() bool { return len(s.labels) == 0 && s.role == "" && s.state == "" }

// check finds mistakes, and brings the state to its own spelling.
func (s *selection) check() error {
	for _, l := range s.labels {
		if key, _, _ := strings.Cut(l, "="); key == "" {
			return daemon.UsageError(fmt.Errorf("--selector %q: want LABEL=VALUE, or LABEL", l))
		}
	}
	if s.state == "" {
		return nil
	}
	at := slices.IndexFunc(node.States, func(known node.State) bool { return strings.EqualFold(string(known), s.state) })
	if at < 0 {
		return daemon.UsageError(fmt.Errorf("--state %q: want %s", s.state, strings.Join(states(), ", ")))
	}
	s.state = string(node.States[at])
	return nil
}

func (s *selection) has(n api.Node) bool {
	for _, l := range s.labels {
		key, want, exact := strings.Cut(l, "=")
		if value, ok := n.Labels[key]; !ok || exact && value != want {
			return false
		}
	}
	return (s.role == "" || n.Role == s.role) && (s.state == "" || string(n.State) == s.state)
}

func (s *selection) of(nodes []api.Node) []api.Node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n api.Node) bool { return !s.has(n) })
}
