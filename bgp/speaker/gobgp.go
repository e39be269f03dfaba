package speaker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// maxMessage bounds one gRPC message that we receive, in bytes. A destination
	// is a message of its own, so this is far beyond any need.
	maxMessage = 64 << 20
	// chunk is how many paths go into one AddPathStream message. At about 200 bytes
	// a path it stays far below gRPC's default limit of 4 MiB.
	chunk = 2000
	// atOnce is how many chunks are under way at a time.
	atOnce = 2
	// lookupMost is up to how many prefixes are looked up one by one in a table;
	// for more, reading the whole table is cheaper.
	lookupMost = 500
	// pollInterval is how often Watch asks the daemon for a sign of life. gRPC
	// keepalive cannot do it: servers with default options end a connection that
	// pings more often than every five minutes.
	pollInterval = 500 * time.Millisecond
	// patience times the timeout is how long a list may take, with progress.
	patience = 10
	// secondChance is how long the first question for a sign of life may take after Watch
	// had no answer to one.
	secondChance = 100 * time.Millisecond
)

// Config is how to reach a daemon and what it must be.
type Config struct {
	Address string        // host:port, or unix:///path
	ASN     uint32        // what the daemon must say of itself
	Timeout time.Duration // of one request; of a list, without progress: ten times that in all
	TLS     TLS
}

// GoBGP is a client of a gobgpd over its gRPC API, of whichever generation the
// daemon is. It never configures the daemon: the one who runs it does.
type GoBGP struct {
	cfg         Config
	conn        *grpc.ClientConn
	untrusted   func() error // why TLS failed the last time; nil: it did not
	generations []generation
	speaks      atomic.Int32 // index into generations: what the daemon spoke last
	answered    atomic.Int32 // number of the generation that answered last
	silent      atomic.Bool  // Watch had no answer, and nobody asked since
	last        lastTable
}

var _ Speaker = (*GoBGP)(nil)

// Dial prepares a client. It does not wait for the daemon, which may come later:
// which generation the daemon is shows in its first answer, and again when it was
// replaced by another.
func Dial(cfg Config) (*GoBGP, error) {
	transport, untrusted := cfg.TLS.transport()
	conn, err := grpc.NewClient(target(cfg.Address),
		grpc.WithTransportCredentials(transport),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		// A daemon that comes back must be filled again before its peers give up on
		// it, and a refused connection on one host costs nothing. (ResetConnectBackoff
		// would do too, but races with gRPC's own connecting.)
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 100 * time.Millisecond},
			MinConnectTimeout: cfg.Timeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)
	if err != nil {
		return nil, fmt.Errorf("speaker %s: %w", cfg.Address, err)
	}
	return &GoBGP{cfg: cfg, conn: conn, untrusted: untrusted, generations: []generation{newGoBGPv4(conn), newGoBGPv3(conn)}}, nil
}

func target(address string) string {
	if strings.HasPrefix(address, "unix://") {
		return address
	}
	return "dns:///" + address
}

// Close ends the connection and every request on it.
func (g *GoBGP) Close() error { return g.conn.Close() }

// ask makes one request as the generation that the daemon spoke last. A daemon that
// does not know it is asked as the others: nothing came of the request until then.
func (g *GoBGP) ask(request func(generation) error) error {
	last := int(g.speaks.Load())
	var err error
	for i := range g.generations {
		i = (last + i) % len(g.generations)
		err = request(g.generations[i])
		if status.Code(err) != codes.Unimplemented {
			g.speaks.Store(int32(i))
			if err == nil {
				g.answered.Store(int32(g.generations[i].number()))
			}
			return err
		}
	}
	return err
}

// Generation is that of the daemon, by its last answer: 3 or 4; 0 before the first.
func (g *GoBGP) Generation() int { return int(g.answered.Load()) }

// Ready implements Speaker. When Watch has just found that the daemon hangs it does not
// wait for as long again. The question after that has its time: the daemon may be slow.
func (g *GoBGP) Ready(ctx context.Context) error {
	timeout := g.cfg.Timeout
	if g.silent.Swap(false) {
		timeout = min(timeout, secondChance)
	}
	return g.ready(ctx, timeout)
}

