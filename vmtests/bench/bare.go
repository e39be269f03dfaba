package main

import (
	"context"
	"errors"
	"time"

	apiv3 "github.com/osrg/gobgp/v3/api"
	apiv4 "github.com/osrg/gobgp/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// bare is a gobgpd that a client gives the paths to and does nothing else: in one stream,
// in messages as big as the announcer's, each made while the one before is under way. It
// bounds what any client of that daemon can do.
func bare(generation string) contestant {
	return contestant{"gobgpd " + generation + ", bare", false, func(b *bench, node *lab.Host, vips int) (announcing, error) {
		if err := b.build(); err != nil {
			return nil, err
		}
		r := &bareRuns{oursRuns: oursRuns{b: b, node: node, generation: generation}}
		if err := r.start(); err != nil {
			return nil, err
		}
		return r, lab.Eventually(10*time.Second, func() error { return r.set(vips) })
	}}
}

type bareRuns struct {
	oursRuns
	vips int
	conn *grpc.ClientConn
}

// perMessage is as many paths as the announcer gives the speaker at once.
const perMessage = 2000

// prepare makes no paths: that is what a client has to do.
func (r *bareRuns) prepare(vips int) (apply func() error, err error) {
	return func() error { return r.set(vips) }, nil
}

func (r *bareRuns) set(vips int) error {
	if r.conn == nil {
		conn, err := grpc.NewClient(r.api(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		r.conn = conn // as long as the bench runs
	}
	var err error
	if r.generation == "v4" {
		err = r.addV4(vips)
	} else {
		err = r.addV3(vips)
	}
	if err == nil {
		r.vips = vips
	}
	return err
}

var (
	familyV4     = &apiv4.Family{Afi: apiv4.Family_AFI_IP, Safi: apiv4.Family_SAFI_UNICAST}
	attributesV4 = []*apiv4.Attribute{
		{Attr: &apiv4.Attribute_Origin{Origin: &apiv4.OriginAttribute{}}},
		{Attr: &apiv4.Attribute_NextHop{NextHop: &apiv4.NextHopAttribute{NextHop: "0.0.0.0"}}},
	}
)

func pathV4(i int) *apiv4.Path {
	prefix := &apiv4.IPAddressPrefix{Prefix: vipAddress(i).String(), PrefixLen: 32}
	return &apiv4.Path{Family: familyV4, Pattrs: attributesV4, Nlri: &apiv4.NLRI{Nlri: &apiv4.NLRI_Prefix{Prefix: prefix}}}
}

// flip is one request, as small as the API has one.
func (r *bareRuns) flip(up bool) (began time.Time, err error) {
	path := pathV4(0)
	client := apiv4.NewGoBgpServiceClient(r.conn)
	began = time.Now()
	if up {
		_, err = client.AddPath(context.Background(), &apiv4.AddPathRequest{TableType: apiv4.TableType_TABLE_TYPE_GLOBAL, Path: path})
	} else {
		_, err = client.DeletePath(context.Background(), &apiv4.DeletePathRequest{TableType: apiv4.TableType_TABLE_TYPE_GLOBAL, Path: path})
	}
	return began, err
}

func (r *bareRuns) addV4(vips int) error {
	client := apiv4.NewGoBgpServiceClient(r.conn)
	answer, err := client.GetBgp(context.Background(), &apiv4.GetBgpRequest{})
	if err != nil || answer.GetGlobal().GetAsn() == 0 {
		return errors.Join(err, errors.New("gobgpd is not configured yet"))
	}
	stream, err := client.AddPathStream(context.Background())
	if err != nil {
		return err
	}
	for first := r.vips; first < vips; first += perMessage {
		message := &apiv4.AddPathStreamRequest{TableType: apiv4.TableType_TABLE_TYPE_GLOBAL}
		for i := first; i < min(first+perMessage, vips); i++ {
			message.Paths = append(message.Paths, pathV4(i))
		}
		if err := stream.Send(message); err != nil {
			break // CloseAndRecv has the reason
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

func (r *bareRuns) addV3(vips int) error {
	client := apiv3.NewGobgpApiClient(r.conn)
	answer, err := client.GetBgp(context.Background(), &apiv3.GetBgpRequest{})
	if err != nil || answer.GetGlobal().GetAsn() == 0 {
		return errors.Join(err, errors.New("gobgpd is not configured yet"))
	}
	stream, err := client.AddPathStream(context.Background())
	if err != nil {
		return err
	}
	origin, err := anypb.New(&apiv3.OriginAttribute{})
	if err != nil {
		return err
	}
	nextHop, err := anypb.New(&apiv3.NextHopAttribute{NextHop: "0.0.0.0"})
	if err != nil {
		return err
	}
	family := &apiv3.Family{Afi: apiv3.Family_AFI_IP, Safi: apiv3.Family_SAFI_UNICAST}
	for first := r.vips; first < vips; first += perMessage {
		message := &apiv3.AddPathStreamRequest{TableType: apiv3.TableType_GLOBAL}
		for i := first; i < min(first+perMessage, vips); i++ {
			nlri, err := anypb.New(&apiv3.IPAddressPrefix{Prefix: vipAddress(i).String(), PrefixLen: 32})
			if err != nil {
				return err
			}
			message.Paths = append(message.Paths, &apiv3.Path{Family: family, Nlri: nlri, Pattrs: []*anypb.Any{origin, nextHop}})
		}
		if err := stream.Send(message); err != nil {
			break // CloseAndRecv has the reason
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

func (r *bareRuns) parts() []part { return []part{{"gobgpd", r.gobgpd}} }
