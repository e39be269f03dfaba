package server

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server/page"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/tokens"
)

// ui is the web page: who may see it, and what it shows; what it looks like is in the
// package page.
type ui struct {
	sessions sessions
	cross    *http.CrossOriginProtection
	slots    chan struct{} // one for each page that is being made
	log      eventLog
}

// document is a page, and asset a file of it.
type (
	document []byte
	asset    page.Asset
)

// pagesAtOnce are made at most. They have places of their own: whoever looks keeps no
// report out.
const pagesAtOnce = 16

// uiRoute gives the paths of the page their handlers; ok is false for any other path.
func (s *server) uiRoute(path string) (name string, h handler, ok bool) {
	name = path
	nodeID, oneNode := strings.CutPrefix(path, page.PathNodes+"/")
	orderID, verb, oneOrder := strings.Cut(nodeID, "/")
	vip, oneVIP := strings.CutPrefix(path, page.PathVIPs+"/")
	file, isAsset := strings.CutPrefix(path, page.PathAssets)
	switch {
	case path == page.PathFleet:
		h = s.looks(s.fleetPage)
	case path == page.PathNodes:
		h = s.looks(func(f page.Frame, r *http.Request) answer {
			return s.withFleet(r, func(fleet *page.Fleet) answer { return show(page.NodesPage(f, fleet, r.URL.Query())) })
		})
	case path == page.PathVIPs:
		h = s.looks(func(f page.Frame, r *http.Request) answer {
			return s.withFleet(r, func(fleet *page.Fleet) answer { return show(page.VIPsPage(f, fleet, r.URL.Query())) })
		})
	case path == page.PathEvents:
		h = s.looks(s.eventsPage)
	case oneNode && nodeID != "" && !strings.Contains(nodeID, "/"):
		name, h = page.PathNodes+"/ID", s.looks(func(f page.Frame, r *http.Request) answer { return s.nodePage(f, r, nodeID) })
	case oneNode && oneOrder && node.ValidID(orderID) && slices.Contains(page.Verbs, node.Event(verb)):
		return page.PathNodes + "/ID/" + verb, s.uiOrder(orderID, node.Event(verb)), true
	case oneVIP && vip != "" && !strings.Contains(vip, "/"):
		name, h = page.PathVIPs+"/VIP", s.looks(func(f page.Frame, r *http.Request) answer {
			return s.withFleet(r, func(fleet *page.Fleet) answer {
				if html, ok := page.VIPPage(f, fleet, vip, r.URL.Query()); ok {
					return show(html)
				}
				return s.message(f, http.StatusNotFound, "No such VIP", "No manifest declares "+clean(vip)+" and no node says anything of it.")
			})
		})
	case path == page.PathStream:
		h = func(w http.ResponseWriter, r *http.Request) answer {
			s.signedIn(r)
			return s.operator(tokens.Viewer, s.events)(w, r)
		}
	case path == page.PathLogin:
		return name, s.login, true
	case path == page.PathLogout:
		return name, only(http.MethodPost, s.logout), true
	case isAsset:
		name, h = page.PathAssets, func(http.ResponseWriter, *http.Request) answer {
			if a, ok := page.Assets[file]; ok {
				return answer{status: http.StatusOK, body: asset(a)}
			}
			return s.message(s.frame(), http.StatusNotFound, "Not found", "There is no such file.")
		}
	case strings.HasPrefix(path, "/ui/"):
		name, h = "other", func(http.ResponseWriter, *http.Request) answer {
			return s.message(s.frame(), http.StatusNotFound, "Not found", "There is no such page.")
		}
	default:
		return "", nil, false
	}
	return name, only(http.MethodGet, h), true
}

func show(html []byte) answer { return answer{status: http.StatusOK, body: document(html)} }

// see sends the peer to another page.
func see(path string) answer {
	return answer{status: http.StatusSeeOther, body: document(nil), header: http.Header{"Location": {path}}}
}

func (s *server) frame() page.Frame {
	return page.Frame{Version: s.cfg.Version, Now: s.cfg.Now()}
}

func (s *server) message(f page.Frame, status int, title, text string) answer {
	return answer{status: status, body: document(page.Message(f, title, text))}
}

// signedIn gives a request of the page the token of its session, if it has one.
func (s *server) signedIn(r *http.Request) {
	if r.Header.Get("Authorization") != "" {
		return
	}
	if token, ok := s.ui.sessions.token(sessionID(r), s.cfg.Now()); ok {
		r.Header.Set("Authorization", "Bearer "+token)
	}
}

// looks shows a page to those who may look, and the form to sign in to others.
func (s *server) looks(h func(page.Frame, *http.Request) answer) handler {
	return func(_ http.ResponseWriter, r *http.Request) answer {
		frame := s.frame()
		if s.cfg.Operators != nil {
			s.signedIn(r)
			who, no := s.who(r, tokens.Viewer)
			if no != nil {
				return s.turnedAway(r, *no)
			}
			frame.Operator, frame.Orders = who.Name, askerOf(r).role.May(tokens.Operator)
		}
		newest, _ := s.ui.log.newest(r.Context(), s.registry)
		frame.Cursor = newest.cursor // "" is a page that cannot say what happened, and is not live
		if !s.enter(r, s.ui.slots) {
			a := s.message(s.frame(), http.StatusServiceUnavailable, "The deployer is busy", "Too many pages are asked for. Try again in two seconds.")
			a.retryAfter = "2"
			return a
		}
		defer func() { <-s.ui.slots }()
		return h(frame, r)
	}
}

