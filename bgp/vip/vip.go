// Package vip holds VIPs on the host: as addresses on an interface, or as local
// routes over it.
//
// Ownership is written into the kernel's own state: an address that we add
// carries Protocol as its IFA_PROTO attribute (rtnetlink(7), linux/if_addr.h,
// Linux 5.18), a route as its protocol (rtm_protocol). What has no such mark is
// foreign, and never removed.
package vip

import (
	"context"
	"net/netip"
	"strings"
	"time"
)

// Protocol is the protocol of our addresses and routes: "V" in ASCII. Of addresses the
// kernel itself uses 1 to 3 (IFAPROT_KERNEL_LO, _RA, _LL), and iproute2 shows ours as
// "proto 0x56"; of routes nobody has this number (linux/rtnetlink.h), and iproute2
// shows "proto 86".
const Protocol uint8 = 0x56

// How is a set of ways to hold a VIP.
type How uint8

// The ways. Stray is either of the others on another interface of the namespace:
// what an announcer left that was told another one.
const (
	Address How = 1 << iota // an address on the interface
	Route                   // a local route over the interface (AnyIP); no address
	Stray

	None   How = 0 // not at all: somebody else sees to it
	Anyhow     = Address | Route | Stray
)

// String names the ways, such as "address" or "route+stray".
func (h How) String() string {
	var names []string
	for i, name := range []string{"address", "route", "stray"} {
		if h&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, "+")
}

// Held is what the host holds. An address that is not held is in neither.
type Held struct {
	Own     map[netip.Addr]How
	Foreign map[netip.Addr]bool // on the interface, without our mark or not as a host prefix
}

// Holds reports whether addr is held as how says. An address counts, whoever put it there.
func (h Held) Holds(addr netip.Addr, how How) bool {
	return how == None || h.Own[addr]&how != 0 || how&Address != 0 && h.Foreign[addr]
}

// Holder holds VIPs on the host. Methods may be called concurrently.
type Holder interface {
	// List reads the live state; never a part of it, it fails instead. An interface
	// that is gone holds nothing.
	List(ctx context.Context) (Held, error)
	// Bind holds addrs in the one way of how, Address or Route, with our mark. An
	// address that exists already is left as it is and is no error. The error joins one
	// *AddrError for each that failed.
	Bind(ctx context.Context, how How, addrs []netip.Addr) error
	// Release lets go of addrs in all ways of how, where it is ours; what is not, and
	// what is absent, is left alone and is no error. The error joins one *AddrError for
	// each that failed.
	Release(ctx context.Context, how How, addrs []netip.Addr) error
	// Renew keeps our addresses from ending by their lifetime, a part of them at a time,
	// and says when to call it again; 0: never. It must be called at the start also
	// where there is no lifetime: who held them before may have had one.
	Renew(ctx context.Context) (again time.Duration, err error)
	// Watch calls changed after anybody has changed what is held, until ctx ends or the
	// kernel's events fail.
	Watch(ctx context.Context, changed func()) error
	Close() error
}

// AddrError is a failure with one address.
type AddrError struct {
	Addr netip.Addr
	Do   string // "bind", "release" or "renew"
	Err  error
}

func (e *AddrError) Error() string { return e.Do + " " + e.Addr.String() + ": " + e.Err.Error() }
func (e *AddrError) Unwrap() error { return e.Err }
