package speaker

import (
	"context"
	"errors"
	"io"
	"net/netip"
)

// generation is one generation of gobgpd's API: what its requests and answers look
// like on the wire. What follows from them is GoBGP's, and the same for all.
// Errors are gRPC's own; Unimplemented means that the daemon is of another generation.
type generation interface {
	number() int // 3 or 4
	asn(ctx context.Context) (uint32, error)
	peers(ctx context.Context, each func(Peer) error) error
	// paths calls each for every path of a table, those of one prefix together, the
	// best one first.
	paths(ctx context.Context, q question, each func(prefix string, p *listed) error) error
	// add sends paths as one message: all of them are taken, or none. They are valid and canonical.
	add(ctx context.Context, paths []Path, withdraw bool) error
	// watch calls changed when a session comes or goes, until the stream ends.
	watch(ctx context.Context, changed func()) error
}

// question is what is asked of a table.
type question struct {
	family   family
	adjOutOf netip.Addr     // the peer whose Adj-RIB-Out is meant; the zero Addr: the global table
	filtered bool           // of adjOutOf: also what export policies drop
	prefixes []netip.Prefix // these only; none: all
}

// family is an address family by its number (IANA's "Address Family Numbers"), unicast.
type family uint16

const (
	ipv4 family = 1
	ipv6 family = 2
)

// families are those that we speak.
var families = []family{ipv4, ipv6}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// originIGP is the ORIGIN attribute of what we announce (RFC 4271, section 5.1.1).
const originIGP = 0

// canonical is p as it goes over the wire: with a next hop, the unspecified address
// for the daemon's own, and with communities in order.
func (p Path) canonical() Path {
	if !p.NextHop.IsValid() {
		p.NextHop = netip.IPv6Unspecified()
		if p.Prefix.Addr().Is4() {
			p.NextHop = netip.IPv4Unspecified()
		}
	}
	p.Communities = sortedSet(p.Communities)
	p.LargeCommunities = sortedLarge(p.LargeCommunities)
	return p
}

// path is the path of ours that r is.
func (r Route) path() Path {
	if r.NextHop.IsUnspecified() {
		r.NextHop = netip.Addr{}
	}
	return Path{Prefix: r.Prefix, NextHop: r.NextHop, ASPath: r.ASPath, Communities: sortedSet(r.Communities), LargeCommunities: sortedLarge(r.LargeCommunities),
		MED: r.MED, LocalPref: r.LocalPref}
}

// receive calls each for every message of a stream.
func receive[M any](stream interface{ Recv() (M, error) }, each func(M) error) error {
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = each(message)
		}
		if err != nil {
			return err
		}
	}
}

// sendOne sends one message on a stream, and returns what the daemon thinks of it.
func sendOne[M, A any](stream interface {
	Send(M) error
	CloseAndRecv() (A, error)
}, message M) error {
	if err := stream.Send(message); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err := stream.CloseAndRecv() // after io.EOF this has the reason
	return err
}
