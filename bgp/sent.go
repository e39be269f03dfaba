package bgp

import (
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
	reported bool          // that seen is not path, or that there is none
}

// sentPaths follows what this announcer sent. It serves to report, and to keep
// from sending in every pass what a policy changes in every pass; what should be
// announced is decided without it.
type sentPaths map[netip.Prefix]*sentPath

func (s sentPaths) sent(paths []speaker.Path) {
	for _, p := range paths {
		now := &sentPath{path: p, tries: 1}
		if before := s[p.Prefix]; before != nil && before.seen == nil && before.path.Equal(p) {
			now.tries, now.reported = before.tries+1, before.reported
		}
		s[p.Prefix] = now
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
			delete(s, prefix) // nothing more to say of it
		} else if ok {
			sent.seen, sent.reported = &live, false
		}
	}
}

// filter drops the paths that the daemon holds in the form that it gave them
// before: changed, of which news were not known yet.
func (s sentPaths) filter(paths []speaker.Path, own map[netip.Prefix]speaker.Path) (left []speaker.Path, changed, news []netip.Prefix) {
	left = slices.DeleteFunc(paths, func(p speaker.Path) bool {
		if !s.asMade(p, own) {
			return false
		}
		changed = append(changed, p.Prefix)
		if sent := s[p.Prefix]; !sent.reported {
			sent.reported = true
			news = append(news, p.Prefix)
		}
		return true
	})
	return left, changed, news
}

// asMade reports whether the daemon holds p in the form that it gave it before.
func (s sentPaths) asMade(p speaker.Path, own map[netip.Prefix]speaker.Path) bool {
	live, there := own[p.Prefix]
	sent := s[p.Prefix]
	return there && sent != nil && sent.seen != nil && sent.path.Equal(p) && sent.seen.Equal(live)
}

// dropped are the paths that were sent before and never showed up, of which news were not
// known yet. Once is no proof: the daemon may have been restarted in between.
func (s sentPaths) dropped(paths []speaker.Path, own map[netip.Prefix]speaker.Path) (prefixes, news []netip.Prefix) {
	for _, p := range paths {
		_, there := own[p.Prefix]
		if sent := s[p.Prefix]; !there && sent != nil && sent.seen == nil && sent.tries > 1 && sent.path.Equal(p) {
			prefixes = append(prefixes, p.Prefix)
			if !sent.reported {
				sent.reported = true
				news = append(news, p.Prefix)
			}
		}
	}
	return prefixes, news
}

// noEffect is the error of a request that the daemon took and that changed nothing.
func noEffect(do string, prefixes []netip.Prefix, ask string) error {
	if len(prefixes) == 0 {
		return nil
	}
	return fmt.Errorf("%s of %s: the speaker took it, and nothing changed; %s", do, some(prefixes), ask)
}
