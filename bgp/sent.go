package bgp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/centra/plasmacloud/bgp/speaker"
)

// sentPath is what became of a path that we sent. A daemon that takes a path may
// still drop it or change it by policy, and sees no error in that.
type sentPath struct {
	path     speaker.Path
	tries    int           // how often it was sent without being seen
	seen     *speaker.Path // what the daemon's table had for it in a later pass
	reported bool          // that seen is not path
	offered  bool          // Adj-RIB-Out was looked at
}

// sentPaths follows what this announcer sent. It serves to report, and to keep
// from sending in every pass what a policy changes in every pass; what should be
// announced is decided without it.
type sentPaths map[netip.Prefix]*sentPath

func (s sentPaths) sent(paths []speaker.Path) {
	for _, p := range paths {
		tries := 1
		if before := s[p.Prefix]; before != nil && before.seen == nil && before.path.Equal(p) {
			tries += before.tries
		}
		s[p.Prefix] = &sentPath{path: p, tries: tries}
	}
}

// keep forgets what is not to be announced any more, whether or not it ever was.
func (s sentPaths) keep(wishes *wishList) {
	maps.DeleteFunc(s, func(p netip.Prefix, _ *sentPath) bool {
		return wishes.of(p.Addr()).want == Withdraw
	})
}

// observe notes what the daemon made of the paths sent before.
func (s sentPaths) observe(own map[netip.Prefix]speaker.Path) {
	for prefix, sent := range s {
		if sent.seen != nil {
			continue
		}
		if live, ok := own[prefix]; ok && live.Equal(sent.path) {
			sent.seen = &sent.path
		} else if ok {
			sent.seen = &live
		}
	}
}

// filter drops the paths that the daemon holds in the form that it gave them
// before, and returns which of those were not known yet.
func (s sentPaths) filter(paths []speaker.Path, own map[netip.Prefix]speaker.Path) (left []speaker.Path, changed []netip.Prefix) {
	left = slices.DeleteFunc(paths, func(p speaker.Path) bool {
		if !s.asMade(p, own) {
			return false
		}
		sent := s[p.Prefix]
		if !sent.reported {
			sent.reported = true
			changed = append(changed, p.Prefix)
		}
		return true
	})
	return left, changed
}

// asMade reports whether the daemon holds p in the form that it gave it before.
func (s sentPaths) asMade(p speaker.Path, own map[netip.Prefix]speaker.Path) bool {
	live, there := own[p.Prefix]
	sent := s[p.Prefix]
	return there && sent != nil && sent.seen != nil && sent.path.Equal(p) && sent.seen.Equal(live)
}

// dropped are the paths that were sent before and never showed up. Once is no
// proof: the daemon may have been restarted in between.
func (s sentPaths) dropped(paths []speaker.Path, own map[netip.Prefix]speaker.Path) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, p := range paths {
		_, there := own[p.Prefix]
		if sent := s[p.Prefix]; !there && sent != nil && sent.seen == nil && sent.tries > 1 && sent.path.Equal(p) {
			prefixes = append(prefixes, p.Prefix)
		}
	}
	return prefixes
}

// unoffered are the paths in the table of which it is not known whether any peer is offered them.
func (s sentPaths) unoffered() []netip.Prefix {
	var prefixes []netip.Prefix
	for prefix, sent := range s {
		if sent.seen != nil && !sent.offered {
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes
}

// checkOffered looks once whether what was announced is on its way to a peer, and
// says so where it is not. It waits for the first session.
func (a *Announcer) checkOffered(ctx context.Context) error {
	prefixes := a.sent.unoffered()
	if len(prefixes) == 0 {
		return nil
	}
	got, err := a.speaker.Advertised(ctx, prefixes)
	if err != nil || got.Established == 0 {
		return err
	}
	var none []netip.Prefix
	for _, p := range prefixes {
		sent := a.sent[p]
		if sent.offered = true; sent.seen == &sent.path {
			delete(a.sent, p) // nothing more to say of it
		}
		if len(got.To[p]) == 0 && !a.haste.isHurried(p) {
			none = append(none, p)
		}
	}
	if len(none) > 0 {
		slices.SortFunc(none, netip.Prefix.Compare)
		a.log.Warn("announced, and offered to no peer; does an export policy drop it, or is a foreign path preferred?",
			"count", len(none), "prefixes", some(none))
	}
	return nil
}

// noEffect is the error of a request that the daemon took and that changed nothing.
func noEffect(do string, prefixes []netip.Prefix, ask string) error {
	if len(prefixes) == 0 {
		return nil
	}
	return fmt.Errorf("%s of %s: the speaker took it, and nothing changed; %s", do, some(prefixes), ask)
}
