package speaker

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
)

// Routes reads the daemon's global table, IPv4 before IPv6, then by prefix, the
// best path of a prefix first.
func (g *GoBGP) Routes(ctx context.Context) ([]Route, error) {
	var routes []Route
	for _, f := range families {
		err := g.list(ctx, question{family: f}, func(text string, p *listed) error {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				return err
			}
			r := Route{Prefix: prefix, PathID: p.identifier, Best: p.best, Stale: p.stale}
			r.Peer, _ = netip.ParseAddr(string(p.neighbor))
			err = p.attributes(&r)
			slices.Sort(r.Communities)
			slices.SortFunc(r.LargeCommunities, LargeCommunity.Compare)
			routes = append(routes, r)
			return err
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
func (g *GoBGP) Peers(ctx context.Context) ([]Peer, error) {
	reqCtx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	var peers []Peer
	err := g.ask(func(api generation) error {
		return api.peers(reqCtx, func(p Peer) error {
			peers = append(peers, p)
			return nil
		})
	})
	if err != nil {
		return nil, g.explain(ctx, "list peers", err)
	}
	slices.SortFunc(peers, func(a, b Peer) int { return a.Address.Compare(b.Address) })
	return peers, nil
}

// peerAddress prefers the state's address: a peer by interface has it only there.
func peerAddress(state, conf string) netip.Addr {
	address, err := netip.ParseAddr(state)
	if err != nil {
		address, _ = netip.ParseAddr(conf)
	}
	return address
}

// sessionState turns "ESTABLISHED" (v3) or "SESSION_STATE_ESTABLISHED" (v4) into "established".
func sessionState(name string) string {
	return strings.ToLower(strings.TrimPrefix(name, "SESSION_STATE_"))
}

func counters(m interface {
	GetUpdate() uint64
	GetTotal() uint64
}) PeerCounters {
	return PeerCounters{Updates: m.GetUpdate(), Total: m.GetTotal()}
}
