package speaker

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"

	api "github.com/osrg/gobgp/v3/api"
)

// Routes reads the daemon's global table, IPv4 before IPv6, then by prefix, the
// best path of a prefix first.
func (g *GoBGPv3) Routes(ctx context.Context) ([]Route, error) {
	var routes []Route
	for _, family := range families {
		err := g.listPath(ctx, &api.ListPathRequest{TableType: api.TableType_GLOBAL, Family: family}, func(d *api.Destination) error {
			prefix, err := netip.ParsePrefix(d.Prefix)
			if err != nil {
				return err
			}
			for _, p := range d.Paths {
				r, err := decodeRoute(prefix, p)
				if err != nil {
					return err
				}
				routes = append(routes, r)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(routes, func(a, b Route) int {
		return cmp.Or(
			cmp.Compare(a.Prefix.Addr().BitLen(), b.Prefix.Addr().BitLen()),
			a.Prefix.Compare(b.Prefix))
	})
	return routes, nil
}

// Peers lists the daemon's neighbours by address.
func (g *GoBGPv3) Peers(ctx context.Context) ([]Peer, error) {
	reqCtx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	stream, err := g.client.ListPeer(reqCtx, &api.ListPeerRequest{})
	if err != nil {
		return nil, g.explain(ctx, "list peers", err)
	}
	var peers []Peer
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, g.explain(ctx, "list peers", err)
		}
		peers = append(peers, decodePeer(answer.GetPeer()))
	}
	slices.SortFunc(peers, func(a, b Peer) int { return a.Address.Compare(b.Address) })
	return peers, nil
}

func decodePeer(p *api.Peer) Peer {
	state := p.GetState()
	// A peer by interface has its address only in the state.
	address, err := netip.ParseAddr(state.GetNeighborAddress())
	if err != nil {
		address, _ = netip.ParseAddr(p.GetConf().GetNeighborAddress())
	}
	count := func(m *api.Message) PeerCounters { return PeerCounters{Updates: m.GetUpdate(), Total: m.GetTotal()} }
	peer := Peer{
		Address:     address,
		ASN:         state.GetPeerAsn(),
		State:       strings.ToLower(state.GetSessionState().String()),
		Established: state.GetSessionState() == api.PeerState_ESTABLISHED,
		Received:    count(state.GetMessages().GetReceived()),
		Sent:        count(state.GetMessages().GetSent()),
	}
	if uptime := p.GetTimers().GetState().GetUptime(); peer.Established && uptime != nil {
		peer.Since = uptime.AsTime()
	}
	return peer
}
