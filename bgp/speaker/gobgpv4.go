package speaker

import (
	"context"
	"fmt"
	"net/netip"

	api "github.com/osrg/gobgp/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// gobgpV4 is the API of gobgpd 4.x, service api.GoBgpService: NLRI and attributes
// are messages of their own types.
type gobgpV4 struct {
	conn   grpc.ClientConnInterface
	client api.GoBgpServiceClient
}

func newGoBGPv4(conn grpc.ClientConnInterface) gobgpV4 {
	return gobgpV4{conn, api.NewGoBgpServiceClient(conn)}
}

func (gobgpV4) number() int { return 4 }

func (g gobgpV4) asn(ctx context.Context) (uint32, error) {
	answer, err := g.client.GetBgp(ctx, &api.GetBgpRequest{})
	return answer.GetGlobal().GetAsn(), err
}

func (g gobgpV4) peers(ctx context.Context, each func(Peer) error) error {
	stream, err := g.client.ListPeer(ctx, &api.ListPeerRequest{})
	if err != nil {
		return err
	}
	return receive(stream, func(answer *api.ListPeerResponse) error { return each(decodePeerV4(answer.GetPeer())) })
}

func (g gobgpV4) paths(ctx context.Context, q question, each func(string, *listed) error) error {
	req := &api.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: familyV4(q.family), EnableOnlyBinary: true, BatchSize: listBatch}
	if q.adjOutOf.IsValid() {
		req.TableType, req.Name = api.TableType_TABLE_TYPE_ADJ_OUT, q.adjOutOf.String()
		req.EnableFiltered = q.filtered
	}
	for _, p := range q.prefixes {
		req.Prefixes = append(req.Prefixes, &api.TableLookupPrefix{Prefix: p.String()})
	}
	return listPaths(ctx, g.conn, api.GoBgpService_ListPath_FullMethodName, req, decodeAttributesV4, each)
}

func (g gobgpV4) add(ctx context.Context, paths []Path, withdraw bool) error {
	req := &api.AddPathStreamRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL}
	for _, p := range paths {
		encoded := encodePathV4(p)
		encoded.IsWithdraw = withdraw
		req.Paths = append(req.Paths, encoded)
	}
	stream, err := g.client.AddPathStream(ctx)
	if err != nil {
		return err
	}
	return sendOne(stream, req)
}

func (g gobgpV4) watch(ctx context.Context, changed func()) error {
	stream, err := g.client.WatchEvent(ctx, &api.WatchEventRequest{Peer: &api.WatchEventRequest_Peer{}})
	if err != nil {
		return err
	}
	return receive(stream, func(*api.WatchEventResponse) error { changed(); return nil })
}

func familyV4(f family) *api.Family {
	return &api.Family{Afi: api.Family_Afi(f), Safi: api.Family_SAFI_UNICAST}
}