func (g *GoBGP) ready(ctx context.Context, timeout time.Duration) error {
	reqCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var asn uint32
	err := g.ask(func(api generation) (err error) {
		asn, err = api.asn(reqCtx)
		return err
	})
	if isLate(err) {
		err = tooLong(timeout)
	}
	if err != nil {
		return g.explain(ctx, "ask for its state", err)
	}
	switch asn {
	case g.cfg.ASN:
		return nil
	case 0:
		return fmt.Errorf("%w: %s answers, and has no ASN", ErrNotConfigured, g.cfg.Address)
	default:
		return fmt.Errorf("%w: %s speaks as AS %d, the configuration says %d", ErrWrongASN, g.cfg.Address, asn, g.cfg.ASN)
	}
}

// list calls each for every path. The timeout starts anew with each of them, so a
// big table is not taken for a daemon that hangs; one that never ends is.
func (g *GoBGP) list(ctx context.Context, q question, each func(prefix string, p *listed) error) error {
	streamCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(g.cfg.Timeout, func() { cancel(tooLong(g.cfg.Timeout)) })
	defer idle.Stop()
	all := time.AfterFunc(patience*g.cfg.Timeout, func() { cancel(tooLong(patience * g.cfg.Timeout)) })
	defer all.Stop()

	err := g.ask(func(api generation) error {
		return api.paths(streamCtx, q, func(prefix string, p *listed) error {
			idle.Reset(g.cfg.Timeout)
			return each(prefix, p)
		})
	})
	if late := tooLong(0); err != nil && errors.As(context.Cause(streamCtx), &late) {
		err = late
	}
	return g.explain(ctx, "list paths", err)
}

// Announce implements Speaker.
func (g *GoBGP) Announce(ctx context.Context, paths []Path) error {
	return g.send(ctx, "announce", paths, false)
}

// Withdraw implements Speaker.
func (g *GoBGP) Withdraw(ctx context.Context, prefixes []netip.Prefix) error {
	paths := make([]Path, len(prefixes))
	for i, p := range prefixes {
		paths[i].Prefix = p
	}
	return g.send(ctx, "withdraw", paths, true)
}

// send passes paths on, a stream for each chunk: the daemon drops a whole message
// for one bad path and says so only at the stream's end, so a chunk that fails is
// sent again path by path, to find out which one it was. While the daemon works on one
// chunk the next one is made and sent.
func (g *GoBGP) send(ctx context.Context, do string, paths []Path, withdraw bool) error {
	refused := map[netip.Prefix]error{}
	valid := make([]Path, 0, len(paths))
	for _, p := range paths {
		// The daemon would mask host bits and mix families without a word.
		if err := p.Validate(); err != nil {
			refused[p.Prefix] = err
			continue
		}
		valid = append(valid, p.canonical())
	}
	var sending sync.WaitGroup
	var mu sync.Mutex // guards refused and failed
	var failed error
	slots := make(chan struct{}, atOnce)
	for part := range slices.Chunk(valid, chunk) {
		slots <- struct{}{}
		mu.Lock()
		stop := failed != nil
		mu.Unlock()
		if stop {
			break
		}
		sending.Go(func() {
			defer func() { <-slots }()
			bad, err := g.sendPart(ctx, part, withdraw)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(refused, bad)
			if failed == nil {
				failed = err
			}
		})
	}
	sending.Wait()
	if failed != nil {
		return g.explain(ctx, do, failed)
	}
	if len(refused) > 0 {
		return &PathErrors{refused}
	}
	return nil
}

// sendPart sends a chunk. It returns which paths the daemon refuses, and why.
func (g *GoBGP) sendPart(ctx context.Context, part []Path, withdraw bool) (refused map[netip.Prefix]error, err error) {
	err = g.sendChunk(ctx, part, withdraw)
	if err == nil || lost(err) || ctx.Err() != nil {
		return nil, err
	}
	refused = map[netip.Prefix]error{}
	for i, p := range part {
		if err := g.sendChunk(ctx, part[i:i+1], withdraw); err != nil {
			if lost(err) || ctx.Err() != nil {
				return nil, err
			}
			refused[p.Prefix] = errors.New(status.Convert(err).Message())
		}
	}
	return refused, nil
}

