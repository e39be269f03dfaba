package api

import (
	"context"
	"net/http"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
)

// VIP is one VIP with its nodes, as GET /api/v1/vips shows it.
type VIP struct {
	VIP       string         `json:"vip"`      // a host prefix such as 203.0.113.10/32
	Declared  bool           `json:"declared"` // in the deployer's manifest now
	Status    node.VIPStatus `json:"status"`
	Since     *time.Time     `json:"since,omitempty"` // when Status came, once it has settled; of declared VIPs
	Announced int            `json:"announced"`       // nodes that announce it and are online
	Nodes     []VIPNode      `json:"nodes"`           // those that should announce it and those that say something of it, by id
}

// VIPNode is one node's part in a VIP.
type VIPNode struct {
	ID           string            `json:"node_id"`
	Declared     bool              `json:"declared"`         // the manifest lets it announce the VIP
	State        string            `json:"state,omitempty"`  // what the node said last, see node.VIPState; "": nothing
	Reason       string            `json:"reason,omitempty"` // why
	Reachability node.Reachability `json:"reachability"`     // what an offline node said counts no more
}

// VIPList is GET /api/v1/vips: all declared VIPs and those that nodes announce
// otherwise, by address. With after or limit it is a page of them.
type VIPList struct {
	VIPs    []VIP  `json:"vips"`
	LeftOut int    `json:"left_out,omitempty"` // VIPs that are not declared, over the first MaxUndeclaredVIPs
	Next    string `json:"next,omitempty"`     // what to send as after for those behind; none at the end
}

// MaxUndeclaredVIPs is how many VIPs a VIPList has that no manifest declares.
const MaxUndeclaredVIPs = 1000

// VIPs returns all VIPs with the nodes that announce them, and that should.
func (c *Client) VIPs(ctx context.Context) (VIPList, error) {
	all := VIPList{VIPs: []VIP{}}
	for after := ""; ; {
		var list VIPList
		if err := c.do(ctx, http.MethodGet, PathVIPs, page(after), c.bearer(), nil, maxListBytes, &list); err != nil {
			return all, err
		}
		all.VIPs, all.LeftOut = append(all.VIPs, list.VIPs...), list.LeftOut
		if list.Next == "" || after != "" && node.CompareVIPs(list.Next, after) <= 0 { // at the end, or no deployer's
			return all, nil
		}
		after = list.Next
	}
}
