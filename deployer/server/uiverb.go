package server

import (
	"errors"
	"net/http"
	"strings"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server/page"
	"github.com/centra/plasmacloud/deployer/store"
)

// uiOrder is what the page can order of the node id: it shows a form that asks once more,
// and takes it. No link can do anything, and no form of another site: these come without
// the cookie of the session, which is SameSite=Strict, and from another origin.
func (s *server) uiOrder(id string, verb node.Event) handler {
	return either(http.MethodGet, s.looks(func(f page.Frame, r *http.Request) answer {
		if !f.Orders {
			return s.message(f, http.StatusForbidden, "You may look, and not order", "This takes the role "+string(deployer.RoleFor(verb))+".")
		}
		v, err := s.registry.Node(r.Context(), id)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return s.noNodePage(f, id)
		case err != nil:
			return s.unusable(r, err)
		}
		return show(page.OrderPage(f, v, verb))
	}), http.MethodPost, func(w http.ResponseWriter, r *http.Request) answer {
		if s.ui.cross.Check(r) != nil {
			return s.fromElsewhere()
		}
		s.signedIn(r)
		a := s.order(r, id, verb, func(order *api.OperateRequest) *answer {
			form, problem := s.readForm(w, r)
			if problem != nil {
				no := refused(*problem)
				return &no
			}
			order.Reason = strings.TrimSpace(form.Get("reason"))
			if verb == node.EventApprove {
				order.Machine = form.Get("machine")
			}
			return nil
		})
		if a.status != http.StatusOK {
			return s.turnedAway(r, a)
		}
		return see(page.PathNodes + "/" + id)
	})
}

func (s *server) noNodePage(f page.Frame, id string) answer {
	return s.message(f, http.StatusNotFound, "No such node", "The deployer knows no node "+clean(id)+".")
}