// turnedAway is for those who may not look: no is what the API would say.
func (s *server) turnedAway(r *http.Request, no answer) answer {
	if no.status == http.StatusUnauthorized {
		s.ui.sessions.end(sessionID(r))
		return see(page.PathLogin + "?" + url.Values{"next": {r.URL.RequestURI()}}.Encode())
	}
	p, _ := no.body.(api.Problem)
	a := s.message(s.frame(), no.status, p.Title, p.Detail)
	a.retryAfter = no.retryAfter
	return a
}

// maxLogin is how long the form to sign in may be, in bytes.
const maxLogin = 4 << 10

// login shows the form, and takes it.
func (s *server) login(w http.ResponseWriter, r *http.Request) answer {
	if r.Method != http.MethodPost {
		a := only(http.MethodGet, func(_ http.ResponseWriter, r *http.Request) answer {
			if s.cfg.Operators == nil {
				return see(page.PathFleet)
			}
			return show(page.Login(s.frame(), localPath(r.URL.Query().Get("next")), "", r.TLS == nil))
		})(w, r)
		if a.allow != "" {
			a.allow += ", POST"
		}
		return a
	}
	form, problem := s.readForm(w, r)
	if problem != nil {
		return s.message(s.frame(), problem.Status, problem.Title, problem.Detail)
	}
	if s.cfg.Operators == nil {
		return see(page.PathFleet)
	}
	next, token := localPath(form.Get("next")), strings.TrimSpace(form.Get("token"))
	r.Header.Set("Authorization", "Bearer "+token)
	if _, no := s.who(r, tokens.Viewer); no != nil {
		p, _ := no.body.(api.Problem)
		wrong := p.Title + "."
		if p.Code == api.CodeOperatorTokenExpired || p.Code == api.CodeTooManyAttempts {
			wrong = p.Title + ": " + p.Detail + "."
		}
		a := show(page.Login(s.frame(), next, wrong, r.TLS == nil))
		a.status, a.retryAfter = no.status, no.retryAfter
		return a
	}
	a := see(next)
	a.header.Add("Set-Cookie", sessionCookie(r, s.ui.sessions.begin(token, s.cfg.Now())).String())
	return a
}

func (s *server) logout(_ http.ResponseWriter, r *http.Request) answer {
	if s.ui.cross.Check(r) != nil {
		return s.fromElsewhere()
	}
	s.ui.sessions.end(sessionID(r))
	a := see(page.PathLogin)
	a.header.Add("Set-Cookie", sessionCookie(r, "").String())
	return a
}

func (s *server) fromElsewhere() answer {
	return s.message(s.frame(), http.StatusForbidden, "From another site", "This form was sent by another site's page.")
}

// readForm reads a form that a page of ours has sent.
func (s *server) readForm(w http.ResponseWriter, r *http.Request) (url.Values, *api.Problem) {
	if s.ui.cross.Check(r) != nil {
		return nil, &api.Problem{Status: http.StatusForbidden, Title: "From another site", Detail: "This form was sent by another site's page."}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return nil, &api.Problem{Status: http.StatusUnsupportedMediaType, Title: "Not a form", Detail: "Send the form of this page."}
	}
	// A recorder in a test has no deadlines.
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(s.cfg.BodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLogin))
	_ = conn.SetReadDeadline(time.Time{}) // see readBytes
	var form url.Values
	if err == nil {
		form, err = url.ParseQuery(string(body))
	}
	if err != nil {
		return nil, &api.Problem{Status: http.StatusBadRequest, Title: "Not a form", Detail: "Send the form of this page."}
	}
	return form, nil
}

// localPath keeps the way on after signing in among our own pages.
func localPath(next string) string {
	at, err := url.Parse(next)
	if err != nil || at.Host != "" || at.Scheme != "" || path.Clean(at.Path) != at.Path || at.Path != page.PathFleet && !strings.HasPrefix(at.Path, "/ui/") ||
		strings.HasPrefix(at.Path, page.PathLogin) || strings.HasPrefix(at.Path, page.PathLogout) || strings.HasPrefix(at.Path, page.PathStream) {
		return page.PathFleet
	}
	return (&url.URL{Path: at.Path, RawQuery: at.Query().Encode()}).String()
}

// withFleet shows what is made of a fleet that was read after the request came, or not
// long before it where reading takes long.
func (s *server) withFleet(r *http.Request, h func(*page.Fleet) answer) answer {
	asked := time.Now()
	state, err := s.fleetState(r.Context(), func(f *fleetState) bool {
		return !f.began.Before(asked) || asked.Sub(f.began) < min(10*f.took, fleetIdle)
	})
	if err != nil {
		return s.unusable(r, err)
	}
	return h(state.page())
}

func (s *server) unusable(r *http.Request, err error) answer {
	if r.Context().Err() != nil {
		return answer{}
	}
	s.logFailure(r, err)
	a := s.message(s.frame(), http.StatusServiceUnavailable, "The store cannot be used", "The deployer's log has the reason.")
	a.retryAfter = "5"
	return a
}

func (s *server) fleetPage(f page.Frame, r *http.Request) answer {
	return s.withFleet(r, func(fleet *page.Fleet) answer {
		newest, err := s.ui.log.newest(r.Context(), s.registry)
		if err != nil {
			return s.unusable(r, err)
		}
		return show(page.FleetPage(f, fleet, newest.events))
	})
}

func (s *server) eventsPage(f page.Frame, r *http.Request) answer {
	newest, err := s.ui.log.newest(r.Context(), s.registry)
	if err != nil {
		return s.unusable(r, err)
	}
	return show(page.EventsPage(f, newest.events, r.URL.Query()))
}

func (s *server) nodePage(f page.Frame, r *http.Request, id string) answer {
	v, err := s.registry.Node(r.Context(), id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return s.noNodePage(f, id)
	case err != nil:
		return s.unusable(r, err)
	}
	return show(page.NodePage(f, v))
}
