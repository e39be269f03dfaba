// Package speaker is the announcer's view of a BGP daemon: one small interface, and
// a client of gobgpd behind it, of whichever generation the daemon is.
//
// Ownership is written into the daemon's own table: a path that we add carries
// OwnPathID as its path identifier. The identifier exists only between us and the
// daemon. To a peer without add-path no identifier is sent, and to one with it
// (RFC 7911) the daemon sends a number of its own. So after a crash the table
// itself tells which paths are ours, and no state file can be lost or be wrong.
package speaker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// OwnPathID is the path identifier of every path that an announcer adds: "PLCV"
// in ASCII. Other clients of the daemon use 0 unless told otherwise.
const OwnPathID uint32 = 0x504c4356

// Table is what the daemon's global table says about locally originated host routes.
// What it learned from peers (another node's announcement of the same VIP, say) is in neither.
// It is to be read only: List may return the same one again.
type Table struct {
	Own     map[netip.Prefix]Path
	Foreign map[netip.Prefix]int // paths of other clients or of the daemon's configuration, per prefix
}

// Speaker is one BGP daemon. Every method returns within the speaker's timeout
// per request, also when the daemon is stopped. Methods may be called concurrently.
type Speaker interface {
	// Ready is nil when the daemon is configured and speaks as the expected ASN.
	// Otherwise it is one of the sentinel errors below, with its detail.
	Ready(ctx context.Context) error
	// List reads the live table.
	List(ctx context.Context) (Table, error)
	// Announce adds paths or replaces those with our identifier. Where the daemon
	// refuses single paths the error is a *PathErrors and the others are announced.
	Announce(ctx context.Context, paths []Path) error
	// Withdraw removes our paths of these prefixes; absent ones are no error.
	Withdraw(ctx context.Context, prefixes []netip.Prefix) error
	// Peers lists the daemon's neighbours by address.
	Peers(ctx context.Context) ([]Peer, error)
	// Advertised says to which established peers a path of ours is on offer
	// (Adj-RIB-Out, RFC 4271 section 3.2), for the prefixes asked about, and perhaps for
	// others. What is not on offer may still be on its way: the daemon derives the answer
	// from its global table and its policies, not from what it has sent. It goes over all
	// of that table for each peer, and does nothing else meanwhile.
	Advertised(ctx context.Context, prefixes []netip.Prefix) (Advertised, error)
	// Filtered has those of prefixes, and perhaps others, that an export policy keeps from
	// some established peer.
	Filtered(ctx context.Context, prefixes []netip.Prefix) (map[netip.Prefix]bool, error)
	// Watch blocks until the daemon is lost, hangs, or ctx ends, and returns why: where its
	// answer was late, which it may be and live, that is context.DeadlineExceeded too.
	// It calls changed whenever a session with a peer comes or goes.
	Watch(ctx context.Context, changed func()) error
	// Generation is the generation of the daemon's API that answered last, such as 4; 0
	// before the first answer.
	Generation() int
	Close() error
}

// Advertised is the answer of Speaker.Advertised.
type Advertised struct {
	Established int // peers with an established session
	// To has the peers by prefix; a prefix that no peer is offered has no entry. Prefixes
	// with the same peers share one slice.
	To map[netip.Prefix][]netip.Addr
}

// The states of a daemon that is not ready; test with errors.Is.
var (
	// ErrGone: nothing listens at the daemon's address, so its table is gone too.
	ErrGone = errors.New("speaker is not running")
	// ErrNoAnswer: the daemon exists, or may exist, and does not answer.
	ErrNoAnswer = errors.New("speaker does not answer")
	// ErrNotConfigured: the daemon runs and has no ASN yet; its table is empty.
	ErrNotConfigured = errors.New("speaker is not configured yet")
	// ErrWrongASN: the daemon speaks as another ASN than the configuration says.
	ErrWrongASN = errors.New("speaker has another ASN")
	// ErrTLS: the daemon exists, and one side does not trust the other.
	ErrTLS = errors.New("TLS with the speaker fails")
	// ErrWrongAPI: the daemon serves an API that this client does not speak.
	ErrWrongAPI = errors.New("speaker serves another API")
)

// PathErrors names the paths that a daemon refused.
type PathErrors struct{ ByPrefix map[netip.Prefix]error }

func (e *PathErrors) Error() string {
	prefixes := make([]netip.Prefix, 0, len(e.ByPrefix))
	for p := range e.ByPrefix {
		prefixes = append(prefixes, p)
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	const most = 5
	texts := make([]string, 0, most)
	for i, p := range prefixes {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d more", len(prefixes)-most))
			break
		}
		texts = append(texts, fmt.Sprintf("%s: %v", p, e.ByPrefix[p]))
	}
	return "speaker refused " + strings.Join(texts, "; ")
}

// Route is one entry of a daemon's table, whoever it came from.
type Route struct {
	Prefix           netip.Prefix
	NextHop          netip.Addr // 0.0.0.0 or :: for the daemon's own
	ASPath           []uint32   // nearest AS first; sets are flattened
	Communities      []Community
	LargeCommunities []LargeCommunity
	MED, LocalPref   *uint32
	Peer             netip.Addr // the zero Addr: originated here
	PathID           uint32     // path identifier as received, or as given by a local client
	Best             bool
	Stale            bool // kept by graceful restart (RFC 4724)
}

// Peer is a neighbour of a daemon.
type Peer struct {
	Address     netip.Addr
	ASN         uint32
	State       string // of RFC 4271 section 8.2.2 in lower case: idle, connect, active, opensent, openconfirm, established
	Established bool
	Received    PeerCounters
	Sent        PeerCounters
	Since       time.Time // when the session was established; zero when it is not
}

// PeerCounters counts messages of one direction since the peer was configured.
type PeerCounters struct{ Updates, Total uint64 }
