package bgp

import (
	"errors"
	"log/slog"
	"net/netip"

	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// troubles are why VIPs are not announced although they are wanted, or not as they should
// be, as a pass finds it.
type troubles struct {
	each   map[netip.Addr]string
	host   string // of those that are announced, and not in each
	others string // of those that are not announced, and not in each
}

func newTroubles() troubles { return troubles{each: map[netip.Addr]string{}} }

const (
	changedWhy = "the speaker changes its attributes; is there an import policy?"
	droppedWhy = "the speaker took it, and dropped it; does an import policy do that?"
)

// maxTrouble is how much of an error is told of a VIP.
const maxTrouble = 200

func (t troubles) add(addrs []netip.Addr, why string) {
	for _, addr := range addrs {
		t.each[addr] = why
	}
}

// unbound takes the error of binding addrs.
func (t troubles) unbound(err error, addrs []netip.Addr) {
	if err == nil {
		return
	}
	const text = "cannot be held: "
	t.add(unbound(err, addrs), text+cut(err.Error(), maxTrouble))
	if joined, is := err.(interface{ Unwrap() []error }); is {
		for _, part := range joined.Unwrap() {
			if one := (*vip.AddrError)(nil); errors.As(part, &one) {
				t.each[one.Addr] = text + cut(one.Error(), maxTrouble)
			}
		}
	}
}

// refused takes the error of announcing.
func (t *troubles) refused(err error) {
	if err != nil {
		t.others = "could not be announced: " + cut(err.Error(), maxTrouble)
	}
	if some := (*speaker.PathErrors)(nil); errors.As(err, &some) {
		if more := (interface{ Unwrap() []error })(nil); !errors.As(err, &more) {
			t.others = ""
		}
		for prefix, why := range some.ByPrefix {
			t.each[prefix.Addr()] = "the speaker refuses it: " + cut(why.Error(), maxTrouble)
		}
	}
}

// explain says what is wrong with all the others.
func (t *troubles) explain(speakerErr, addrsErr error) {
	if addrsErr != nil {
		t.host = "may not be held: " + cut(addrsErr.Error(), maxTrouble)
	}
	switch {
	case speakerErr != nil:
		t.others = "waits for the speaker: " + cut(speakerErr.Error(), maxTrouble)
	case addrsErr != nil:
		t.others = "waits for the host: " + cut(addrsErr.Error(), maxTrouble)
	case t.others == "":
		t.others = "was sent to the speaker a moment ago"
	}
}

// of is what is wrong with addr.
func (t troubles) of(addr netip.Addr, w *wish, announced bool) string {
	if w.want != Announce {
		return ""
	}
	switch why, is := t.each[addr]; {
	case is:
		return why
	case announced && w.hold != vip.None:
		return t.host
	case announced:
		return ""
	default:
		return t.others
	}
}

// noteChanged tells of paths to which the speaker gives other attributes than it was told.
func (a *Announcer) noteChanged(news []netip.Prefix) {
	if len(news) > 0 {
		a.note(slog.LevelWarn, "the speaker changes the attributes of what we announce; is there an import policy?",
			Event{Kind: EventChanged, Reason: changedWhy}, addrsOf(news), "count", len(news), "prefixes", some(news))
	}
}
