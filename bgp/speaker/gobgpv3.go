package speaker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	// maxMessage bounds one gRPC message that we receive, in bytes. A destination
	// is a message of its own, so this is far beyond any need.
	maxMessage = 64 << 20
	// chunk is how many paths go into one AddPathStream message. At about 200 bytes
	// a path it stays far below gRPC's default limit of 4 MiB.
	chunk = 2000
	// lookupMost is up to how many prefixes are looked up one by one in a table;
	// for more, reading the whole table is cheaper.
	lookupMost = 500
	// pollInterval is how often Watch asks the daemon for a sign of life. gRPC
	// keepalive cannot do it: servers with default options end a connection that
	// pings more often than every five minutes.
	pollInterval = 500 * time.Millisecond
)

// Config is how to reach a daemon and what it must be.
type Config struct {
	Address string        // host:port, or unix:///path
	ASN     uint32        // what the daemon must say of itself
	Timeout time.Duration // of one request; of a list, without progress
}

// GoBGPv3 is a client of a gobgpd 3.x over its gRPC API (service apipb.GobgpApi).
// It never configures the daemon: the one who runs it does.
type GoBGPv3 struct {
	cfg    Config
	conn   *grpc.ClientConn
	client api.GobgpApiClient
}

var (
	_ Speaker   = (*GoBGPv3)(nil)
	_ Inspector = (*GoBGPv3)(nil)
)

// DialGoBGPv3 prepares a client; it does not wait for the daemon, which may come later.
func DialGoBGPv3(cfg Config) (*GoBGPv3, error) {
	conn, err := grpc.NewClient(target(cfg.Address),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		// A daemon that comes back must be filled again before its peers give up on
		// it, and a refused connection on one host costs nothing. (ResetConnectBackoff
		// would do too, but races with gRPC's own connecting.)
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 300 * time.Millisecond},
			MinConnectTimeout: cfg.Timeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)
	if err != nil {
		return nil, fmt.Errorf("speaker %s: %w", cfg.Address, err)
	}
	return &GoBGPv3{cfg: cfg, conn: conn, client: api.NewGobgpApiClient(conn)}, nil
}

func target(address string) string {
	if strings.HasPrefix(address, "unix://") {
		return address
	}
	return "dns:///" + address
}

// Close ends the connection and every request on it.
func (g *GoBGPv3) Close() error { return g.conn.Close() }

// Ready implements Speaker.
func (g *GoBGPv3) Ready(ctx context.Context) error {
	reqCtx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	answer, err := g.client.GetBgp(reqCtx, &api.GetBgpRequest{})
	if err != nil {
		return g.explain(ctx, "ask for its state", err)
	}
	switch asn := answer.GetGlobal().GetAsn(); asn {
	case g.cfg.ASN:
		return nil
	case 0:
		return fmt.Errorf("%w: %s answers, and has no ASN", ErrNotConfigured, g.cfg.Address)
	default:
		return fmt.Errorf("%w: %s speaks as AS %d, the configuration says %d", ErrWrongASN, g.cfg.Address, asn, g.cfg.ASN)
	}
}

// List implements Speaker.
func (g *GoBGPv3) List(ctx context.Context) (Table, error) {
	table := Table{Own: map[netip.Prefix]Path{}, Foreign: map[netip.Prefix]int{}}
	for _, family := range families {
		err := g.listPath(ctx, &api.ListPathRequest{TableType: api.TableType_GLOBAL, Family: family}, func(d *api.Destination) error {
			prefix, err := netip.ParsePrefix(d.Prefix)
			if err != nil || !prefix.IsSingleIP() {
				return nil // not a host route, so not ours
			}
			for _, p := range d.Paths {
				switch {
				case isLearned(p):
				case p.Identifier != OwnPathID:
					table.Foreign[prefix]++
				default:
					own, err := decodePath(prefix, p)
					if err != nil {
						return err
					}
					table.Own[prefix] = own
				}
			}
			return nil
		})
		if err != nil {
			return Table{}, err
		}
	}
	return table, nil
}

// listPath calls each for every destination. The timeout starts anew with each
// message, so a big table is not taken for a daemon that hangs.
func (g *GoBGPv3) listPath(ctx context.Context, req *api.ListPathRequest, each func(*api.Destination) error) error {
	streamCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(g.cfg.Timeout, func() { cancel(context.DeadlineExceeded) })
	defer idle.Stop()

	fail := func(err error) error {
		if errors.Is(context.Cause(streamCtx), context.DeadlineExceeded) {
			err = context.DeadlineExceeded
		}
		return g.explain(ctx, "list paths", err)
	}
	stream, err := g.client.ListPath(streamCtx, req)
	if err != nil {
		return fail(err)
	}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fail(err)
		}
		idle.Reset(g.cfg.Timeout)
		if err := each(answer.GetDestination()); err != nil {
			return fmt.Errorf("speaker %s: list paths: %w", g.cfg.Address, err)
		}
	}
}

// Announce implements Speaker.
func (g *GoBGPv3) Announce(ctx context.Context, paths []Path) error {
	refused := map[netip.Prefix]error{}
	encoded := make([]*api.Path, 0, len(paths))
	for _, p := range paths {
		e, err := encodePath(p)
		if err != nil {
			refused[p.Prefix] = err
			continue
		}
		encoded = append(encoded, e)
	}
	return g.send(ctx, "announce", encoded, refused)
}

// Withdraw implements Speaker.
func (g *GoBGPv3) Withdraw(ctx context.Context, prefixes []netip.Prefix) error {
	refused := map[netip.Prefix]error{}
	encoded := make([]*api.Path, 0, len(prefixes))
	for _, p := range prefixes {
		e, err := encodePath(Path{Prefix: p})
		if err != nil {
			refused[p] = err
			continue
		}
		e.IsWithdraw = true
		encoded = append(encoded, e)
	}
	return g.send(ctx, "withdraw", encoded, refused)
}

