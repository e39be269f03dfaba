package bgp

import (
	"context"
	"time"
)

// renew keeps the addresses of the host from ending by their lifetime, until ctx ends. It
// waits for no pass, which may wait for the speaker.
func (a *Announcer) renew(ctx context.Context) {
	const soonest = 10 * time.Millisecond
	said := ""
	for {
		again, err := a.holder.Renew(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			a.unrenewed.Add(1)
		}
		switch {
		case err != nil && said == "":
			said = err.Error()
			a.log.Error("addresses are not renewed, and end by themselves; tried again and again", "error", cut(said, maxError))
		case err == nil && said != "":
			said = ""
			a.log.Info("addresses are renewed again")
		}
		if err == nil && again == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(again, soonest)):
		}
	}
}
