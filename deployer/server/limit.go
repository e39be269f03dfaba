package server

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/api/v1/deployerv1connect"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server/page"
	"github.com/centra/plasmacloud/deployer/tokens"
)

// An address has Config.Burst requests at once, and gets as many again within burstRefill.
// Those who prove who they are do not pay: operators, and nodes whose report is accepted.
// So a fleet behind one NAT boots at once, whatever its neighbours there send. The others
// pay: reports that are refused, and what is read where anybody may. The two pay
// apart, since broken nodes must not shut out who looks after them from the same address.
const (
	burstRefill = 20 * time.Second
	watchCost   = 50 // of a stream, which begins with much at once and stays
)

// asker is who sent a request, as far as that is known by now.
type asker struct {
	pays  *allowance // nil: for nothing
	paid  bool
	known bool        // an operator, who has proven it
	role  tokens.Role // of that operator
}

type askerKey struct{}

// asking finds out what r has to pay. Where nothing in it can prove anything, that is to
// be paid at once, by admitted, and else by settled, if it proved nothing. No token is
// looked at for this: what somebody pays must not tell whether a guess was right.
func (s *server) asking(r *http.Request) (*http.Request, *asker) {
	who := &asker{}
	signed := r.Header.Get("Authorization") != ""
	switch r.URL.Path {
	case api.PathHealth, deployerv1connect.DeployerServiceGetHealthProcedure, healthProcedure:
		return r, who // who watches over the deployer may be behind any address
	case api.PathPhoneHome, deployerv1connect.DeployerServicePhoneHomeProcedure:
		who.pays = s.reports
		who.paid = s.wantsTokens() && !signed && r.Header.Get(node.SecretHeader) == ""
		return r, who
	}
	who.pays = s.requests
	certified := r.TLS != nil && len(r.TLS.VerifiedChains) > 0
	who.paid = s.cfg.Operators == nil || !signed && !certified && sessionID(r) == ""
	return r.WithContext(context.WithValue(r.Context(), askerKey{}, who)), who
}

// admitted takes what r pays before it is looked at, and says whether there was that much.
func (s *server) admitted(r *http.Request, who *asker) bool {
	return who.pays == nil || !who.paid || who.pays.take(r, 1, s.cfg.Now())
}

// settled takes what a request pays that proved nothing, and is a for it, or the
// refusal where there was not that much. What fails for want of the deployer costs nothing.
func (s *server) settled(r *http.Request, who *asker, a answer) answer {
	switch {
	case who.pays == nil, who.paid, who.known, a.status >= 500 && a.status != http.StatusNotImplemented:
		return a
	case who.pays == s.reports && a.status == http.StatusOK:
		return a
	case who.pays.take(r, 1, s.cfg.Now()):
		return a
	}
	if a.written != nil {
		a.written()
	}
	return s.tooManyRequests(r)
}

// mayWatch takes what a stream costs for whom nothing vouches.
func (s *server) mayWatch(r *http.Request) bool {
	who := askerOf(r)
	return who.known || who.pays == nil || who.pays.take(r, watchCost-1, s.cfg.Now())
}

// askerOf is who sent a request that asking saw, or nobody.
func askerOf(r *http.Request) *asker {
	if who, ok := r.Context().Value(askerKey{}).(*asker); ok {
		return who
	}
	return &asker{}
}

func (s *server) tooManyRequests(r *http.Request) answer {
	p := api.Problem{
		Status: http.StatusTooManyRequests, Code: api.CodeTooManyRequests, Title: "Too many requests",
		Detail: fmt.Sprintf("this address sent more than %d requests that nothing vouches for; try again in five seconds", s.cfg.Burst),
	}
	a := refused(p)
	if path := r.URL.Path; path == page.PathFleet || strings.HasPrefix(path, "/ui/") {
		a = s.message(s.frame(), p.Status, p.Title, "Your address sent too many of them. Try again in five seconds.")
	}
	a.retryAfter = "5"
	return a
}

const maxAddresses = 4096

// allowance is what each address may send, of IPv6 each /64: burst at once, and one more
// each refill.
type allowance struct {
	burst  int
	refill time.Duration

	mu    sync.Mutex
	until map[netip.Prefix]time.Time // when the address has all of it again
}

func newAllowance(burst int, refill time.Duration) *allowance {
	return &allowance{burst: burst, refill: refill, until: map[netip.Prefix]time.Time{}}
}

// take takes n for the sender of r, and says whether there was that much.
func (l *allowance) take(r *http.Request, n int, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := network(r.RemoteAddr)
	if !l.has(from, n, now) {
		return false
	}
	l.spend(from, n, now)
	return true
}

// exhausted says whether nothing is left for the sender of r.
func (l *allowance) exhausted(r *http.Request, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.has(network(r.RemoteAddr), 1, now)
}

// failed takes one for the sender of r, if there is one.
func (l *allowance) failed(r *http.Request, now time.Time) { _ = l.take(r, 1, now) }

func (l *allowance) has(from netip.Prefix, n int, now time.Time) bool {
	return l.used(from, now)+time.Duration(n)*l.refill <= time.Duration(l.burst)*l.refill
}

// used is how long it takes until from has all of it again.
func (l *allowance) used(from netip.Prefix, now time.Time) time.Duration {
	used := max(0, l.until[from].Sub(now))
	if used > time.Duration(l.burst)*l.refill { // more than there can be: the clock was set back
		return 0
	}
	return used
}

func (l *allowance) spend(from netip.Prefix, n int, now time.Time) {
	until := now.Add(l.used(from, now) + time.Duration(n)*l.refill)
	if _, known := l.until[from]; !known && len(l.until) >= maxAddresses {
		l.forget(now)
	}
	l.until[from] = until
}

// forget makes room: first those who have all of theirs, then anybody, a quarter of them,
// so that it is not done again for each new address.
func (l *allowance) forget(now time.Time) {
	for from, until := range l.until {
		if !until.After(now) {
			delete(l.until, from)
		}
	}
	for from := range l.until {
		if len(l.until) < maxAddresses*3/4 {
			break
		}
		delete(l.until, from)
	}
}

// network is what counts as one sender: an address, of IPv6 a /64.
func network(address string) netip.Prefix {
	remote, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := remote.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // bits fit the address
	return prefix
}
