package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// resting is how long nothing happens: for two passes of the announcer, at the least.
const resting = 25 * time.Second

// benchRest measures what many VIPs cost while nothing happens: memory, its peak since
// the start, and processor time, in parts of one processor.
func benchRest(ctx context.Context, b *bench) ([]figure, error) {
	var figures []figure
	for _, vips := range b.vips {
		var base usage
		for _, c := range []contestant{ours("v4", "route", false), frrNetworks, exaBGP} {
			b.measures("rest", vips, c.name)
			var all usage
			var texts []string
			err := withBIRD(func(node *lab.Host, router lab.Router) error {
				running, err := c.start(b, node, vips)
				if err != nil {
					return err
				}
				if err := hasRoutes(ctx, router, vips); err != nil {
					return err
				}
				time.Sleep(5 * time.Second) // for what follows from it
				before := map[string]usage{}
				for _, p := range running.parts() {
					if before[p.name], err = usageOf(p.process); err != nil {
						return err
					}
				}
				passes := 0
				if o, is := running.(*oursRuns); is {
					passes = len(o.passes())
				}
				time.Sleep(resting)
				for _, p := range running.parts() {
					u, err := usageOf(p.process)
					if err != nil {
						return err
					}
					u.cpu -= before[p.name].cpu
					texts = append(texts, fmt.Sprintf("%s %s", p.name, u))
					all = all.plus(u)
				}
				if o, is := running.(*oursRuns); is {
					took := o.passes()[passes:]
					if len(took) == 0 {
						return fmt.Errorf("no pass in %s", resting)
					}
					texts = append(texts, fmt.Sprintf("a pass takes %.0f ms", float64(percentile(took, 50))/1e6))
				}
				return nil
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if base.resident == 0 {
				base = all
			}
			f := figure{work: fmt.Sprintf("%d, %s", vips, c.name), value: strings.Join(texts, "; ")}
			if !c.ours {
				f.peer, f.ratio = "the memory of announcer and gobgpd", float64(all.resident)/float64(base.resident)
			}
			figures = append(figures, f)
		}
	}
	return figures, nil
}

func (u usage) String() string {
	return fmt.Sprintf("%d MB (peak %d MB), %.1f %%", u.resident/1e6, u.peak/1e6, 100*u.cpu.Seconds()/resting.Seconds())
}
