package demo

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	apipb "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/log"
	"github.com/osrg/gobgp/v3/pkg/server"
	"google.golang.org/grpc"
)

// startGoBGP starts a GoBGP that serves its gRPC API at apiAddress, as gobgpd does. It ends
// with this process.
func startGoBGP(ctx context.Context, apiAddress netip.AddrPort, global *apipb.Global, peer *apipb.Peer) error {
	logger := log.NewDefaultLogger()
	logger.SetLevel(log.FatalLevel)
	bgp := server.NewBgpServer(
		server.GrpcListenAddress(apiAddress.String()),
		server.GrpcOption([]grpc.ServerOption{grpc.MaxRecvMsgSize(256 << 20), grpc.MaxSendMsgSize(256 << 20)}), // any cluster
		server.LoggerOption(logger))
	go bgp.Serve()
	if err := bgp.StartBgp(ctx, &apipb.StartBgpRequest{Global: global}); err != nil {
		return fmt.Errorf("start GoBGP: %w", err)
	}
	for _, afi := range []apipb.Family_Afi{apipb.Family_AFI_IP, apipb.Family_AFI_IP6} {
		peer.AfiSafis = append(peer.AfiSafis, &apipb.AfiSafi{
			Config: &apipb.AfiSafiConfig{Family: &apipb.Family{Afi: afi, Safi: apipb.Family_SAFI_UNICAST}, Enabled: true}})
	}
	peer.Timers = &apipb.Timers{Config: &apipb.TimersConfig{ConnectRetry: 1, IdleHoldTimeAfterReset: 1, HoldTime: 90, KeepaliveInterval: 30}}
	if err := bgp.AddPeer(ctx, &apipb.AddPeerRequest{Peer: peer}); err != nil {
		return fmt.Errorf("peer %s of GoBGP: %w", peer.Conf.NeighborAddress, err)
	}
	return nil
}

// free is address, with a port that nobody listens on in place of 0.
func free(address netip.AddrPort) (netip.AddrPort, error) {
	l, err := net.Listen("tcp", address.String())
	if err != nil {
		return address, err
	}
	defer l.Close()
	return netip.ParseAddrPort(l.Addr().String())
}
