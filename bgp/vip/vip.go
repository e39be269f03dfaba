// Package vip holds VIPs on the host, as addresses on an interface.
//
// Ownership is written into the kernel's own state: an address that we add
// carries Protocol as its IFA_PROTO attribute (rtnetlink(7), linux/if_addr.h,
// Linux 5.18), much as a route carries the protocol that made it. An address
// without that mark is foreign: it counts as held and is never removed.
package vip

import (
	"context"
	"net/netip"
)

// Protocol is the IFA_PROTO value of our addresses: "V" in ASCII. The kernel
// itself uses 1 to 3 (IFAPROT_KERNEL_LO, _RA, _LL); iproute2 shows it as "proto 0x56".
const Protocol uint8 = 0x56

// Addresses is what the interface holds, each set by address.
type Addresses struct {
	Own     map[netip.Addr]bool
	Foreign map[netip.Addr]bool // without our mark, or not a host prefix
}

// Holds reports whether a is on the interface, whoever put it there.
func (a Addresses) Holds(addr netip.Addr) bool { return a.Own[addr] || a.Foreign[addr] }

// Holder binds VIPs to the host. Methods may be called concurrently.
type Holder interface {
	// List reads the live state; never a part of it, it fails instead. An interface
	// that is gone holds nothing.
	List(ctx context.Context) (Addresses, error)
	// Bind adds addresses with our mark. One that exists already is left as it is
	// and is no error. The error joins one *AddrError for each that failed.
	Bind(ctx context.Context, addrs []netip.Addr) error
	// Release removes addresses that carry our mark; others, and absent ones, are
	// left alone and are no error. The error joins one *AddrError for each that failed.
	Release(ctx context.Context, addrs []netip.Addr) error
	// Watch calls changed after addresses were added or removed, by anybody, until
	// ctx ends or the kernel's events fail.
	Watch(ctx context.Context, changed func()) error
	Close() error
}

// AddrError is a failure with one address.
type AddrError struct {
	Addr netip.Addr
	Do   string // "bind" or "release"
	Err  error
}

func (e *AddrError) Error() string { return e.Do + " " + e.Addr.String() + ": " + e.Err.Error() }
func (e *AddrError) Unwrap() error { return e.Err }
