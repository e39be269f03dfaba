package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// benchAnnounce measures, from the order to look at the changed configuration to the table of a BIRD
// router, how long it takes from one VIP to many. The peers, and a gobgpd with nothing but
// a client that gives it the same, put the same prefixes into the same router.
func benchAnnounce(ctx context.Context, b *bench) ([]figure, error) {
	var figures []figure
	for _, vips := range b.vips {
		contestants := []contestant{ours("v4", "none", false), ours("v3", "none", false), bare("v4"), bare("v3"), ours("v4", "route", false), bird, frrNetworks, exaBGP}
		if vips <= 10_000 { // the kernel's time for addresses grows with their square
			contestants = append(contestants, ours("v4", "address", false), frrAddresses)
		}
		var base time.Duration
		for _, c := range contestants {
			b.measures("announce", vips, c.name)
			took, err := median(b.runs, func() (time.Duration, error) { return b.announceAll(ctx, c, vips) })
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if base == 0 {
				base = took
			}
			f := figure{work: fmt.Sprintf("%d, %s", vips, c.name), value: fmt.Sprintf("%.0f ms", float64(took)/1e6)}
			if !c.ours {
				f.peer, f.ratio = "the announcer's time, with gobgpd v4", float64(took)/float64(base)
			}
			figures = append(figures, f)
		}
	}
	return figures, nil
}

// announceAll is the time that a contestant takes from one VIP to so many.
func (b *bench) announceAll(ctx context.Context, c contestant, vips int) (took time.Duration, err error) {
	err = withBIRD(func(node *lab.Host, router lab.Router) error {
		running, err := c.start(b, node, 1)
		if err != nil {
			return err
		}
		// The first one is there before, so that the time of making the session is not measured.
		if err := hasRoutes(ctx, router, 1); err != nil {
			return err
		}
		apply, err := running.prepare(vips)
		if err != nil {
			return err
		}
		begin := time.Now()
		changed := make(chan error, 1)
		go func() { changed <- apply() }()
		err = hasRoutes(ctx, router, vips)
		took = time.Since(begin)
		return errors.Join(err, <-changed)
	})
	return took, err
}
