package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// flips is how often one of so many VIPs goes away.
func flips(vips int) int {
	switch {
	case vips < 1000:
		return 100
	case vips <= 10_000:
		return 50
	default:
		return 20
	}
}

// benchFlip measures from the failing answer of a health check to the moment a
// GoBGP router's best path is gone, alone and among many VIPs. ExaBGP does the same with
// the health check that it ships with. The other peers are told to withdraw, with no
// check: a bare gobgpd by one request, ExaBGP by a line to its API, FRR by a command, or
// by an address that is removed.
func benchFlip(ctx context.Context, b *bench) ([]figure, error) {
	var figures []figure
	for _, vips := range append([]int{1}, b.vips...) {
		peers := []contestant{bare("v4"), exaChecks, exaBGP, frrNetworks, frrAddresses}
		if vips > 10_000 {
			peers = peers[:4] // FRR's peer takes minutes to have so many addresses
		}
		var base []time.Duration
		for _, c := range append([]contestant{ours("v4", "none", true), ours("v3", "none", true)}, peers...) {
			b.measures("flip", vips, c.name)
			took, err := b.flipOne(ctx, c, vips)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if base == nil {
				base = took
			}
			f := figure{work: fmt.Sprintf("one of %d, %s", vips, c.name), value: latency(took)}
			if !c.ours {
				f.peer, f.ratio = "the announcer's p50, with gobgpd v4", float64(percentile(took, 50))/float64(percentile(base, 50))
			}
			figures = append(figures, f)
		}
	}
	return figures, nil
}

// latency is p50, p99 and the worst of all.
func latency(all []time.Duration) string {
	ms := func(p int) float64 { return float64(percentile(all, p)) / 1e6 }
	return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, worst %.2f ms", ms(50), ms(99), ms(100))
}

func (b *bench) flipOne(ctx context.Context, c contestant, vips int) (took []time.Duration, err error) {
	s, err := newSite()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.lab.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := b.build(); err != nil {
		return nil, err
	}
	router, err := b.startWatched(ctx, s.router)
	if err != nil {
		return nil, err
	}
	running, err := c.start(b, s.node, vips)
	if err != nil {
		return nil, err
	}
	if err := router.awaitAll(vips); err != nil {
		return nil, err
	}
	// A failure comes out of the blue, when processors sleep and caches are cold, and also
	// while the announcer looks at everything.
	pause := func() { time.Sleep(rand.N(100*time.Millisecond + time.Duration(vips)*50*time.Microsecond)) }
	time.Sleep(time.Duration(vips) * 50 * time.Microsecond)
	for range flips(vips) {
		pause()
		began, err := running.flip(false)
		if err != nil {
			return nil, err
		}
		gone, err := router.await(false, began)
		if err != nil {
			return nil, err
		}
		took = append(took, gone.Sub(began))
		if began, err = running.flip(true); err != nil {
			return nil, err
		}
		if _, err := router.await(true, began); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// watched is a GoBGP router whose best paths are followed.
type watched struct{ events chan event }

type event struct {
	first, has bool // whether it is about the first VIP
	at         time.Time
}

func (b *bench) startWatched(ctx context.Context, h *lab.Host) (*watched, error) {
	file, socket := filepath.Join(h.Dir, "router.toml"), "unix://"+filepath.Join(h.Dir, "api")
	text := fmt.Sprintf("[global.config]\nas = %d\nrouter-id = %q\n[[neighbors]]\n[neighbors.config]\nneighbor-address = %q\npeer-as = %d\n[neighbors.transport.config]\npassive-mode = true\n",
		routerASN, routerAddress, nodeAddress, nodeASN)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if _, err := h.Start("router", filepath.Join(b.dir, "v3", "gobgpd"), "-f", file, "--api-hosts", socket, "--pprof-disable"); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	client := api.NewGobgpApiClient(conn)
	if err := lab.Eventually(10*time.Second, func() error {
		answer, err := client.GetBgp(ctx, &api.GetBgpRequest{})
		if err == nil && answer.GetGlobal().GetAsn() == 0 {
			err = errors.New("the router is not configured yet")
		}
		return err
	}); err != nil {
		return nil, err
	}
	stream, err := client.WatchEvent(ctx, &api.WatchEventRequest{Table: &api.WatchEventRequest_Table{
		Filters: []*api.WatchEventRequest_Table_Filter{{Type: api.WatchEventRequest_Table_Filter_BEST, Init: true}}}})
	if err != nil {
		return nil, err
	}
	w := &watched{events: make(chan event, 1024)}
	first := netip.PrefixFrom(vipAddress(0), 32).String()
	go func() {
		defer close(w.events)
		for {
			message, err := stream.Recv()
			if err != nil {
				return
			}
			now := time.Now()
			for _, path := range message.GetTable().GetPaths() {
				var nlri api.IPAddressPrefix
				if path.GetNlri().UnmarshalTo(&nlri) != nil {
					continue
				}
				w.events <- event{fmt.Sprintf("%s/%d", nlri.Prefix, nlri.PrefixLen) == first, !path.IsWithdraw, now}
			}
		}
	}()
	return w, nil
}

// awaitAll waits until the router has learned so many.
func (w *watched) awaitAll(want int) error {
	for got := 0; got < want; got++ {
		if _, err := w.next(); err != nil {
			return fmt.Errorf("%d of %d routes: %w", got, want, err)
		}
	}
	return nil
}

// await waits until the router has the first VIP, or has it no more, since began.
func (w *watched) await(has bool, began time.Time) (time.Time, error) {
	for {
		e, err := w.next()
		if err != nil {
			return time.Time{}, fmt.Errorf("waited for the route to be there: %t: %w", has, err)
		}
		if e.first && e.has == has && e.at.After(began) {
			return e.at, nil
		}
	}
}

func (w *watched) next() (event, error) {
	select {
	case e, ok := <-w.events:
		if !ok {
			return e, errors.New("the router's events ended")
		}
		return e, nil
	case <-time.After(2 * time.Minute):
		return event{}, errors.New("the router heard nothing more")
	}
}
