package vip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// renewals is how many rounds fit into a lifetime.
	renewals = 60
	// Of all addresses a round renews this part, but not fewer than fewest: with many of
	// them the kernel walks through all for each, with its lock on interfaces held.
	renewPart = 15
	fewest    = 500
)

// lifetime is that of our addresses for the kernel, in seconds.
func (n *Netlink) lifetime() uint32 {
	if n.cfg.Lifetime <= 0 {
		return forever
	}
	return uint32(min((n.cfg.Lifetime+time.Second-1)/time.Second, forever-1))
}

// isDue reports whether an address with left seconds is to be renewed: a third of the
// lifetime is over, or it is from an announcer with another lifetime.
func (n *Netlink) isDue(left uint32) bool {
	lifetime := n.lifetime()
	if lifetime == forever {
		return left != forever
	}
	return left > lifetime || left <= lifetime-lifetime/3
}

// Renew implements Holder. It is for all that has our mark, wanted or not: what is to go
// goes in order, by Release.
func (n *Netlink) Renew(ctx context.Context) (again time.Duration, err error) {
	if _, err := n.index(); err != nil && !isGone(err) {
		return n.pause(), err
	} else if isNoNamespace(err) {
		return n.pause(), nil
	}
	var all, due []address
	err = whole(ctx, func() error {
		all, due = nil, nil
		return n.dump(func(a address) {
			if !a.ours() {
				return
			}
			if all = append(all, a); n.isDue(a.left) {
				due = append(due, a)
			}
		})
	})
	if err != nil {
		return n.pause(), fmt.Errorf("list the addresses to renew of %s: %w", n.where(), err)
	}
	slices.SortFunc(due, func(a, b address) int { return cmp.Compare(a.left, b.left) })
	most := max(fewest, len(all)/renewPart)
	var errs []error
	for _, a := range due[:min(most, len(due))] {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		// REPLACE alone: IPv6 does not add what has gone meanwhile.
		if err := n.setAddress(unix.NLM_F_REPLACE, a.index, a.local); err != nil && !isAbsent(err) {
			errs = append(errs, &AddrError{a.local, "renew", err})
		}
	}
	if err := errors.Join(errs...); err != nil || len(due) > most {
		return n.pause(), err
	}
	lifetime := n.lifetime()
	if lifetime == forever {
		return 0, nil
	}
	next := lifetime / 3 // what is bound from now on is not due before
	for _, a := range all {
		if !n.isDue(a.left) {
			next = min(next, a.left-(lifetime-lifetime/3))
		}
	}
	return max(n.pause(), time.Duration(next)*time.Second), nil
}

// pause is between two rounds.
func (n *Netlink) pause() time.Duration {
	if n.cfg.Lifetime <= 0 {
		return time.Second
	}
	return n.cfg.Lifetime / renewals
}

// isAbsent reports that there is no such address any more, or no such interface.
func isAbsent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}
