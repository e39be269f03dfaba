package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/centra/plasmacloud/bgp/vip"
)

const (
	// hostPatience is how long the kernel may take for one call of a boundedHolder.
	// The lock that it needs is shared with everything that configures interfaces.
	hostPatience = 10 * time.Second
	// addressesAtOnce are far fewer than the kernel manages in that time, in the first part.
	addressesAtOnce = 1000
)

var errHost = fmt.Errorf("the kernel did not answer within %s", hostPatience)

// boundedHolder is a Holder whose calls end, also when the kernel does not answer:
// what hangs must neither keep routes up nor keep the announcer from stopping.
type boundedHolder struct {
	vip.Holder
	turn chan struct{} // holds one value while a call is under way
}

func newBoundedHolder(h vip.Holder) *boundedHolder {
	return &boundedHolder{h, make(chan struct{}, 1)}
}

func (b *boundedHolder) do(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, hostPatience, errHost)
	defer cancel()
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-b.turn }()
		done <- f(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *boundedHolder) List(ctx context.Context) (vip.Held, error) {
	found := make(chan vip.Held, 1)
	err := b.do(ctx, func(ctx context.Context) error {
		a, err := b.Holder.List(ctx)
		found <- a
		return err
	})
	if err != nil {
		return vip.Held{}, fmt.Errorf("list what the host holds: %w", err)
	}
	return <-found, nil
}

func (b *boundedHolder) Bind(ctx context.Context, how vip.How, addrs []netip.Addr) error {
	return b.each(ctx, "bind", addrs, func(ctx context.Context, part []netip.Addr) error { return b.Holder.Bind(ctx, how, part) })
}

func (b *boundedHolder) Release(ctx context.Context, how vip.How, addrs []netip.Addr) error {
	return b.each(ctx, "release", addrs, func(ctx context.Context, part []netip.Addr) error { return b.Holder.Release(ctx, how, part) })
}

func (b *boundedHolder) Renew(ctx context.Context) (again time.Duration, err error) {
	found := make(chan time.Duration, 1)
	err = b.do(ctx, func(ctx context.Context) error {
		again, err := b.Holder.Renew(ctx)
		found <- again
		return err
	})
	select {
	case again = <-found:
	default:
		again = hostPatience // it hangs
	}
	return again, err
}

// each calls f for a part of addrs after the other, up to the first that hangs. Each call
// reads what is there, so parts grow as long as the kernel is quick, for either family by
// itself: removing an IPv6 address takes it far longer.
func (b *boundedHolder) each(ctx context.Context, do string, addrs []netip.Addr, f func(context.Context, []netip.Addr) error) error {
	addrs = slices.Clone(addrs)
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	var errs []error
	for size := addressesAtOnce; len(addrs) > 0; {
		part := addrs[:min(size, len(addrs))]
		if i := slices.IndexFunc(part, func(a netip.Addr) bool { return a.Is4() != part[0].Is4() }); i > 0 {
			part = part[:i]
		}
		began := time.Now()
		err := b.do(ctx, func(ctx context.Context) error { return f(ctx, part) })
		if errors.Is(err, errHost) {
			for _, addr := range addrs {
				errs = append(errs, &vip.AddrError{Addr: addr, Do: do, Err: err})
			}
			break
		}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			errs = append(errs, joined.Unwrap()...)
		} else if err != nil {
			errs = append(errs, &partError{part, err})
		}
		addrs = addrs[len(part):]
		other := len(addrs) > 0 && addrs[0].Is4() != part[0].Is4()
		if size *= 2; other || time.Since(began) > hostPatience/10 {
			size = addressesAtOnce
		}
	}
	return errors.Join(errs...)
}

// partError is a failure with all of addrs at once.
type partError struct {
	addrs []netip.Addr
	err   error
}

func (e *partError) Error() string { return e.err.Error() }
func (e *partError) Unwrap() error { return e.err }

func (b *boundedHolder) Close() error {
	return b.do(context.Background(), func(context.Context) error { return b.Holder.Close() })
}

// unbound are the addresses that err says are not bound, or not released: those it names,
// or all.
func unbound(err error, all []netip.Addr) []netip.Addr {
	if err == nil {
		return nil
	}
	parts := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		parts = joined.Unwrap()
	}
	var named []netip.Addr
	for _, part := range parts {
		var one *vip.AddrError
		var some *partError
		switch {
		case errors.As(part, &one):
			named = append(named, one.Addr)
		case errors.As(part, &some):
			named = append(named, some.addrs...)
		default:
			return all
		}
	}
	return named
}

// without are addrs without those of others.
func without(addrs, others []netip.Addr) []netip.Addr {
	if len(others) == 0 {
		return addrs
	}
	skip := make(map[netip.Addr]bool, len(others))
	for _, addr := range others {
		skip[addr] = true
	}
	return slices.DeleteFunc(slices.Clone(addrs), func(addr netip.Addr) bool { return skip[addr] })
}
