package speaker

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"syscall"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// The two address families that we speak, IPv4 first; see familyIndex.
var families = []*api.Family{
	{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST},
	{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST},
}

func familyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// isLearned reports whether the daemon has p from a peer. A path of a local
// client has no neighbour, which the API writes as "<nil>". Only local paths can
// be ours: with add-path a peer may choose any identifier, OwnPathID too.
func isLearned(p *api.Path) bool {
	_, err := netip.ParseAddr(p.NeighborIp)
	return err == nil
}

// encodePath validates p first: the daemon would take an IPv4 prefix with an IPv6
// family as ::/32, and mask host bits, both without a word.
func encodePath(p Path) (*api.Path, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	nextHop := p.NextHop
	if !nextHop.IsValid() {
		nextHop = netip.IPv6Unspecified()
		if p.Prefix.Addr().Is4() {
			nextHop = netip.IPv4Unspecified()
		}
	}
	family := families[familyIndex(p.Prefix.Addr())]
	nlri, err := anypb.New(&api.IPAddressPrefix{Prefix: p.Prefix.Addr().String(), PrefixLen: uint32(p.Prefix.Bits())})
	if err != nil {
		return nil, err
	}
	attributes := []proto.Message{&api.OriginAttribute{Origin: 0}} // IGP
	if p.Prefix.Addr().Is4() {
		attributes = append(attributes, &api.NextHopAttribute{NextHop: nextHop.String()})
	} else {
		attributes = append(attributes, &api.MpReachNLRIAttribute{Family: family, NextHops: []string{nextHop.String()}, Nlris: []*anypb.Any{nlri}})
	}
	if p.MED != nil {
		attributes = append(attributes, &api.MultiExitDiscAttribute{Med: *p.MED})
	}
	if p.LocalPref != nil {
		attributes = append(attributes, &api.LocalPrefAttribute{LocalPref: *p.LocalPref})
	}
	if len(p.Communities) > 0 {
		a := &api.CommunitiesAttribute{}
		for _, c := range sortedSet(p.Communities) {
			a.Communities = append(a.Communities, uint32(c))
		}
		attributes = append(attributes, a)
	}
	if len(p.LargeCommunities) > 0 {
		a := &api.LargeCommunitiesAttribute{}
		for _, c := range sortedLarge(p.LargeCommunities) {
			a.Communities = append(a.Communities, &api.LargeCommunity{GlobalAdmin: c.Global, LocalData1: c.Local1, LocalData2: c.Local2})
		}
		attributes = append(attributes, a)
	}
	encoded := &api.Path{Nlri: nlri, Family: family, Identifier: OwnPathID}
	for _, a := range attributes {
		packed, err := anypb.New(a)
		if err != nil {
			return nil, err
		}
		encoded.Pattrs = append(encoded.Pattrs, packed)
	}
	return encoded, nil
}

// prefixOf is the prefix of a path that encodePath made.
func prefixOf(p *api.Path) netip.Prefix {
	var nlri api.IPAddressPrefix
	if p.Nlri.UnmarshalTo(&nlri) != nil {
		return netip.Prefix{}
	}
	addr, _ := netip.ParseAddr(nlri.Prefix)
	return netip.PrefixFrom(addr, int(nlri.PrefixLen))
}

// decodeRoute reads the attributes that we know; others are left out.
func decodeRoute(prefix netip.Prefix, p *api.Path) (Route, error) {
	r := Route{Prefix: prefix, PathID: p.Identifier, Best: p.Best, Stale: p.Stale}
	r.Peer, _ = netip.ParseAddr(p.NeighborIp)
	for _, packed := range p.Pattrs {
		message, err := packed.UnmarshalNew()
		if err != nil {
			return r, fmt.Errorf("attribute of %s: %w", prefix, err)
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
			return r, fmt.Errorf("next hop of %s: %w", prefix, err)
		}
	}
	slices.Sort(r.Communities)
	slices.SortFunc(r.LargeCommunities, LargeCommunity.Compare)
	return r, nil
}

func decodePath(prefix netip.Prefix, p *api.Path) (Path, error) {
	r, err := decodeRoute(prefix, p)
	if err != nil {
		return Path{}, err
	}
	if r.NextHop.IsUnspecified() {
		r.NextHop = netip.Addr{}
	}
	return Path{Prefix: prefix, NextHop: r.NextHop, Communities: r.Communities, LargeCommunities: r.LargeCommunities,
		MED: r.MED, LocalPref: r.LocalPref}, nil
}

// isNobodyListening reports whether a dial failed because there is no listener.
func isNobodyListening(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}
