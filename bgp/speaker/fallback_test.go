package speaker

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apiv3 "github.com/osrg/gobgp/v3/api"
	apiv4 "github.com/osrg/gobgp/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// picky refuses one prefix as a gobgpd does: the whole message is dropped, and the
// reason comes at the end of the stream.
type picky struct {
	refuses netip.Prefix

	mu   sync.Mutex
	took map[netip.Prefix]bool
}

func (d *picky) take(message []netip.Prefix) error {
	if slices.Contains(message, d.refuses) {
		return status.Error(codes.Unknown, "nexthop not found")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range message {
		d.took[p] = true
	}
	return nil
}

type pickyV3 struct {
	apiv3.UnimplementedGobgpApiServer
	*picky
}

func (d pickyV3) AddPathStream(stream apiv3.GobgpApi_AddPathStreamServer) error {
	err := receive(stream, func(req *apiv3.AddPathStreamRequest) error {
		var message []netip.Prefix
		for _, p := range req.Paths {
			var nlri apiv3.IPAddressPrefix
			if err := p.Nlri.UnmarshalTo(&nlri); err != nil {
				return err
			}
			message = append(message, HostPrefix(netip.MustParseAddr(nlri.Prefix)))
		}
		return d.take(message)
	})
	if err != nil {
		return err
	}
	return stream.SendAndClose(&emptypb.Empty{})
}

type pickyV4 struct {
	apiv4.UnimplementedGoBgpServiceServer
	*picky
}

func (d pickyV4) AddPathStream(stream apiv4.GoBgpService_AddPathStreamServer) error {
	err := receive(stream, func(req *apiv4.AddPathStreamRequest) error {
		var message []netip.Prefix
		for _, p := range req.Paths {
			message = append(message, HostPrefix(netip.MustParseAddr(p.GetNlri().GetPrefix().GetPrefix())))
		}
		return d.take(message)
	})
	if err != nil {
		return err
	}
	return stream.SendAndClose(&apiv4.AddPathStreamResponse{})
}

// One refused path among thousands is found and named, and all others are announced.
func TestRefusedPathIsTraced(t *testing.T) {
	for name, register := range map[string]func(*grpc.Server, *picky){
		"gobgpd v3": func(s *grpc.Server, d *picky) { apiv3.RegisterGobgpApiServer(s, pickyV3{picky: d}) },
		"gobgpd v4": func(s *grpc.Server, d *picky) { apiv4.RegisterGoBgpServiceServer(s, pickyV4{picky: d}) },
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			daemon := &picky{took: map[netip.Prefix]bool{}}
			server := grpc.NewServer()
			register(server, daemon)
			go server.Serve(l)
			defer server.Stop()

			client, err := Dial(Config{Address: l.Addr().String(), ASN: 65001, Timeout: 5 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			paths := make([]Path, 2*chunk+10)
			a := netip.MustParseAddr("10.0.0.1")
			for i := range paths {
				paths[i].Prefix = HostPrefix(a)
				a = a.Next()
			}
			daemon.refuses = paths[chunk+5].Prefix
			err = client.Announce(t.Context(), paths)
			var refused *PathErrors
			if !errors.As(err, &refused) || len(refused.ByPrefix) != 1 || refused.ByPrefix[daemon.refuses] == nil {
				t.Fatalf("error is %v", err)
			}
			if want := "speaker refused " + daemon.refuses.String() + ": nexthop not found"; err.Error() != want {
				t.Errorf("error is %v, want %s", err, want)
			}
			if len(daemon.took) != len(paths)-1 {
				t.Errorf("%d of %d announced", len(daemon.took), len(paths))
			}
		})
	}
}

// endless has a table that never ends, and is in no hurry.
type endless struct {
	apiv4.UnimplementedGoBgpServiceServer
}

func (endless) ListPath(_ *apiv4.ListPathRequest, stream apiv4.GoBgpService_ListPathServer) error {
	for {
		if err := stream.Send(&apiv4.ListPathResponse{Destination: &apiv4.Destination{Prefix: "10.0.0.0/8", Paths: []*apiv4.Path{{}}}}); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A list ends, however much the daemon says.
func TestEndlessTable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	apiv4.RegisterGoBgpServiceServer(server, endless{})
	go server.Serve(l)
	defer server.Stop()
	client, err := Dial(Config{Address: l.Addr().String(), ASN: 65001, Timeout: 150 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err = client.List(t.Context()); !errors.Is(err, ErrNoAnswer) || !strings.HasSuffix(err.Error(), "list paths took longer than 1.5s") {
		t.Error(err)
	}
}

func TestPathValidate(t *testing.T) {
	for _, test := range []struct{ prefix, nextHop, want string }{
		{"203.0.113.10/32", "", ""},
		{"2001:db8::10/128", "2001:db8::1", ""},
		{"203.0.113.0/24", "", "is not a host prefix; want /32"},
		{"2001:db8::/64", "", "is not a host prefix; want /128"},
		{"::ffff:203.0.113.10/128", "", "IPv4 address written as IPv6; write 203.0.113.10"},
		{"224.0.0.1/32", "", "not a global unicast address"},
		{"fe80::1/128", "", "not a global unicast address"},
		{"0.0.0.0/32", "", "not a global unicast address"},
		{"203.0.113.10/32", "2001:db8::1", "differ in family"},
		{"2001:db8::10/128", "10.0.0.1", "differ in family"},
		{"203.0.113.10/32", "224.0.0.1", "is not a plain unicast address"},
	} {
		p := Path{Prefix: netip.MustParsePrefix(test.prefix)}
		if test.nextHop != "" {
			p.NextHop = netip.MustParseAddr(test.nextHop)
		}
		err := p.Validate()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s via %s: %v, want %q", test.prefix, test.nextHop, err, test.want)
		}
	}
	if (Path{}).Validate() == nil {
		t.Error("a path without a prefix is valid")
	}
}

func TestParseCommunities(t *testing.T) {
	for text, ok := range map[string]bool{"65001:100": true, "0:0": true, "65535:65535": true, "65536:1": false, "1": false, "1:2:3": false,
		"+1:2": false, "01:2": false, " 1:2": false, "-1:2": false, "": false, ":": false} {
		if c, err := ParseCommunity(text); (err == nil) != ok || ok && c.String() != text {
			t.Errorf("%q: %v, %v", text, c, err)
		}
	}
	for text, ok := range map[string]bool{"65001:1:2": true, "4294967295:0:4294967295": true, "4294967296:0:0": false, "1:2": false, "1:2:3:4": false} {
		if c, err := ParseLargeCommunity(text); (err == nil) != ok || ok && c.String() != text {
			t.Errorf("%q: %v, %v", text, c, err)
		}
	}
}
