package speaker

import (
	"context"
	"io"
	"net/netip"
	"testing"
	"time"

	apiv3 "github.com/osrg/gobgp/v3/api"
	apiv4 "github.com/osrg/gobgp/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// saying is a connection to a daemon whose every answer is given. It is a fake, since no
// daemon says what is tried here.
type saying struct{ answer []byte }

func (s saying) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	return proto.Unmarshal(s.answer, reply.(proto.Message))
}

func (s saying) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &sayingStream{saying: s, ctx: ctx}, nil
}

type sayingStream struct {
	saying
	ctx  context.Context
	said bool
}

func (s *sayingStream) Header() (metadata.MD, error) { return nil, nil }
func (s *sayingStream) Trailer() metadata.MD         { return nil }
func (s *sayingStream) CloseSend() error             { return nil }
func (s *sayingStream) Context() context.Context     { return s.ctx }
func (s *sayingStream) SendMsg(any) error            { return nil }
func (s *sayingStream) RecvMsg(m any) error {
	if s.said {
		return io.EOF
	}
	s.said = true
	if f, is := m.(*frame); is {
		*f = s.answer
		return nil
	}
	return proto.Unmarshal(s.answer, m.(proto.Message))
}

func samplePath() Path {
	med, pref := uint32(7), uint32(200)
	return Path{Prefix: netip.MustParsePrefix("203.0.113.10/32"), NextHop: netip.MustParseAddr("192.0.2.1"), ASPath: []uint32{65001},
		Communities: []Community{1, 2}, LargeCommunities: []LargeCommunity{{1, 2, 3}}, MED: &med, LocalPref: &pref}
}

// sampleAttributes are the attributes of samplePath as BGP has them, and its next hop once
// more, as an IPv6 route has it.
var sampleAttributes = [][]byte{
	{0x40, attrNextHop, 4, 192, 0, 2, 1},
	{0x40, attrASPath, 6, 2, 1, 0, 0, 0xfd, 0xe9},
	{0x80, attrMED, 4, 0, 0, 0, 7},
	{0x40, attrLocalPref, 4, 0, 0, 0, 200},
	{0xd0, attrCommunities, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2},
	{0xc0, attrLargeCommunities, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3},
	{0x80, attrMPReach, 9, 0, 1, 1, 4, 192, 0, 2, 1, 0},
}

// A path reads the same from a daemon that gives attributes as BGP has them, and from one
// that is too old for that.
func TestAttributes(t *testing.T) {
	v3, err := encodePathV3(samplePath())
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]proto.Message{
		"BGP's": &apiv3.Path{Identifier: OwnPathID, PattrsBinary: sampleAttributes}, "API of v3": v3, "API of v4": encodePathV4(samplePath()),
	} {
		message, err := proto.Marshal(path)
		if err != nil {
			t.Fatal(err)
		}
		p := listed{decode: decodeAttributesV3}
		if name == "API of v4" {
			p.decode = decodeAttributesV4
		}
		if err := p.read(message); err != nil {
			t.Fatal(err)
		}
		var known knownAttributes
		for range 2 {
			if got, err := known.path(samplePath().Prefix, &p); err != nil || !got.Equal(samplePath()) || p.identifier != OwnPathID || p.isLearned() {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}
	}
	for _, a := range sampleAttributes {
		for end := range a {
			if err := decodeAttribute(a[:end], &Route{}); err == nil {
				t.Errorf("% x was taken without its end", a[:end])
			}
		}
	}
}

func marshal(f *testing.F, m proto.Message) []byte {
	f.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	return data
}

// FuzzAnswers takes any bytes for any answer of a daemon of either generation: a table is
// read right, or not at all.
func FuzzAnswers(f *testing.F) {
	for _, text := range []string{"203.0.113.10/32", "2001:db8::10/128"} {
		p := samplePath()
		p.Prefix = netip.MustParsePrefix(text)
		if p.Prefix.Addr().Is6() {
			p.NextHop = netip.MustParseAddr("2001:db8::1")
		}
		v3, err := encodePathV3(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(false, marshal(f, &apiv3.ListPathResponse{Destination: &apiv3.Destination{Prefix: text, Paths: []*apiv3.Path{v3}}}))
		f.Add(true, marshal(f, &apiv4.ListPathResponse{Destination: &apiv4.Destination{Prefix: text, Paths: []*apiv4.Path{
			{Identifier: OwnPathID, PattrsBinary: sampleAttributes}, {Identifier: OwnPathID, PattrsBinary: sampleAttributes[:1]}}}}))
		f.Add(true, marshal(f, &apiv4.ListPathResponse{Destination: &apiv4.Destination{Prefix: text, Paths: []*apiv4.Path{encodePathV4(p)}}}))
	}
	f.Add(false, marshal(f, &apiv3.ListPeerResponse{Peer: &apiv3.Peer{State: &apiv3.PeerState{NeighborAddress: "192.0.2.1", SessionState: apiv3.PeerState_ESTABLISHED}}}))
	f.Add(true, marshal(f, &apiv4.ListPeerResponse{Peer: &apiv4.Peer{State: &apiv4.PeerState{NeighborAddress: "192.0.2.1", SessionState: 99}}}))
	f.Add(false, marshal(f, &apiv3.GetBgpResponse{Global: &apiv3.Global{Asn: 65001}}))
	f.Add(true, []byte(nil))
	f.Fuzz(func(t *testing.T, four bool, answer []byte) {
		g := &GoBGP{cfg: Config{Address: "192.0.2.1:1", ASN: 65001, Timeout: time.Minute}, untrusted: func() error { return nil }}
		g.generations = []generation{newGoBGPv3(saying{answer})}
		if four {
			g.generations = []generation{newGoBGPv4(saying{answer})}
		}
		ctx := t.Context()
		_ = g.Ready(ctx)
		if table, err := g.List(ctx); err == nil {
			for prefix, p := range table.Own {
				if p.Prefix != prefix || !prefix.IsSingleIP() {
					t.Errorf("%s has %+v", prefix, p)
				}
				if again := p.canonical(); !p.Equal(p) || !again.NextHop.IsValid() {
					t.Errorf("%+v", p)
				}
			}
		} else if len(table.Own)+len(table.Foreign) > 0 {
			t.Errorf("part of a table with %v: %+v", err, table)
		}
		if routes, err := g.Routes(ctx); err != nil && routes != nil {
			t.Errorf("part of a table with %v", err)
		}
		if _, err := g.Peers(ctx); err == nil {
			_, _ = g.Advertised(ctx, []netip.Prefix{samplePath().Prefix})
		}
		_ = g.send(ctx, "announce", []Path{samplePath()}, false)
	})
}
