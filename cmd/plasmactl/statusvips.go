package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// drawVIPs shows all VIPs, and returns what there is to see of them.
func drawVIPs(ctx context.Context, w io.Writer, c *api.Client, format outputFormat) (seen string, err error) {
	list, err := c.VIPs(ctx)
	if err != nil {
		return "", unreached(err)
	}
	all, err := json.Marshal(list)
	if err != nil {
		return "", err
	}
	if format == outputJSON {
		return string(all), printJSON(w, list)
	}
	return string(all), printFleetVIPs(w, list, time.Now())
}

func printFleetVIPs(w io.Writer, list api.VIPList, now time.Time) error {
	vips := slices.Clone(list.VIPs)
	slices.SortStableFunc(vips, func(a, b api.VIP) int { return cmp.Compare(urgency(a), urgency(b)) })
	var rows [][]any
	for _, v := range vips {
		since := ""
		if v.Since != nil {
			since = ago(v.Since, now)
		}
		by, remark := partsOf(v)
		rows = append(rows, []any{v.VIP, vipStatus(v.Status), since, by, remark})
	}
	err := printTable(w, "VIP\tSTATUS\tSINCE\tANNOUNCED BY\tREMARK", rows)
	if err == nil && list.LeftOut > 0 {
		_, err = fmt.Fprintf(w, "and %d more that the manifest does not have\n", list.LeftOut)
	}
	return err
}

// urgency puts what needs somebody before what does not.
func urgency(v api.VIP) int {
	switch {
	case !v.Declared:
		return 3
	case v.Status == node.Unannounced:
		return 0
	case v.Status == node.Announced:
		return 2
	default:
		return 1
	}
}

// partsOf says which nodes announce v, and what is worth knowing of the others.
func partsOf(v api.VIP) (by, remark string) {
	var announce, remarks []string
	if !v.Declared {
		remarks = append(remarks, "not in the manifest")
	}
	for _, n := range v.Nodes {
		says := cmp.Or(n.State, "says nothing of it")
		announces := n.State == node.VIPAnnounced || n.State == node.VIPLowered
		switch {
		case n.Reachability == node.Offline:
			remarks = append(remarks, n.ID+" is offline")
			continue
		case n.Reachability == node.Unknown && n.State == "":
			remarks = append(remarks, n.ID+" was not heard")
			continue
		case announces && n.Reachability == node.Online:
			announce = append(announce, n.ID)
			if v.Declared && !n.Declared {
				remarks = append(remarks, n.ID+" is not to announce it")
			}
			if n.State == node.VIPAnnounced && n.Reason == "" {
				continue
			}
		}
		switch {
		case n.Reason == "":
		case strings.HasPrefix(n.Reason, says+" "): // as in "drained by alice"
			says = n.Reason
		default:
			says += ": " + n.Reason
		}
		if n.Reachability == node.Unknown {
			says += ", and was not heard since"
		}
		remarks = append(remarks, n.ID+" "+says)
	}
	return strings.Join(announce, ", "), strings.Join(remarks, "; ")
}
