package bgp

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// GracefulShutdown is how a path leaves in two steps (RFC 8326): first it is announced
// with the lowest preference, so that routers change to another path while this one
// still works, and only then withdrawn.
type GracefulShutdown struct {
	Delay    time.Duration // between the two; 0: paths are withdrawn at once
	OnHealth bool          // also of VIPs with a check that is down
	ByMED    bool          // by the highest MED, in place of the community and the local preference
}

// by is how the preference is lowered, in the words of announcer.json.
func (g GracefulShutdown) by() string {
	if g.ByMED {
		return "med"
	}
	return "community"
}

// applies reports whether a path that is unwanted for that cause leaves in two steps.
func (g GracefulShutdown) applies(cause Cause) bool {
	switch cause {
	case CauseStopping, CauseDrained, CauseNotConfigured:
		return g.Delay > 0
	case CauseHealth, CauseDamped:
		return g.Delay > 0 && g.OnHealth
	}
	return false
}

// lowering is a path on its way out.
type lowering struct {
	since time.Time
	sent  bool // without an error
}

// lowered is p with the lowest preference. By the community GRACEFUL_SHUTDOWN that is for
// routers of other ASes, and for those of our own, if there are any, by the local
// preference; the speaker itself goes by that too: once it learns another path it
// withdraws ours. Routers compare MEDs between paths that they have from one AS (RFC
// 4271, section 9.1.2.2).
func (g GracefulShutdown) lowered(p speaker.Path, internalPeer bool) speaker.Path {
	if internalPeer {
		p.ASPath = nil // see desired
	}
	if g.ByMED {
		highest := uint32(math.MaxUint32)
		p.MED = &highest
		return p
	}
	if !slices.Contains(p.Communities, speaker.GracefulShutdown) {
		p.Communities = append(slices.Clone(p.Communities), speaker.GracefulShutdown)
	}
	if internalPeer {
		least := uint32(0)
		p.LocalPref = &least
	}
	return p
}

// lower lowers the preference of those of prefixes that leave in two steps. It returns
// those that are to be withdrawn now, and when the next ones will be (zero: none waits).
//
// Where nobody would see the first step it is left out: no router has a session. So it is
// where traffic that comes is lost already: nobody holds the VIP, or its checks are down,
// whatever else it leaves for; with OnHealth that is no reason.
func (a *Announcer) lower(ctx context.Context, cfg *Config, prefixes []netip.Prefix, wishes *wishList, now live, speakerErr error) (withdraw []netip.Prefix, next time.Time, err error) {
	if !now.tableKnown {
		return nil, time.Time{}, nil // and the delays go on
	}
	before := a.lowered
	a.lowered = map[netip.Prefix]lowering{}
	established := slices.ContainsFunc(now.peers, func(p speaker.Peer) bool { return p.Established })
	internal := now.internalPeer(cfg.ASN)
	of := wishes.of
	var send []speaker.Path
	for _, prefix := range prefixes {
		addr, live := prefix.Addr(), now.table.Own[prefix]
		hold, broken := vip.Anyhow, false
		if w := of(addr); w.vip != nil {
			if w.hold == vip.None {
				hold = vip.None
			}
			if !cfg.GracefulShutdown.OnHealth {
				want, _, _ := healthOf(w.vip, a.health)
				broken = want == Withdraw
			}
		}
		if broken || speakerErr != nil || !established || !cfg.GracefulShutdown.applies(of(addr).cause) || !now.addrsKnown || !now.addrs.Holds(addr, hold) {
			withdraw = append(withdraw, prefix)
			continue
		}
		one := before[prefix]
		if one.since.IsZero() {
			one.since = time.Now()
		}
		path := cfg.GracefulShutdown.lowered(live, internal)
		over := one.since.Add(cfg.GracefulShutdown.Delay)
		waits := over.After(time.Now())
		if waits && !one.sent && !path.Equal(live) {
			send = append(send, path)
		}
		one.sent = true
		a.lowered[prefix] = one
		if !waits {
			withdraw = append(withdraw, prefix)
		} else if next.IsZero() || over.Before(next) {
			next = over
		}
	}
	if len(send) == 0 {
		return withdraw, next, nil
	}
	err = a.speaker.Announce(ctx, send)
	sent := prefixesOf(send, nil)
	var refused *speaker.PathErrors
	if errors.As(err, &refused) {
		sent = slices.DeleteFunc(sent, func(p netip.Prefix) bool { return refused.ByPrefix[p] != nil })
	} else if err != nil {
		for _, p := range sent { // to be tried again, but not for longer than the delay
			a.lowered[p] = lowering{since: a.lowered[p].since}
		}
		return withdraw, next, err
	}
	a.did("lower", addrsOf(sent), of)
	return withdraw, next, err
}
