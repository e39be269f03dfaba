package speaker

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Type codes of path attributes (IANA's "BGP Path Attributes").
const (
	attrASPath           = 2
	attrNextHop          = 3
	attrMED              = 4
	attrLocalPref        = 5
	attrCommunities      = 8
	attrMPReach          = 14
	attrLargeCommunities = 32
)

const flagExtendedLength = 0x10 // the length takes two octets

var errAttribute = errors.New("a length is wrong")

// attributeOf splits an attribute as BGP has it (RFC 4271, section 4.3) into its type and its value.
func attributeOf(b []byte) (kind byte, value []byte, err error) {
	if len(b) < 3 {
		return 0, nil, errAttribute
	}
	head, length := 3, int(b[2])
	if b[0]&flagExtendedLength != 0 {
		if len(b) < 4 {
			return 0, nil, errAttribute
		}
		head, length = 4, int(binary.BigEndian.Uint16(b[2:]))
	}
	if len(b) != head+length {
		return 0, nil, errAttribute
	}
	return b[1], b[head:], nil
}

// nextHopOfMPReach is the next hop in an MP_REACH_NLRI (RFC 4760, section 3); of an
// IPv6 route the global one, where there is a link-local one beside it (RFC 2545, section 3).
func nextHopOfMPReach(value []byte) ([]byte, error) {
	const head = 4 // AFI, SAFI, length of the next hop
	if len(value) < head || len(value) < head+int(value[3]) {
		return nil, errAttribute
	}
	hop := value[head : head+int(value[3])]
	return hop[:min(len(hop), 16)], nil
}

// decodeAttribute fills in r what the attribute says, if it is one that we know. AS
// numbers have four octets, which is how the daemon keeps them.
func decodeAttribute(b []byte, r *Route) error {
	kind, value, err := attributeOf(b)
	if err != nil {
		return err
	}
	switch kind {
	case attrNextHop:
		return decodeNextHop(value, r)
	case attrMPReach:
		hop, err := nextHopOfMPReach(value)
		if err != nil || len(hop) == 0 {
			return err
		}
		return decodeNextHop(hop, r)
	case attrASPath:
		for len(value) > 0 {
			if len(value) < 2 || len(value) < 2+4*int(value[1]) {
				return errAttribute
			}
			end := 2 + 4*int(value[1])
			r.ASPath = append(r.ASPath, numbers(value[2:end])...)
			value = value[end:]
		}
	case attrMED, attrLocalPref:
		if len(value) != 4 {
			return errAttribute
		}
		n := binary.BigEndian.Uint32(value)
		if kind == attrMED {
			r.MED = &n
		} else {
			r.LocalPref = &n
		}
	case attrCommunities:
		if len(value)%4 != 0 {
			return errAttribute
		}
		for _, n := range numbers(value) {
			r.Communities = append(r.Communities, Community(n))
		}
	case attrLargeCommunities:
		if len(value)%12 != 0 {
			return errAttribute
		}
		for n := numbers(value); len(n) > 0; n = n[3:] {
			r.LargeCommunities = append(r.LargeCommunities, LargeCommunity{n[0], n[1], n[2]})
		}
	}
	return nil
}

func decodeNextHop(value []byte, r *Route) error {
	hop, ok := netip.AddrFromSlice(value)
	if !ok {
		return errAttribute
	}
	r.NextHop = hop.Unmap() // an IPv4 one of an IPv6 route
	return nil
}

// numbers are those of four octets each in b.
func numbers(b []byte) []uint32 {
	all := make([]uint32, len(b)/4)
	for i := range all {
		all[i] = binary.BigEndian.Uint32(b[4*i:])
	}
	return all
}
