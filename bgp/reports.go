package bgp

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/centra/plasmacloud/bgp/speaker"
)

// reports keeps what the log has said already, so that a lasting state is said once.
type reports struct {
	speaker string
	err     string
	foreign map[netip.Addr]string
	prepend bool // that it is left out
	// sessions has the peers of the speaker, and whether their sessions were established.
	sessions map[netip.Addr]bool
}

func newReports() reports {
	return reports{foreign: map[netip.Addr]string{}, sessions: map[netip.Addr]bool{}}
}

// speakerState is what counts as the same trouble, whatever its detail.
func speakerState(err error) string {
	for _, state := range []error{speaker.ErrGone, speaker.ErrNoAnswer, speaker.ErrNotConfigured, speaker.ErrWrongASN, speaker.ErrWrongAPI, speaker.ErrTLS} {
		if errors.Is(err, state) {
			return state.Error()
		}
	}
	if err != nil {
		return err.Error()
	}
	return Ready
}

func (a *Announcer) reportSpeaker(err error) {
	state := speakerState(err)
	if state == a.reported.speaker {
		return
	}
	a.reported.speaker = state
	if err != nil {
		a.Note(slog.LevelWarn, "speaker not ready", Event{Kind: EventSpeakerNotReady, Reason: err.Error()}, "error", err)
		return
	}
	a.Note(slog.LevelInfo, "speaker ready", Event{Kind: EventSpeakerReady})
}

// reportSessions tells which sessions came and went since the table was known last.
func (a *Announcer) reportSessions(now live) {
	if !now.tableKnown {
		return
	}
	there := make(map[netip.Addr]bool, len(now.peers))
	tell := func(peer netip.Addr, up bool, reason string) {
		kind, level, msg := EventSessionDown, slog.LevelWarn, "session down"
		if up {
			kind, level, msg = EventSessionUp, slog.LevelInfo, "session up"
		}
		a.Note(level, msg, Event{Kind: kind, Peer: peer, Reason: reason}, "peer", peer, "state", reason)
	}
	for _, p := range now.peers {
		if there[p.Address] = p.Established; p.Established != a.reported.sessions[p.Address] {
			tell(p.Address, p.Established, fmt.Sprintf("AS %d, %s", p.ASN, p.State))
		}
	}
	for peer, up := range a.reported.sessions {
		if _, known := there[peer]; up && !known {
			tell(peer, false, "is not a peer of the speaker any more")
		}
	}
	a.reported.sessions = there
}

func (a *Announcer) reportError(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == a.reported.err {
		return
	}
	a.reported.err = text
	if err != nil {
		text = cut(text, maxError)
		a.Note(slog.LevelError, "pass failed", Event{Kind: EventPassFailed, Reason: text}, "error", text)
		return
	}
	a.Note(slog.LevelInfo, "pass works again", Event{Kind: EventPassWorks})
}

func (a *Announcer) reportPrepend(cfg *Config, now live) {
	if !now.tableKnown {
		return
	}
	left := now.internalPeer(cfg.ASN) && slices.ContainsFunc(cfg.VIPs, func(v VIP) bool { return v.Prepend > 0 })
	if left && !a.reported.prepend {
		a.Note(slog.LevelWarn, "prepend is left out, since the speaker has a peer of its own AS, which would drop the path for a loop",
			Event{Kind: EventPrependLeftOut, Reason: "the speaker has a peer of its own AS, which would drop the path for a loop"})
	}
	a.reported.prepend = left
}

func (a *Announcer) reportForeign(wishes *wishList, now live) {
	for i := range wishes.all {
		addr := wishes.all[i].addr
		// What could not be read this time is not news.
		if !now.tableKnown || !now.addrsKnown {
			continue
		}
		text := foreignAt(addr, now)
		if text == a.reported.foreign[addr] {
			continue
		}
		if text == "" {
			delete(a.reported.foreign, addr)
			a.Note(slog.LevelInfo, "not somebody else's any more", Event{Kind: EventConflictOver, VIP: addr, Reason: "nothing of somebody else's is there any more"}, "vip", addr)
			continue
		}
		a.reported.foreign[addr] = text
		about := []any{"vip", addr, "foreign", text}
		if now.table.Foreign[speaker.HostPrefix(addr)] > 0 {
			about = append(about, "mind", "traffic keeps coming for that path, also while the VIP is down")
		}
		a.Note(slog.LevelWarn, "somebody else's; left alone", Event{Kind: EventConflict, VIP: addr, Reason: text + leftAlone}, about...)
	}
	maps.DeleteFunc(a.reported.foreign, func(addr netip.Addr, _ string) bool { return !wishes.has(addr) })
}

// leftAlone ends what is said of what is foreign.
const leftAlone = " of somebody else's is left alone"

// foreignAt says what is somebody else's of addr; "": nothing.
func foreignAt(addr netip.Addr, now live) string {
	var what []string
	if now.addrs.Foreign[addr] {
		what = append(what, "the address")
	}
	if now.table.Foreign[speaker.HostPrefix(addr)] > 0 {
		what = append(what, "a path")
	}
	return strings.Join(what, " and ")
}

// mostShown is how much of a list some shows.
const mostShown = 8

// some shows the first few of a list, for a log that thousands of VIPs cannot flood.
func some[T fmt.Stringer](items []T) string {
	texts := make([]string, 0, mostShown+1)
	for i, item := range items {
		if i == mostShown {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, item.String())
	}
	return strings.Join(texts, " ")
}
