package speaker

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Community is a standard community (RFC 1997): two 16-bit halves, written "65001:100".
type Community uint32

// GracefulShutdown asks routers to prefer any other path (RFC 8326, section 4.1).
const GracefulShutdown Community = 0xffff_0000

// ParseCommunity reads "HIGH:LOW", each half from 0 to 65535.
func ParseCommunity(s string) (Community, error) {
	parts, err := parseNumbers(s, 2, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a community: want two numbers from 0 to 65535, such as \"65001:100\"", s)
	}
	return Community(parts[0]<<16 | parts[1]), nil
}

func (c Community) String() string { return fmt.Sprintf("%d:%d", c>>16, c&0xffff) }

// LargeCommunity is a large community (RFC 8092), written "65001:1:2".
type LargeCommunity struct{ Global, Local1, Local2 uint32 }

// ParseLargeCommunity reads "GLOBAL:LOCAL1:LOCAL2", each from 0 to 4294967295.
func ParseLargeCommunity(s string) (LargeCommunity, error) {
	parts, err := parseNumbers(s, 3, 32)
	if err != nil {
		return LargeCommunity{}, fmt.Errorf("%q is not a large community: want three numbers from 0 to 4294967295, such as \"65001:1:2\"", s)
	}
	return LargeCommunity{parts[0], parts[1], parts[2]}, nil
}

func (c LargeCommunity) String() string {
	return fmt.Sprintf("%d:%d:%d", c.Global, c.Local1, c.Local2)
}

// Compare orders by Global, Local1, Local2.
func (c LargeCommunity) Compare(d LargeCommunity) int {
	return slices.Compare([]uint32{c.Global, c.Local1, c.Local2}, []uint32{d.Global, d.Local1, d.Local2})
}

// parseNumbers reads want decimal numbers separated by colons, without signs or leading zeros.
func parseNumbers(s string, want, bits int) ([]uint32, error) {
	parts := strings.Split(s, ":")
	if len(parts) != want {
		return nil, strconv.ErrSyntax
	}
	numbers := make([]uint32, want)
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, bits)
		if err != nil {
			return nil, err
		}
		if p != strconv.FormatUint(n, 10) {
			return nil, strconv.ErrSyntax
		}
		numbers[i] = uint32(n)
	}
	return numbers, nil
}

// MaxASPath is how many ASNs fit into one segment of an AS_PATH (RFC 4271, section 4.3).
const MaxASPath = 255

// Path is one route that we originate: a host prefix and its attributes (RFC 4271, section 5).
type Path struct {
	Prefix           netip.Prefix // canonical host prefix: /32 or /128, not IPv4-mapped
	ASPath           []uint32     // as originated, nearest AS first; towards another AS the speaker puts its own before it
	NextHop          netip.Addr   // of the prefix's family; the zero Addr means the speaker's own address on each session
	Communities      []Community
	LargeCommunities []LargeCommunity
	MED              *uint32 // nil: not sent
	LocalPref        *uint32 // nil: the speaker's default
}

// HostPrefix is the /32 or /128 of a.
func HostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// Validate refuses what a daemon would accept and silently change: host bits, a
// family that differs between prefix and next hop, mapped or zoned addresses.
func (p Path) Validate() error {
	a := p.Prefix.Addr()
	switch {
	case !p.Prefix.IsValid():
		return errors.New("path has no prefix")
	case a.Is4In6():
		return fmt.Errorf("prefix %s is an IPv4 address written as IPv6; write %s", p.Prefix, a.Unmap())
	case !p.Prefix.IsSingleIP():
		return fmt.Errorf("prefix %s is not a host prefix; want /%d", p.Prefix, a.BitLen())
	case !a.IsGlobalUnicast():
		return fmt.Errorf("prefix %s cannot be announced: not a global unicast address", p.Prefix)
	case len(p.ASPath) > MaxASPath:
		return fmt.Errorf("AS path of %s has %d ASNs; at most %d are allowed", p.Prefix, len(p.ASPath), MaxASPath)
	case slices.Contains(p.ASPath, 0):
		return fmt.Errorf("AS path of %s has AS 0, which is none", p.Prefix)
	}
	n := p.NextHop
	switch {
	case !n.IsValid():
		return nil
	case n.Zone() != "" || n.Is4In6() || n.IsUnspecified() || n.IsMulticast():
		return fmt.Errorf("next hop %s of %s is not a plain unicast address", n, p.Prefix)
	case n.Is4() != a.Is4():
		return fmt.Errorf("next hop %s and prefix %s differ in family", n, p.Prefix)
	}
	return nil
}

// Equal reports whether p and q would be announced alike. Communities are sets
// (RFC 1997, RFC 8092): their order and repetition do not count.
func (p Path) Equal(q Path) bool {
	return p.Prefix == q.Prefix && p.NextHop == q.NextHop && slices.Equal(p.ASPath, q.ASPath) &&
		equalPtr(p.MED, q.MED) && equalPtr(p.LocalPref, q.LocalPref) &&
		slices.Equal(sortedSet(p.Communities), sortedSet(q.Communities)) &&
		slices.EqualFunc(sortedLarge(p.LargeCommunities), sortedLarge(q.LargeCommunities),
			func(a, b LargeCommunity) bool { return a == b })
}

func equalPtr(a, b *uint32) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func sortedSet(s []Community) []Community {
	if isSet(s, cmp.Compare) {
		return s
	}
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}

func sortedLarge(s []LargeCommunity) []LargeCommunity {
	if isSet(s, LargeCommunity.Compare) {
		return s
	}
	s = slices.Clone(s)
	slices.SortFunc(s, LargeCommunity.Compare)
	return slices.Compact(s)
}

// isSet reports whether s is in order, and has nothing twice.
func isSet[T any](s []T, compare func(T, T) int) bool {
	for i := 1; i < len(s); i++ {
		if compare(s[i-1], s[i]) >= 0 {
			return false
		}
	}
	return true
}
