package bgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// DrainOrder is an operator's order to take a VIP, or all of the node's, out of service.
type DrainOrder struct {
	Reason string    `json:"reason"`
	By     string    `json:"by"` // who gave it, such as "uid 0"
	Since  time.Time `json:"since"`
}

// DrainOrders are those that stand. They outlive restarts and reloads; a VIP's also
// where it leaves the configuration and comes back.
type DrainOrders struct {
	Node *DrainOrder               `json:"node"` // of all VIPs; nil: none
	VIPs map[netip.Addr]DrainOrder `json:"vips"`
}

// of is the order about addr, and whether there is one.
func (o DrainOrders) of(addr netip.Addr) (DrainOrder, bool) {
	if order, ok := o.VIPs[addr]; ok {
		return order, true
	}
	if o.Node != nil {
		return *o.Node, true
	}
	return DrainOrder{}, false
}

// Clone is a copy that may be changed.
func (o DrainOrders) Clone() DrainOrders {
	o.VIPs = maps.Clone(o.VIPs)
	if o.VIPs == nil {
		o.VIPs = map[netip.Addr]DrainOrder{}
	}
	return o
}

// SetDrainOrders makes orders those that stand. What is drained is withdrawn, and
// released after the drain, as if its check were down.
func (a *Announcer) SetDrainOrders(orders DrainOrders) {
	a.mu.Lock()
	a.orders = orders.Clone()
	a.mu.Unlock()
	a.trigger()
}

// DrainOrders are those that stand.
func (a *Announcer) DrainOrders() DrainOrders {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.orders.Clone()
}

// Configured reports whether addr is a VIP of the configuration.
func (a *Announcer) Configured(addr netip.Addr) bool {
	return slices.ContainsFunc(a.config().VIPs, func(v VIP) bool { return v.Address == addr })
}

// Offered asks the speaker which routers it offers our path for addr, by the routes for
// each of them (Adj-RIB-Out).
func (a *Announcer) Offered(ctx context.Context, addr netip.Addr) ([]netip.Addr, error) {
	prefix := speaker.HostPrefix(addr)
	got, err := a.speaker.Advertised(ctx, []netip.Prefix{prefix})
	return got.To[prefix], err
}

// PlannedStep is one difference between what should be and what is.
type PlannedStep struct {
	Do      string // "withdraw", "bind", "move", "announce", "release", or "await": a VIP that is new, until its checks are up
	Address netip.Addr
	How     vip.How // of bind: as what; of move: from what
	Why     string
}

func (s PlannedStep) String() string {
	text := s.Do + " " + s.Address.String()
	switch s.Do {
	case "bind":
		text += " as " + s.How.String()
	case "move":
		text += " from " + s.How.String()
	}
	return text + ": " + s.Why
}

// Plan reads the live state, and says what a pass would do, without doing it; with
// candidate, what it would do after a reload with that. Run answers between two passes.
func (a *Announcer) Plan(ctx context.Context, candidate *Config) (steps []PlannedStep, err error) {
	done := make(chan struct{})
	ask := func() {
		defer close(done)
		steps, err = a.plan(ctx, candidate)
	}
	select {
	case a.asks <- ask:
	case <-ctx.Done():
		return nil, fmt.Errorf("the announcer is busy with a pass: %w", context.Cause(ctx))
	}
	<-done // every question to the host and the speaker has its own deadline
	return steps, err
}

func (a *Announcer) plan(ctx context.Context, candidate *Config) ([]PlannedStep, error) {
	cfg := a.config()
	if candidate != nil {
		if err := reloadable(cfg, candidate); err != nil {
			return nil, err
		}
		cfg = candidate
	}
	if a.Status().Stopping {
		return nil, errors.New("the announcer stops; it withdraws and lets go of all")
	}
	now, speakerErr, addrsErr := a.read(ctx)
	if err := errors.Join(speakerErr, addrsErr); err != nil {
		return nil, err
	}
	wishes := desired(cfg, a.DrainOrders(), a.health, a.past.clone(), time.Now(), now.internalPeer(cfg.ASN), false)
	of := wishes.of
	why := func(addr netip.Addr) string { return of(addr).why }
	todo := plan(wishes, now)
	var steps []PlannedStep
	for _, p := range todo.withdraw {
		reason := why(p.Addr())
		if cfg.GracefulShutdown.applies(of(p.Addr()).cause) {
			reason += "; after a graceful shutdown"
		}
		steps = append(steps, PlannedStep{"withdraw", p.Addr(), vip.None, reason})
	}
	for _, how := range slices.Sorted(maps.Keys(todo.bind)) {
		for _, addr := range todo.bind[how] {
			steps = append(steps, PlannedStep{"bind", addr, how, why(addr)})
		}
	}
	for _, how := range slices.Sorted(maps.Keys(todo.surplus)) {
		for _, addr := range todo.surplus[how] {
			steps = append(steps, PlannedStep{"move", addr, how, "is to be held as " + of(addr).hold.String()})
		}
	}
	for _, p := range todo.announce {
		if !a.sent.asMade(p, now.table.Own) {
			steps = append(steps, PlannedStep{"announce", p.Prefix.Addr(), vip.None, why(p.Prefix.Addr())})
		}
	}
	for _, addr := range todo.unwanted {
		steps = append(steps, PlannedStep{"release", addr, vip.None, why(addr) + "; after the drain"})
	}
	for _, v := range cfg.VIPs {
		if of(v.Address).want == Leave && !a.Configured(v.Address) {
			steps = append(steps, PlannedStep{"await", v.Address, vip.None, "is new, and announced once its checks are up"})
		}
	}
	return steps, nil
}