// send passes paths on, a stream for each chunk: the daemon drops a whole message
// for one bad path and says so only at the stream's end, so a chunk that fails is
// sent again path by path, to find out which one it was.
func (g *GoBGPv3) send(ctx context.Context, do string, paths []*api.Path, refused map[netip.Prefix]error) error {
	for start := 0; start < len(paths); start += chunk {
		part := paths[start:min(start+chunk, len(paths))]
		err := g.sendChunk(ctx, part)
		if err == nil {
			continue
		}
		if lost(err) || ctx.Err() != nil {
			return g.explain(ctx, do, err)
		}
		for _, p := range part {
			if err := g.sendChunk(ctx, []*api.Path{p}); err != nil {
				if lost(err) || ctx.Err() != nil {
					return g.explain(ctx, do, err)
				}
				refused[prefixOf(p)] = errors.New(status.Convert(err).Message())
			}
		}
	}
	if len(refused) > 0 {
		return &PathErrors{refused}
	}
	return nil
}

func (g *GoBGPv3) sendChunk(ctx context.Context, paths []*api.Path) error {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	stream, err := g.client.AddPathStream(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&api.AddPathStreamRequest{TableType: api.TableType_GLOBAL, Paths: paths}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = stream.CloseAndRecv() // after io.EOF this has the reason
	return err
}

// Advertised implements Speaker.
func (g *GoBGPv3) Advertised(ctx context.Context, prefixes []netip.Prefix) (Advertised, error) {
	result := Advertised{To: map[netip.Prefix][]netip.Addr{}}
	peers, err := g.Peers(ctx)
	if err != nil {
		return result, err
	}
	asked := map[netip.Prefix]bool{}
	byFamily := make([][]*api.TableLookupPrefix, len(families))
	for _, p := range prefixes {
		asked[p] = true
		i := familyIndex(p.Addr())
		byFamily[i] = append(byFamily[i], &api.TableLookupPrefix{Prefix: p.String()})
	}
	for _, peer := range peers {
		if !peer.Established {
			continue
		}
		result.Established++
		for i, lookups := range byFamily {
			if len(lookups) == 0 {
				continue
			}
			req := &api.ListPathRequest{TableType: api.TableType_ADJ_OUT, Name: peer.Address.String(), Family: families[i]}
			if len(lookups) <= lookupMost {
				req.Prefixes = lookups
			}
			err := g.listPath(ctx, req, func(d *api.Destination) error {
				prefix, err := netip.ParsePrefix(d.Prefix)
				if err != nil || !asked[prefix] {
					return nil
				}
				for _, p := range d.Paths {
					if !isLearned(p) && p.Identifier == OwnPathID {
						result.To[prefix] = append(result.To[prefix], peer.Address)
						break
					}
				}
				return nil
			})
			if err != nil {
				return result, err
			}
		}
	}
	return result, nil
}

// Watch implements Speaker. It calls changed once at the start, when the daemon is ready.
func (g *GoBGPv3) Watch(ctx context.Context, changed func()) error {
	if err := g.Ready(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	// The stream has no deadline of its own; the poll below ends it.
	stream, err := g.client.WatchEvent(ctx, &api.WatchEventRequest{Peer: &api.WatchEventRequest_Peer{}})
	if err != nil {
		return g.explain(ctx, "watch", err)
	}
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel(nil)
	reader.Go(func() {
		for {
			if _, err := stream.Recv(); err != nil {
				cancel(g.explain(ctx, "watch", err))
				return
			}
			changed()
		}
	})
	changed()

	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-poll.C:
			if err := g.Ready(ctx); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return err
			}
		}
	}
}

// lost reports whether the daemon, not the request, is the trouble.
func lost(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unimplemented:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// explain turns a gRPC error into one of the sentinels, with its detail. ctx is
// the caller's, without the request's own deadline.
func (g *GoBGPv3) explain(ctx context.Context, do string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	code := status.Code(err)
	switch {
	case code == codes.Unimplemented:
		return fmt.Errorf("%w: %s knows no apipb.GobgpApi (%s); a gobgpd 3.x is needed there, and 4.x is another API",
			ErrWrongAPI, g.cfg.Address, status.Convert(err).Message())
	case code == codes.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %s: %s took longer than %s", ErrNoAnswer, g.cfg.Address, do, g.cfg.Timeout)
	case code == codes.Unavailable:
		// gRPC says the same of a daemon that is dead and of one that hangs. The
		// difference decides whether its routes can still be out, so look closer.
		if refused := g.refused(ctx); refused != nil {
			return fmt.Errorf("%w: %w", ErrGone, refused)
		}
		return fmt.Errorf("%w: %s: %s: %s", ErrNoAnswer, g.cfg.Address, do, status.Convert(err).Message())
	}
	if s, ok := status.FromError(err); ok {
		return fmt.Errorf("speaker %s: %s: %s", g.cfg.Address, do, s.Message())
	}
	return fmt.Errorf("speaker %s: %s: %w", g.cfg.Address, do, err)
}

// refused is not nil when nothing listens at the daemon's address. A process that
// dies closes its connections before its listener, or after: so look again.
func (g *GoBGPv3) refused(ctx context.Context) error {
	network, address := "tcp", g.cfg.Address
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, address = "unix", path
	}
	dialer := net.Dialer{Timeout: g.cfg.Timeout}
	for range 3 {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil && isNobodyListening(err) {
			return err
		}
		if err != nil {
			return nil
		}
		conn.Close()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}
