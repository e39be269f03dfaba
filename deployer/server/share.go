package server

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// share is how much of a bound that all have in common one address may take, of IPv6 one
// /64: three quarters, so that nobody alone shuts out all others. It is most, since a
// whole fleet may be behind one address.
type share struct {
	most int

	mu   sync.Mutex
	open map[netip.Prefix]*shared
}

// shared is what one address takes.
type shared struct {
	slots chan struct{}
	users int // who have a slot, or wait for one
}

func shareOf(all int) *share {
	return &share{most: all - all/4, open: map[netip.Prefix]*shared{}}
}

// join is the slots of an address, for one who calls part once.
func (s *share) join(from netip.Prefix) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.open[from]
	if of == nil {
		of = &shared{slots: make(chan struct{}, s.most)}
		s.open[from] = of
	}
	of.users++
	return of.slots
}

func (s *share) part(from netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[from].users--; s.open[from].users == 0 {
		delete(s.open, from)
	}
}

// take takes a slot where there is one at once.
func (s *share) take(from netip.Prefix) bool {
	select {
	case s.join(from) <- struct{}{}:
		return true
	default:
		s.part(from)
		return false
	}
}

func (s *share) release(from netip.Prefix) {
	<-s.join(from)
	s.part(from) // of this join
	s.part(from) // and of who took it
}

// places are a bound of which each address has a share.
type places struct {
	all   chan struct{}
	share *share
}

func newPlaces(all int) places { return places{make(chan struct{}, all), shareOf(all)} }

// take takes a place for r where there is one at once.
func (p places) take(r *http.Request) (leave func(), ok bool) {
	from := network(r.RemoteAddr)
	if !p.share.take(from) {
		return nil, false
	}
	select {
	case p.all <- struct{}{}:
		return func() { p.leave(from) }, true
	default:
		p.share.release(from)
		return nil, false
	}
}

func (p places) leave(from netip.Prefix) {
	<-p.all
	p.share.release(from)
}

// sharedListener closes the connections that are over the share of their address.
type sharedListener struct {
	net.Listener
	share *share
}

func (l *sharedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := network(conn.RemoteAddr().String())
		if l.share.take(from) {
			return &sharedConn{Conn: conn, release: sync.OnceFunc(func() { l.share.release(from) })}, nil
		}
		_ = conn.Close()
	}
}

type sharedConn struct {
	net.Conn
	release func()
}

func (c *sharedConn) Close() error {
	c.release()
	return c.Conn.Close()
}