func (g *GoBGP) sendChunk(ctx context.Context, paths []Path, withdraw bool) error {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	return g.ask(func(api generation) error { return api.add(ctx, paths, withdraw) })
}

// Advertised implements Speaker.
func (g *GoBGP) Advertised(ctx context.Context, prefixes []netip.Prefix) (Advertised, error) {
	result := Advertised{To: make(map[netip.Prefix][]netip.Addr, len(prefixes))}
	longer := map[*netip.Addr][]netip.Addr{} // the peers so far and one more, by the first of those
	last := netip.Addr{}
	established, err := g.adjOut(ctx, prefixes, false, func(peer netip.Addr, prefix netip.Prefix, _ *listed) {
		if peer != last {
			clear(longer)
			last = peer
		}
		to := result.To[prefix]
		var first *netip.Addr
		if len(to) > 0 {
			if to[len(to)-1] == peer {
				return
			}
			first = &to[0]
		}
		more, is := longer[first]
		if !is {
			more = append(slices.Clone(to), peer)
			longer[first] = more
		}
		result.To[prefix] = more
	})
	result.Established = established
	return result, err
}

// Filtered implements Speaker.
func (g *GoBGP) Filtered(ctx context.Context, prefixes []netip.Prefix) (map[netip.Prefix]bool, error) {
	filtered := map[netip.Prefix]bool{}
	_, err := g.adjOut(ctx, prefixes, true, func(_ netip.Addr, prefix netip.Prefix, p *listed) {
		if p.filtered {
			filtered[prefix] = true
		}
	})
	return filtered, err
}

// adjOut calls each for every path of ours that the daemon offers an established peer, of
// prefixes or, where they are many, of all, and returns how many such peers there are. With filtered it has
// what export policies drop too, and says so.
func (g *GoBGP) adjOut(ctx context.Context, prefixes []netip.Prefix, filtered bool, each func(peer netip.Addr, prefix netip.Prefix, p *listed)) (established int, err error) {
	peers, err := g.Peers(ctx)
	if err != nil {
		return 0, err
	}
	byFamily := map[family][]netip.Prefix{}
	for _, p := range prefixes {
		f := familyOf(p.Addr())
		if len(prefixes) > lookupMost {
			byFamily[f] = nil // all
			continue
		}
		byFamily[f] = append(byFamily[f], p)
	}
	for _, peer := range peers {
		if !peer.Established {
			continue
		}
		established++
		for f, lookups := range byFamily {
			q := question{family: f, adjOutOf: peer.Address, filtered: filtered, prefixes: lookups}
			if err := g.list(ctx, q, func(text string, p *listed) error {
				prefix, err := netip.ParsePrefix(text)
				if err != nil || p.isLearned() || p.identifier != OwnPathID {
					return nil
				}
				each(peer.Address, prefix, p)
				return nil
			}); err != nil {
				return established, err
			}
		}
	}
	return established, nil
}

// Watch implements Speaker. It calls changed once at the start, when the daemon is ready.
func (g *GoBGP) Watch(ctx context.Context, changed func()) error {
	if err := g.ready(ctx, g.cfg.Timeout); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel(nil)
	// The stream has no deadline of its own; the poll below ends it.
	reader.Go(func() {
		err := g.ask(func(api generation) error { return api.watch(ctx, changed) })
		if err == nil {
			err = errors.New("the daemon ended the stream")
		}
		cancel(g.explain(ctx, "watch", err))
	})
	changed()

	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-poll.C:
			// With the default timeout a daemon that stops is noticed within two seconds:
			// the interval, this, and the question of the pass that follows.
			if err := g.ready(ctx, max(g.cfg.Timeout/2, min(g.cfg.Timeout, time.Second))); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				g.silent.Store(errors.Is(err, ErrNoAnswer))
				return err
			}
		}
	}
}
