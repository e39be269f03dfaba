package deployer

import (
	"fmt"
	"strings"

	"github.com/centra/plasmacloud/deployer/node"
)

// Status is the fleet at a glance.
type Status struct {
	Nodes        int // that can be read
	States       map[node.State]int
	Reachability map[node.Reachability]int
	Config       map[node.Config]int
	Held         int // by an operator
	Waiting      int // their machine waits for an operator's approval
	Undeclared   int
	Unreadable   int                    // in no other number
	VIPs         map[node.VIPStatus]int // the declared ones
	Warnings     []string               // what somebody should look after, the gravest first
}

// StatusOf is the Status of what Nodes and VIPsOf returned.
func (r *Registry) StatusOf(views []View, vips []VIP) Status {
	unreadable := r.Unreadable()
	s := Status{
		Nodes: len(views), Unreadable: len(unreadable),
		States: map[node.State]int{}, Reachability: map[node.Reachability]int{}, Config: map[node.Config]int{}, VIPs: map[node.VIPStatus]int{},
	}
	var failed, offline, waiting, drifted, unheard []string
	for _, v := range views {
		s.States[v.State]++
		s.Reachability[v.Reachability]++
		s.Config[v.Config]++
		if v.Held != nil {
			s.Held++
		}
		if !v.Declared {
			s.Undeclared++
		}
		if v.Waiting {
			waiting = append(waiting, v.ID)
		}
		switch {
		case v.State == node.Failed:
			failed = append(failed, v.ID)
		case v.State == node.Active && v.Reachability == node.Offline:
			offline = append(offline, v.ID)
		case v.State == node.Decommissioned && v.Acknowledged.IsZero() && v.Reachability == node.Online:
			unheard = append(unheard, v.ID)
		}
		if v.State == node.Active && v.Config == node.Drifted {
			drifted = append(drifted, v.ID)
		}
	}
	s.Waiting = len(waiting)
	warn := func(ids []string, what string) {
		if len(ids) > 0 {
			s.Warnings = append(s.Warnings, fmt.Sprintf("%d %s: %s", len(ids), what, some(ids)))
		}
	}
	warn(unreadable, "with a record that cannot be read")
	var nowhere []string
	for _, v := range vips {
		if !v.Declared {
			continue
		}
		if s.VIPs[v.Status]++; v.Status == node.Unannounced {
			nowhere = append(nowhere, v.VIP)
		}
	}
	warn(nowhere, map[bool]string{true: "VIP", false: "VIPs"}[len(nowhere) == 1]+" that no node announces")
	warn(failed, "Failed")
	warn(offline, "Active and offline")
	warn(waiting, "waiting for an approval")
	warn(drifted, "with another configuration than the manifest expects")
	warn(unheard, "decommissioned, and have not acknowledged it")
	return s
}

// some is the first of ids, and how many there are more.
func some(ids []string) string {
	const most = 5
	if len(ids) <= most {
		return strings.Join(ids, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(ids[:most], ", "), len(ids)-most)
}
