package gobgpdtest

import (
	"net/netip"
	"testing"

	apiv3 "github.com/osrg/gobgp/v3/api"
	apiv4 "github.com/osrg/gobgp/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Generation is a generation of gobgpd; the two serve different APIs.
type Generation string

// The generations that we speak.
const (
	V3 Generation = "v3"
	V4 Generation = "v4"
)

// Each runs test with each generation as the speaker, in parallel with others.
func Each(t *testing.T, test func(*testing.T, Generation)) {
	t.Helper()
	t.Parallel()
	for _, g := range []Generation{V3, V4} {
		t.Run("gobgpd "+string(g), func(t *testing.T) {
			t.Parallel()
			test(t, g)
		})
	}
}

func (g Generation) binary(t testing.TB) string {
	t.Helper()
	return Build(t, "github.com/osrg/gobgp/"+string(g)+"/cmd/gobgpd")
}

// AddForeign adds an IPv4 path as some other client of the daemon would.
func (d *Daemon) AddForeign(t testing.TB, prefix netip.Prefix, nextHop string) {
	t.Helper()
	conn, err := grpc.NewClient(d.API, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	host, bits := prefix.Addr().String(), uint32(prefix.Bits())
	if d.generation == V3 {
		pack := func(m proto.Message) *anypb.Any {
			packed, err := anypb.New(m)
			if err != nil {
				t.Fatal(err)
			}
			return packed
		}
		_, err = apiv3.NewGobgpApiClient(conn).AddPath(t.Context(), &apiv3.AddPathRequest{Path: &apiv3.Path{
			Family: &apiv3.Family{Afi: apiv3.Family_AFI_IP, Safi: apiv3.Family_SAFI_UNICAST},
			Nlri:   pack(&apiv3.IPAddressPrefix{Prefix: host, PrefixLen: bits}),
			Pattrs: []*anypb.Any{pack(&apiv3.OriginAttribute{}), pack(&apiv3.NextHopAttribute{NextHop: nextHop})},
		}})
	} else {
		_, err = apiv4.NewGoBgpServiceClient(conn).AddPath(t.Context(), &apiv4.AddPathRequest{Path: &apiv4.Path{
			Family: &apiv4.Family{Afi: apiv4.Family_AFI_IP, Safi: apiv4.Family_SAFI_UNICAST},
			Nlri:   &apiv4.NLRI{Nlri: &apiv4.NLRI_Prefix{Prefix: &apiv4.IPAddressPrefix{Prefix: host, PrefixLen: bits}}},
			Pattrs: []*apiv4.Attribute{
				{Attr: &apiv4.Attribute_Origin{Origin: &apiv4.OriginAttribute{}}},
				{Attr: &apiv4.Attribute_NextHop{NextHop: &apiv4.NextHopAttribute{NextHop: nextHop}}}},
		}})
	}
	if err != nil {
		t.Fatal(err)
	}
}
