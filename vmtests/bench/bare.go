package main

import (
	"context"
	"errors"
	"fmt"
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
		r := &bareRuns{oursRuns{b: b, node: node, generation: generation}, 0}
		if err := r.start(); err != nil {
			return nil, err
		}
		return r, lab.Eventually(10*time.Second, func() error { return r.set(vips) })
	}}
}

type bareRuns struct {
	oursRuns
	vips int
}

// perMessage is as many paths as the announcer gives the speaker at once.
const perMessage = 2000

func (r *bareRuns) set(vips int) error {
	conn, err := grpc.NewClient(r.api(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	if r.generation == "v4" {
		err = r.addV4(conn, vips)
	} else {
		err = r.addV3(conn, vips)
	}
	if err == nil {
		r.vips = vips
	}
	return err
}

func (r *bareRuns) addV4(conn *grpc.ClientConn, vips int) error {
	client := apiv4.NewGoBgpServiceClient(conn)
	answer, err := client.GetBgp(context.Background(), &apiv4.GetBgpRequest{})
	if err != nil || answer.GetGlobal().GetAsn() == 0 {
		return errors.Join(err, errors.New("gobgpd is not configured yet"))
	}
	stream, err := client.AddPathStream(context.Background())
	if err != nil {
		return err
	}
	family := &apiv4.Family{Afi: apiv4.Family_AFI_IP, Safi: apiv4.Family_SAFI_UNICAST}
	attributes := []*apiv4.Attribute{
		{Attr: &apiv4.Attribute_Origin{Origin: &apiv4.OriginAttribute{}}},
		{Attr: &apiv4.Attribute_NextHop{NextHop: &apiv4.NextHopAttribute{NextHop: "0.0.0.0"}}},
	}
	for first := r.vips; first < vips; first += perMessage {
		message := &apiv4.AddPathStreamRequest{TableType: apiv4.TableType_TABLE_TYPE_GLOBAL}
		for i := first; i < min(first+perMessage, vips); i++ {
			prefix := &apiv4.IPAddressPrefix{Prefix: vipAddress(i).String(), PrefixLen: 32}
			message.Paths = append(message.Paths, &apiv4.Path{Family: family, Pattrs: attributes,
				Nlri: &apiv4.NLRI{Nlri: &apiv4.NLRI_Prefix{Prefix: prefix}}})
		}
		if err := stream.Send(message); err != nil {
			break // CloseAndRecv has the reason
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

func (r *bareRuns) addV3(conn *grpc.ClientConn, vips int) error {
	client := apiv3.NewGobgpApiClient(conn)
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
				return fmt.Errorf("encode %s: %w", vipAddress(i), err)
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
