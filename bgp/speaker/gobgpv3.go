package speaker

import (
	"context"
	"fmt"
	"net/netip"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// gobgpV3 is the API of gobgpd 3.x, service apipb.GobgpApi: NLRI and attributes are
// packed messages of any type.
type gobgpV3 struct {
	conn   grpc.ClientConnInterface
	client api.GobgpApiClient
}

func newGoBGPv3(conn grpc.ClientConnInterface) gobgpV3 {
	return gobgpV3{conn, api.NewGobgpApiClient(conn)}
}

func (gobgpV3) number() int { return 3 }

func (g gobgpV3) asn(ctx context.Context) (uint32, error) {
	answer, err := g.client.GetBgp(ctx, &api.GetBgpRequest{})
	return answer.GetGlobal().GetAsn(), err
}

func (g gobgpV3) peers(ctx context.Context, each func(Peer) error) error {
	stream, err := g.client.ListPeer(ctx, &api.ListPeerRequest{})
	if err != nil {
		return err
	}
	return receive(stream, func(answer *api.ListPeerResponse) error { return each(decodePeerV3(answer.GetPeer())) })
}

func (g gobgpV3) paths(ctx context.Context, q question, each func(string, *listed) error) error {
	req := &api.ListPathRequest{TableType: api.TableType_GLOBAL, Family: familyV3(q.family), EnableOnlyBinary: true, BatchSize: listBatch}
	if q.adjOutOf.IsValid() {
		req.TableType, req.Name = api.TableType_ADJ_OUT, q.adjOutOf.String()
		req.EnableFiltered = q.filtered
	}
	for _, p := range q.prefixes {
		req.Prefixes = append(req.Prefixes, &api.TableLookupPrefix{Prefix: p.String()})
	}
	return listPaths(ctx, g.conn, "/apipb.GobgpApi/ListPath", req, decodeAttributesV3, each)
}

func (g gobgpV3) add(ctx context.Context, paths []Path, withdraw bool) error {
	req := &api.AddPathStreamRequest{TableType: api.TableType_GLOBAL}
	for _, p := range paths {
		encoded, err := encodePathV3(p)
		if err != nil {
			return err
		}
		encoded.IsWithdraw = withdraw
		req.Paths = append(req.Paths, encoded)
	}
	stream, err := g.client.AddPathStream(ctx)
	if err != nil {
		return err
	}
	return sendOne(stream, req)
}

func (g gobgpV3) watch(ctx context.Context, changed func()) error {
	stream, err := g.client.WatchEvent(ctx, &api.WatchEventRequest{Peer: &api.WatchEventRequest_Peer{}})
	if err != nil {
		return err
	}
	return receive(stream, func(*api.WatchEventResponse) error { changed(); return nil })
}

func familyV3(f family) *api.Family {
	return &api.Family{Afi: api.Family_Afi(f), Safi: api.Family_SAFI_UNICAST}
}

func encodePathV3(p Path) (*api.Path, error) {
	f := familyV3(familyOf(p.Prefix.Addr()))
	nlri, err := anypb.New(&api.IPAddressPrefix{Prefix: p.Prefix.Addr().String(), PrefixLen: uint32(p.Prefix.Bits())})
	if err != nil {
		return nil, err
	}
	attributes := []proto.Message{&api.OriginAttribute{Origin: originIGP}}
	if p.Prefix.Addr().Is4() {
		attributes = append(attributes, &api.NextHopAttribute{NextHop: p.NextHop.String()})
	} else {
		attributes = append(attributes, &api.MpReachNLRIAttribute{Family: f, NextHops: []string{p.NextHop.String()}, Nlris: []*anypb.Any{nlri}})
	}
	if len(p.ASPath) > 0 {
		attributes = append(attributes, &api.AsPathAttribute{Segments: []*api.AsSegment{{Type: api.AsSegment_AS_SEQUENCE, Numbers: p.ASPath}}})
	}
	if p.MED != nil {
		attributes = append(attributes, &api.MultiExitDiscAttribute{Med: *p.MED})
	}
	if p.LocalPref != nil {
		attributes = append(attributes, &api.LocalPrefAttribute{LocalPref: *p.LocalPref})
	}
	if len(p.Communities) > 0 {
		a := &api.CommunitiesAttribute{}
		for _, c := range p.Communities {
			a.Communities = append(a.Communities, uint32(c))
		}
		attributes = append(attributes, a)
	}
	if len(p.LargeCommunities) > 0 {
		a := &api.LargeCommunitiesAttribute{}
		for _, c := range p.LargeCommunities {
			a.Communities = append(a.Communities, &api.LargeCommunity{GlobalAdmin: c.Global, LocalData1: c.Local1, LocalData2: c.Local2})
		}
		attributes = append(attributes, a)
	}
	encoded := &api.Path{Nlri: nlri, Family: f, Identifier: OwnPathID}
	for _, a := range attributes {
		packed, err := anypb.New(a)
		if err != nil {
			return nil, err
		}
		encoded.Pattrs = append(encoded.Pattrs, packed)
	}
	return encoded, nil
}

// decodeAttributesV3 fills in r those of a path that are messages of the API.
func decodeAttributesV3(message []byte, r *Route) error {
	var p api.Path
	if err := proto.Unmarshal(message, &p); err != nil {
		return fmt.Errorf("path of %s: %w", r.Prefix, err)
	}
	for _, packed := range p.Pattrs {
		message, err := packed.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("attribute of %s: %w", r.Prefix, err)
		}
		switch a := message.(type) {
		case *api.NextHopAttribute:
			r.NextHop, err = netip.ParseAddr(a.NextHop)
		case *api.MpReachNLRIAttribute:
			if len(a.NextHops) > 0 {
				r.NextHop, err = netip.ParseAddr(a.NextHops[0])
			}
		case *api.AsPathAttribute:
			for _, segment := range a.Segments {
				r.ASPath = append(r.ASPath, segment.Numbers...)
			}
		case *api.MultiExitDiscAttribute:
			r.MED = &a.Med
		case *api.LocalPrefAttribute:
			r.LocalPref = &a.LocalPref
		case *api.CommunitiesAttribute:
			for _, c := range a.Communities {
				r.Communities = append(r.Communities, Community(c))
			}
		case *api.LargeCommunitiesAttribute:
			for _, c := range a.Communities {
				r.LargeCommunities = append(r.LargeCommunities, LargeCommunity{c.GlobalAdmin, c.LocalData1, c.LocalData2})
			}
		}
		if err != nil {
			return fmt.Errorf("next hop of %s: %w", r.Prefix, err)
		}
	}
	return nil
}

func decodePeerV3(p *api.Peer) Peer {
	state := p.GetState()
	peer := Peer{
		Address:     peerAddress(state.GetNeighborAddress(), p.GetConf().GetNeighborAddress()),
		ASN:         state.GetPeerAsn(),
		State:       sessionState(state.GetSessionState().String()),
		Established: state.GetSessionState() == api.PeerState_ESTABLISHED,
		Received:    counters(state.GetMessages().GetReceived()),
		Sent:        counters(state.GetMessages().GetSent()),
	}
	if uptime := p.GetTimers().GetState().GetUptime(); peer.Established && uptime != nil {
		peer.Since = uptime.AsTime()
	}
	return peer
}
