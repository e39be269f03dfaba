package server

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"
)

// Who signed in on the page has a cookie with a random id, and the deployer keeps the
// operator's token beside the hash of that id, in memory alone: with each request the
// token is looked at anew, so one that is revoked or over ends the session too.
const (
	sessionLife = 12 * time.Hour
	maxSessions = 1024 // the oldest goes
)

type session struct {
	token string
	began time.Time
}

// sessions are those of the page.
type sessions struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]session
}

// begin makes a session and returns its id.
func (s *sessions) begin(token string, now time.Time) (id string) {
	id = rand.Text() + rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[[sha256.Size]byte]session{}
	}
	var oldest [sha256.Size]byte
	for key, each := range s.all {
		if age := now.Sub(each.began); age >= sessionLife || age < 0 {
			delete(s.all, key)
		} else if first, ok := s.all[oldest]; !ok || each.began.Before(first.began) {
			oldest = key
		}
	}
	if len(s.all) >= maxSessions {
		delete(s.all, oldest)
	}
	s.all[sha256.Sum256([]byte(id))] = session{token, now}
	return id
}

// token is that of the session id, which is looked for by its hash: how long that takes
// does not depend on how much of the id is right.
func (s *sessions) token(id string, now time.Time) (token string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := sha256.Sum256([]byte(id))
	found, ok := s.all[key]
	if age := now.Sub(found.began); ok && (age >= sessionLife || age < 0) {
		delete(s.all, key)
		ok = false
	}
	return found.token, ok
}

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, sha256.Sum256([]byte(id)))
}

// cookieName is that of the session's cookie. With TLS its prefix keeps other hosts of
// the domain, and plain HTTP, from setting one.
func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return "__Host-plasmacloud"
	}
	return "plasmacloud"
}

// sessionCookie is the cookie of the session id, or with "" one that takes it away.
func sessionCookie(r *http.Request, id string) *http.Cookie {
	c := &http.Cookie{
		Name: cookieName(r), Value: id, Path: "/", MaxAge: int(sessionLife / time.Second),
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	}
	if id == "" {
		c.MaxAge = -1
	}
	return c
}

func sessionID(r *http.Request) string {
	if c, err := r.Cookie(cookieName(r)); err == nil {
		return c.Value
	}
	return ""
}
