package bgp

import (
	"net/netip"
	"slices"

	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// live is what a pass has read. What could not be read is not guessed: no step
// follows from it.
type live struct {
	table      speaker.Table
	peers      []speaker.Peer
	tableKnown bool // and the peers
	addrs      vip.Held
	addrsKnown bool
	lost       error // why the speaker was lost since the pass before; nil: it was not
}

// internalPeer reports whether a peer of the speaker is of our own AS.
func (l live) internalPeer(asn uint32) bool {
	return slices.ContainsFunc(l.peers, func(p speaker.Peer) bool { return p.ASN == asn })
}

// steps are in the order in which they are done. A VIP that is to be announced is
// bound before; one that is not is released only after its path is gone, so plan
// names it in unwanted and the drain decides when.
type steps struct {
	withdraw []netip.Prefix
	bind     map[vip.How][]netip.Addr
	announce []speaker.Path
	surplus  map[vip.How][]netip.Addr // ways of ours to let go of, since the VIP is held as it should be without them
	unwanted []netip.Addr             // held by us, and should go
}

// plan compares what should be with what is. It looks at nothing else, and nothing
// that is not ours appears in a step that takes away.
func plan(wishes *wishList, now live) steps {
	s := steps{bind: map[vip.How][]netip.Addr{}, surplus: map[vip.How][]netip.Addr{}}
	var announce []*wish
	for i := range wishes.all {
		w := &wishes.all[i]
		addr := w.addr
		path, announced := now.table.Own[speaker.HostPrefix(addr)]
		held := now.addrs.Holds(addr, w.hold)
		switch {
		case w.want == Announce:
			if now.addrsKnown && !held {
				s.bind[w.hold] = append(s.bind[w.hold], addr)
			}
			if now.tableKnown && now.addrsKnown && !(announced && path.Equal(wishes.path(w))) {
				announce = append(announce, w)
			}
		case w.want == Leave && announced && now.addrsKnown && !held:
			s.bind[w.hold] = append(s.bind[w.hold], addr) // traffic comes for it
		}
	}
	for prefix := range now.table.Own {
		if wishes.of(prefix.Addr()).want == Withdraw {
			s.withdraw = append(s.withdraw, prefix)
		}
	}
	for addr, how := range now.addrs.Own {
		w := wishes.of(addr)
		if w.want == Withdraw {
			s.unwanted = append(s.unwanted, addr)
		} else if rest := how &^ w.hold; rest != vip.None && now.addrs.Holds(addr, w.hold) {
			s.surplus[rest] = append(s.surplus[rest], addr)
		}
	}
	slices.SortFunc(s.withdraw, netip.Prefix.Compare)
	for _, byHow := range []map[vip.How][]netip.Addr{s.bind, s.surplus} {
		for _, addrs := range byHow {
			slices.SortFunc(addrs, netip.Addr.Compare)
		}
	}
	slices.SortFunc(announce, func(a, b *wish) int { return a.addr.Compare(b.addr) })
	s.announce = make([]speaker.Path, len(announce)) // 100,000 paths are too big to be sorted, or grown
	for i, w := range announce {
		s.announce[i] = wishes.path(w)
	}
	slices.SortFunc(s.unwanted, netip.Addr.Compare)
	return s
}
