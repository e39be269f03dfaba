package bgp

import (
	"errors"
	"fmt"
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
}

func newReports() reports { return reports{foreign: map[netip.Addr]string{}} }

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
		a.log.Warn("speaker not ready", "error", err)
		return
	}
	a.log.Info("speaker ready")
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
		a.log.Error("pass failed", "error", cut(text, maxError))
		return
	}
	a.log.Info("pass works again")
}

func (a *Announcer) reportPrepend(cfg *Config, now live) {
	if !now.tableKnown {
		return
	}
	left := now.internalPeer(cfg.ASN) && slices.ContainsFunc(cfg.VIPs, func(v VIP) bool { return v.Prepend > 0 })
	if left && !a.reported.prepend {
		a.log.Warn("prepend is left out, since the speaker has a peer of its own AS, which would drop the path for a loop")
	}
	a.reported.prepend = left
}

func (a *Announcer) reportForeign(wishes map[netip.Addr]wish, now live) {
	for addr := range wishes {
		var what []string
		if now.addrs.Foreign[addr] {
			what = append(what, "the address")
		}
		if now.table.Foreign[speaker.HostPrefix(addr)] > 0 {
			what = append(what, "a path")
		}
		// What could not be read this time is not news.
		if !now.tableKnown || !now.addrsKnown {
			continue
		}
		text := strings.Join(what, " and ")
		if text == a.reported.foreign[addr] {
			continue
		}
		if text == "" {
			delete(a.reported.foreign, addr)
			continue
		}
		a.reported.foreign[addr] = text
		about := []any{"vip", addr, "foreign", text}
		if now.table.Foreign[speaker.HostPrefix(addr)] > 0 {
			about = append(about, "mind", "traffic keeps coming for that path, also while the VIP is down")
		}
		a.log.Warn("somebody else's; left alone", about...)
	}
	maps.DeleteFunc(a.reported.foreign, func(addr netip.Addr, _ string) bool { _, ok := wishes[addr]; return !ok })
}

// some shows the first few of a list, for a log that thousands of VIPs cannot flood.
func some[T fmt.Stringer](items []T) string {
	const most = 8
	texts := make([]string, 0, most+1)
	for i, item := range items {
		if i == most {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, item.String())
	}
	return strings.Join(texts, " ")
}

// reasons names why each of the prefixes is treated as it is, those with the same
// reason together. Of many reasons it gives the first few.
func reasons(prefixes []netip.Prefix, wishes map[netip.Addr]wish) string {
	const most = 4
	byWhy := map[string][]netip.Addr{}
	var order []string
	for _, p := range prefixes {
		why := notConfigured.why
		if w, ok := wishes[p.Addr()]; ok {
			why = w.why
		}
		if byWhy[why] == nil {
			order = append(order, why)
		}
		byWhy[why] = append(byWhy[why], p.Addr())
	}
	if len(order) == 1 {
		return order[0]
	}
	var texts []string
	for i, why := range order {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d reasons more", len(order)-most))
			break
		}
		texts = append(texts, some(byWhy[why])+": "+why)
	}
	return strings.Join(texts, "; ")
}
