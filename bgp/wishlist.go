package bgp

import (
	"net/netip"

	"github.com/centra/plasmacloud/bgp/speaker"
)

// wishList has the wishes for the VIPs of a configuration, in its order. That is mostly
// the order of the addresses, so what is taken from a list need hardly be sorted.
type wishList struct {
	all   []wish
	index map[netip.Addr]int
	path  func(*wish) speaker.Path // made when asked for: 100,000 paths are much memory
}

func newWishList(room int) *wishList {
	return &wishList{all: make([]wish, 0, room), index: make(map[netip.Addr]int, room)}
}

// add adds the wish for addr, which has none yet.
func (l *wishList) add(addr netip.Addr, w wish) {
	w.addr = addr
	l.index[addr] = len(l.all)
	l.all = append(l.all, w)
}

func (l *wishList) has(addr netip.Addr) bool {
	_, ok := l.index[addr]
	return ok
}

// of is the wish for addr, also for one that is in no configuration. It is not to be changed.
func (l *wishList) of(addr netip.Addr) *wish {
	if i, ok := l.index[addr]; ok {
		return &l.all[i]
	}
	return &notConfigured
}