func encodePathV4(p Path) *api.Path {
	f := familyV4(familyOf(p.Prefix.Addr()))
	nlri := &api.NLRI{Nlri: &api.NLRI_Prefix{Prefix: &api.IPAddressPrefix{Prefix: p.Prefix.Addr().String(), PrefixLen: uint32(p.Prefix.Bits())}}}
	encoded := &api.Path{Nlri: nlri, Family: f, Identifier: OwnPathID, Pattrs: []*api.Attribute{
		{Attr: &api.Attribute_Origin{Origin: &api.OriginAttribute{Origin: originIGP}}},
	}}
	if p.Prefix.Addr().Is4() {
		encoded.Pattrs = append(encoded.Pattrs, &api.Attribute{Attr: &api.Attribute_NextHop{NextHop: &api.NextHopAttribute{NextHop: p.NextHop.String()}}})
	} else {
		encoded.Pattrs = append(encoded.Pattrs, &api.Attribute{Attr: &api.Attribute_MpReach{MpReach: &api.MpReachNLRIAttribute{
			Family: f, NextHops: []string{p.NextHop.String()}, Nlris: []*api.NLRI{nlri}}}})
	}
	if len(p.ASPath) > 0 {
		encoded.Pattrs = append(encoded.Pattrs, &api.Attribute{Attr: &api.Attribute_AsPath{AsPath: &api.AsPathAttribute{
			Segments: []*api.AsSegment{{Type: api.AsSegment_TYPE_AS_SEQUENCE, Numbers: p.ASPath}}}}})
	}
	if p.MED != nil {
		encoded.Pattrs = append(encoded.Pattrs, &api.Attribute{Attr: &api.Attribute_MultiExitDisc{MultiExitDisc: &api.MultiExitDiscAttribute{Med: *p.MED}}})
	}
	if p.LocalPref != nil {
		encoded.Pattrs = append(encoded.Pattrs, &api.Attribute{Attr: &api.Attribute_LocalPref{LocalPref: &api.LocalPrefAttribute{LocalPref: *p.LocalPref}}})
	}
	if len(p.Communities) > 0 {
		a := &api.CommunitiesAttribute{}
		for _, c := range p.Communities {
			a.Communities = append(a.Communities, uint32(c))
		}
		encoded.Pattrs = append(encoded.Pattrs, &api.Attribute{Attr: &api.Attribute_Communities{Communities: a}})
	}
	if len(p.LargeCommunities) > 0 {
		a := &api.LargeCommunitiesAttribute{}
		for _, c := range p.LargeCommunities {
			a.Communities = append(a.Communities, &api.LargeCommunity{GlobalAdmin: c.Global, LocalData1: c.Local1, LocalData2: c.Local2})
		}
		encoded.Pattrs = append(encoded.Pattrs, &api.Attribute{Attr: &api.Attribute_LargeCommunities{LargeCommunities: a}})
	}
	return encoded
}

// decodeAttributesV4 fills in r those of a path that are messages of the API.
func decodeAttributesV4(message []byte, r *Route) error {
	var p api.Path
	if err := proto.Unmarshal(message, &p); err != nil {
		return fmt.Errorf("path of %s: %w", r.Prefix, err)
	}
	for _, packed := range p.Pattrs {
		var err error
		switch a := packed.GetAttr().(type) {
		case *api.Attribute_NextHop:
			r.NextHop, err = netip.ParseAddr(a.NextHop.NextHop)
		case *api.Attribute_MpReach:
			if len(a.MpReach.NextHops) > 0 {
				r.NextHop, err = netip.ParseAddr(a.MpReach.NextHops[0])
			}
		case *api.Attribute_AsPath:
			for _, segment := range a.AsPath.Segments {
				r.ASPath = append(r.ASPath, segment.Numbers...)
			}
		case *api.Attribute_MultiExitDisc:
			r.MED = &a.MultiExitDisc.Med
		case *api.Attribute_LocalPref:
			r.LocalPref = &a.LocalPref.LocalPref
		case *api.Attribute_Communities:
			for _, c := range a.Communities.Communities {
				r.Communities = append(r.Communities, Community(c))
			}
		case *api.Attribute_LargeCommunities:
			for _, c := range a.LargeCommunities.Communities {
				r.LargeCommunities = append(r.LargeCommunities, LargeCommunity{c.GlobalAdmin, c.LocalData1, c.LocalData2})
			}
		}
		if err != nil {
			return fmt.Errorf("next hop of %s: %w", r.Prefix, err)
		}
	}
	return nil
}

func decodePeerV4(p *api.Peer) Peer {
	state := p.GetState()
	peer := Peer{
		Address:     peerAddress(state.GetNeighborAddress(), p.GetConf().GetNeighborAddress()),
		ASN:         state.GetPeerAsn(),
		State:       sessionState(state.GetSessionState().String()),
		Established: state.GetSessionState() == api.PeerState_SESSION_STATE_ESTABLISHED,
		Received:    counters(state.GetMessages().GetReceived()),
		Sent:        counters(state.GetMessages().GetSent()),
	}
	if uptime := p.GetTimers().GetState().GetUptime(); peer.Established && uptime != nil {
		peer.Since = uptime.AsTime()
	}
	return peer
}
