package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// benchRestart kills what speaks BGP and starts it again at once, without graceful
// restart, and measures from SIGKILL until a BIRD router has all routes again. It also
// kills the announcer alone, of which the router must hear nothing.
func benchRestart(ctx context.Context, b *bench) ([]figure, error) {
	var figures []figure
	for _, vips := range b.vips {
		var base time.Duration
		for _, c := range []contestant{ours("v4", "route", false), ours("v3", "route", false), bird, frrNetworks, exaBGP} {
			b.measures("restart", vips, c.name)
			var took, taken []time.Duration
			err := withBIRD(func(node *lab.Host, router lab.Router) error {
				running, err := c.start(b, node, vips)
				if err != nil {
					return err
				}
				if err := hasRoutes(ctx, router, vips); err != nil {
					return err
				}
				for range b.runs {
					time.Sleep(2 * time.Second)
					began := time.Now()
					if err := errors.Join(running.kill(), hasRoutes(ctx, router, 0), running.start(), hasRoutes(ctx, router, vips)); err != nil {
						return err
					}
					took = append(took, time.Since(began))
				}
				if o, is := running.(*oursRuns); is {
					taken, err = o.takenOver(router, b.runs)
				}
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			half := percentile(took, 50)
			if base == 0 {
				base = half
			}
			f := figure{work: fmt.Sprintf("%d, %s", vips, c.name), value: fmt.Sprintf("%.0f ms, worst %.0f ms", float64(half)/1e6, float64(percentile(took, 100))/1e6)}
			if !c.ours {
				f.peer, f.ratio = "the time of announcer and gobgpd v4", float64(half)/float64(base)
			}
			figures = append(figures, f)
			if c.ours {
				figures = append(figures, figure{
					work:  fmt.Sprintf("%d, %s: the announcer alone", vips, c.name),
					value: fmt.Sprintf("%.0f ms until its first pass is done, worst %.0f ms; no UPDATE", float64(percentile(taken, 50))/1e6, float64(percentile(taken, 100))/1e6),
				})
			}
		}
	}
	return figures, nil
}

// takenOver kills the announcer, and returns how long the next one took until it had
// looked at everything.
func (o *oursRuns) takenOver(router lab.Router, runs int) (took []time.Duration, err error) {
	time.Sleep(5 * time.Second) // until nothing is to be done any more
	before, err := router.Updates()
	if err != nil {
		return nil, err
	}
	for range runs {
		passes := len(o.passes())
		began := time.Now()
		if err := errors.Join(o.announcer.Kill(), o.startAnnouncer()); err != nil {
			return nil, err
		}
		for len(o.passes()) == passes {
			if time.Since(began) > time.Minute {
				return nil, errors.New("the announcer does not pass")
			}
			time.Sleep(5 * time.Millisecond)
		}
		took = append(took, time.Since(began))
		time.Sleep(2 * time.Second)
	}
	after, err := router.Updates()
	if err == nil && after != before {
		err = fmt.Errorf("the router heard of %d routes", after-before)
	}
	return took, err
}
