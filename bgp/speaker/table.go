package speaker

import (
	"context"
	"net/netip"
	"sync"
)

// lastTable is what List found last. A table that is as it was is the same one again:
// many VIPs that rest cost neither memory nor time to be put together anew.
type lastTable struct {
	mu    sync.Mutex
	table Table
}

// List implements Speaker.
func (g *GoBGP) List(ctx context.Context) (Table, error) {
	g.last.mu.Lock()
	last := g.last.table
	g.last.mu.Unlock()
	foreign := map[netip.Prefix]int{}
	seen := make([]netip.Prefix, 0, len(last.Own)) // ours, each once
	news := map[netip.Prefix]Path{}                // of seen, those that last has not, or not so
	known := knownAttributes{}
	for _, f := range families {
		err := g.list(ctx, question{family: f}, func(text string, p *listed) error {
			prefix, err := netip.ParsePrefix(text)
			if err != nil || !prefix.IsSingleIP() || p.isLearned() {
				return nil // not a host route, or not local, so not ours
			}
			if p.identifier != OwnPathID {
				foreign[prefix]++
				return nil
			}
			path, err := known.path(prefix, p)
			if err != nil {
				return err
			}
			again := len(seen) > 0 && seen[len(seen)-1] == prefix // those of one prefix come together
			if !again {
				seen = append(seen, prefix)
			}
			if was, there := last.Own[prefix]; again || !there || !was.Equal(path) {
				news[prefix] = path
			}
			return nil
		})
		if err != nil {
			return Table{}, err
		}
	}
	table := Table{Own: last.Own, Foreign: foreign}
	if table.Own == nil || len(news) > 0 || len(seen) != len(last.Own) {
		table.Own = make(map[netip.Prefix]Path, len(seen))
		for _, prefix := range seen {
			path, is := news[prefix]
			if !is {
				path = last.Own[prefix]
			}
			table.Own[prefix] = path
		}
	}
	g.last.mu.Lock()
	g.last.table = table
	g.last.mu.Unlock()
	return table, nil
}

// knownAttributes are the paths of one table by their attributes, which most share, so
// that they are decoded once.
type knownAttributes struct {
	paths map[string]Path
	key   []byte
}

// mostKnown bounds the memory for tables in which no path is like another.
const mostKnown = 1000

// path is the path of ours that p is.
func (k *knownAttributes) path(prefix netip.Prefix, p *listed) (Path, error) {
	k.key = k.key[:0]
	for _, a := range p.binary {
		kind, value, err := attributeOf(a)
		if err == nil && kind == attrMPReach { // which has the prefix too
			a, err = nextHopOfMPReach(value)
			k.key = append(k.key, 0, attrMPReach, byte(len(a)))
		}
		if err != nil {
			k.key = nil
			break
		}
		k.key = append(k.key, a...)
	}
	path, is := k.paths[string(k.key)]
	if !is || len(k.key) == 0 {
		route := Route{Prefix: prefix}
		if err := p.attributes(&route); err != nil {
			return Path{}, err
		}
		path = route.path()
		if k.paths == nil {
			k.paths = map[string]Path{}
		}
		if len(k.key) > 0 && len(k.paths) < mostKnown {
			k.paths[string(k.key)] = path
		}
	}
	path.Prefix = prefix
	return path, nil
}
