package bgp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// Want is what should become of a VIP.
type Want int

const (
	Leave    Want = iota // not known yet: as the live state has it
	Announce             // held, and announced
	Withdraw             // not announced, and after the drain not held
)

func (w Want) String() string {
	switch w {
	case Announce:
		return "announce"
	case Withdraw:
		return "withdraw"
	default:
		return "leave"
	}
}

// wish is what should become of one VIP, and why.
type wish struct {
	addr  netip.Addr // unset in one that stands for many
	vip   *VIP       // nil: in no configuration
	want  Want
	hold  vip.How
	drain time.Duration // from its withdraw to letting go of it
	cause Cause
	why   string

	damping DampingState
	until   time.Time // when it changes by itself, whatever the checks do; zero: never
}

// Cause is why something is done to a VIP, of the few kinds that there are.
type Cause string

// The causes.
const (
	CauseNoChecks      Cause = "no_checks"      // it is announced while the announcer runs
	CauseHealth        Cause = "health"         // its checks are up, or one is down
	CauseUnknown       Cause = "unknown"        // a check has not answered yet
	CauseStarting      Cause = "starting"       // its start delay is not over yet
	CauseDamped        Cause = "damped"         // it went down too often
	CauseNotConfigured Cause = "not_configured" // it carries our mark, and is in no configuration
	CauseDrained       Cause = "drained"        // an operator's order
	CauseStopping      Cause = "stopping"       // the announcer stops
	CauseCannotBeHeld  Cause = "cannot_be_held" // it could not be bound
	CauseHold          Cause = "hold"           // it is held otherwise now
)

// notConfigured is the wish for what carries our mark and is in no configuration.
var notConfigured = wish{want: Withdraw, cause: CauseNotConfigured, why: "is not in the configuration"}

// cannotBeHeld is the wish for what is wanted and could not be bound.
var cannotBeHeld = wish{want: Withdraw, cause: CauseCannotBeHeld, why: "cannot be held"}

// desired decides what should become of every configured VIP: configuration,
// health and what it was like before, operators' orders, and the gate, which is shut
// once the announcer stops. Peers of our own AS take no path with that AS in it, for a
// loop (RFC 4271, section 9.1.2), so while there is one, nothing is prepended. Past is
// brought up to now.
func desired(cfg *Config, orders DrainOrders, state func(health.Check) health.State, past histories, now time.Time, internalPeer, stopping bool) *wishList {
	wishes := newWishList(len(cfg.VIPs))
	wishes.path = func(w *wish) speaker.Path {
		p := cfg.Path(w.vip)
		if internalPeer {
			p.ASPath = nil
		}
		return p
	}
	for i := range cfg.VIPs {
		v := &cfg.VIPs[i]
		w := wish{vip: v, hold: v.Hold, drain: v.DrainDelay}
		if stopping {
			w.want, w.cause, w.why = Withdraw, CauseStopping, "the announcer stops"
			wishes.add(v.Address, w)
			continue
		}
		w.want, w.cause, w.why = healthOf(v, state)
		past.judge(v, &w, now)
		if order, ok := orders.of(v.Address); ok {
			w.want, w.cause, w.why = Withdraw, CauseDrained, fmt.Sprintf("drained by %s: %s", order.By, order.Reason)
		}
		wishes.add(v.Address, w)
	}
	past.keep(wishes)
	return wishes
}

// healthOf is Announce if as many checks are up as must be, Withdraw if so many are
// down that they cannot, and else Leave.
func healthOf(v *VIP, state func(health.Check) health.State) (Want, Cause, string) {
	if len(v.Checks) == 0 {
		return Announce, CauseNoChecks, "has no checks"
	}
	need := v.Require
	if need == 0 {
		need = len(v.Checks)
	}
	up, down := 0, 0
	var firstDown, lastUnknown, notAsked string
	for _, c := range v.Checks {
		s := state(c)
		if s.NotAsked != "" && notAsked == "" {
			notAsked = fmt.Sprintf("; check %s %s", c.Target(), s.NotAsked)
		}
		switch s.Status {
		case health.Up:
			up++
		case health.Down:
			if down++; down == 1 {
				firstDown = fmt.Sprintf("check %s is down: %s", c.Target(), s.Reason)
			}
		default:
			lastUnknown = fmt.Sprintf("check %s is unknown: %s", c.Target(), s.Reason)
		}
	}
	some := ""
	if need < len(v.Checks) {
		some = fmt.Sprintf("%d of %d checks up, %d needed", up, len(v.Checks), need)
	}
	switch {
	case up >= need && some != "":
		return Announce, CauseHealth, some + notAsked
	case up >= need && len(v.Checks) == 1:
		return Announce, CauseHealth, "its check is up" + notAsked
	case up >= need:
		return Announce, CauseHealth, "all checks are up" + notAsked
	case some != "":
		some += "; "
	}
	if len(v.Checks)-down < need {
		return Withdraw, CauseHealth, some + firstDown + notAsked
	}
	return Leave, CauseUnknown, some + lastUnknown + notAsked
}
