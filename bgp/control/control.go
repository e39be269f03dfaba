// Package control lets operators of a host drain its VIPs and ask its announcer,
// over a Unix socket. Who they are, the kernel says (SO_PEERCRED, unix(7)).
package control

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/metrics"
)

// The files, where systemd's RuntimeDirectory= and StateDirectory= put them.
const (
	DefaultSocket  = "/run/plasmacloud-announcer/control.sock"
	DefaultState   = "/var/lib/plasmacloud-announcer/drains.json"
	DefaultSysctls = "/var/lib/plasmacloud-announcer/sysctls.json" // as they were before
	DefaultLast    = "/var/lib/plasmacloud-announcer/last.json"    // of what ran last
)

// MaxReason is how long a reason may be, in bytes.
const MaxReason = 200

// Order is what POST /v1/drain and /v1/undrain take.
type Order struct {
	VIP    string `json:"vip"`    // an address; "": all of the node
	Reason string `json:"reason"` // of a drain: required
}

// State is what GET /v1/state answers.
type State struct {
	Status metrics.Status  `json:"status"`
	Drains bgp.DrainOrders `json:"drains"`
}

// Offered is what GET /v1/offered?vip=VIP answers: the routers that have the VIP's path on
// offer, as gobgpd says right then (Adj-RIB-Out).
type Offered struct {
	Peers []string `json:"peers"`
}

// Plan is what GET and POST /v1/plan answer. POST takes an announcer.json.
type Plan struct {
	Steps []Step `json:"steps"` // none: there is nothing to do
}

// Step is one step of a Plan; see bgp.PlannedStep.
type Step struct {
	Do      string `json:"do"`
	Address string `json:"address"`
	How     string `json:"how"` // of bind and move; else "none"
	Why     string `json:"why"`
	Text    string `json:"text"` // all of it, in words
}

// Problem is the answer to what cannot be done.
type Problem struct {
	Text   string `json:"error"`
	Status int    `json:"-"` // of HTTP
}

func (p *Problem) Error() string { return p.Text }

// address is the VIP of an order; the zero Addr: the node.
func (o Order) address() (netip.Addr, error) {
	if o.VIP == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(o.VIP)
	if err != nil || addr.Zone() != "" || addr.Is4In6() {
		return netip.Addr{}, fmt.Errorf("vip: %.60q is no address of a VIP; want one such as 203.0.113.10, without a prefix length", o.VIP)
	}
	return addr, nil
}

func (o Order) checkReason() error {
	switch {
	case strings.TrimSpace(o.Reason) == "":
		return errors.New("reason: is empty; say why, for whoever finds the VIP drained")
	case len(o.Reason) > MaxReason:
		return fmt.Errorf("reason: has %d bytes; at most %d are allowed", len(o.Reason), MaxReason)
	case strings.ContainsFunc(o.Reason, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("reason: has something that does not print; write one line of text")
	}
	return nil
}
