package node

import (
	"net/netip"
	"strings"
)

// ValidID says whether id may name a node: a lower-case host label (RFC 1123 section 2.1).
func ValidID(id string) bool {
	return 0 < len(id) && len(id) <= 63 && id[0] != '-' && id[len(id)-1] != '-' && only(alnum+"-", id)
}

// ValidConfigHash says whether h is "sha256:" and 64 lower-case hex digits.
func ValidConfigHash(h string) bool {
	digits, ok := strings.CutPrefix(h, "sha256:")
	return ok && len(digits) == 64 && only(hexDigits, digits)
}

const (
	hexDigits = "0123456789abcdef"
	alnum     = hexDigits + "ghijklmnopqrstuvwxyz"
)

// only says whether s has no other characters than chars. Regular expressions would be a
// measurable part of a report.
func only(chars, s string) bool { return strings.Trim(s, chars) == "" }

// vendorDefaults are machine ids that boards ship with when nobody wrote a real
// one, so that many machines have the same.
var vendorDefaults = map[string]bool{
	"03000200-0400-0500-0006-000700080009": true, // AMI reference firmware
	"00020003-0004-0005-0006-000700080009": true, // the same, in the byte order of SMBIOS 2.6
	"01234567-89ab-cdef-0123-456789abcdef": true,
	"12345678-1234-5678-90ab-cddeefaabbcc": true,
	"12345678-1234-1234-1234-123456789abc": true,
	"4c4c4544-0000-2010-8020-80c04f202020": true, // Dell with an empty service tag
	"20202020-2020-2020-2020-202020202020": true, // spaces
}

// CanonicalMachineID brings a machine id to its one spelling, lower case with a
// UUID's dashes. ok is false when the id cannot tell machines apart: empty, a
// single byte repeated (SMBIOS 7.2.1 uses all 00 and all FF for "not present"),
// a known vendor default, or not an id at all. Such an id must not bind a node.
func CanonicalMachineID(raw string) (id string, ok bool) {
	id = strings.ToLower(strings.TrimSpace(raw))
	if len(id) < 8 || len(id) > 128 || !only(alnum, id[:1]) || !only(alnum+"._:-", id) {
		return "", false
	}
	digits := strings.ReplaceAll(id, "-", "")
	if digits == "" || strings.Count(digits, digits[:1]) == len(digits) {
		return "", false
	}
	if len(digits) == 32 && only(hexDigits, digits) {
		if strings.Repeat(digits[:2], 16) == digits {
			return "", false
		}
		id = digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:]
	}
	return id, !vendorDefaults[id]
}

// CanonicalVIP is the host prefix that vip means, as the manifest spells it. ok is
// false when vip is neither an address nor a prefix of one address.
func CanonicalVIP(vip string) (canonical string, ok bool) {
	if addr, err := netip.ParseAddr(vip); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()).String(), true
	}
	prefix, err := netip.ParsePrefix(vip)
	return prefix.String(), err == nil && prefix.IsSingleIP()
}

// CompareVIPs orders canonical VIPs by address, IPv4 first.
func CompareVIPs(a, b string) int {
	x, errX := netip.ParsePrefix(a)
	y, errY := netip.ParsePrefix(b)
	if errX != nil || errY != nil {
		return strings.Compare(a, b)
	}
	return x.Addr().Compare(y.Addr())
}
