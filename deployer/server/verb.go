package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/strictjson"
)

// verbRoute is what an operator does to a node: POST /api/v1/nodes/ID/VERB.
func (s *server) verbRoute(path string) (name string, h handler) {
	id, verb, _ := strings.Cut(path, "/")
	if id == "" || !slices.Contains(node.Verbs, node.Event(verb)) {
		return "other", notFound
	}
	return api.PathNodes + "/ID/" + verb, only(http.MethodPost, func(w http.ResponseWriter, r *http.Request) answer {
		return s.operate(w, r, id, node.Event(verb))
	})
}

func (s *server) operate(w http.ResponseWriter, r *http.Request, id string, verb node.Event) answer {
	return s.order(r, id, verb, func(order *api.OperateRequest) *answer { return s.readOrder(w, r, order) })
}

// order does what an operator orders, which read says or refuses.
func (s *server) order(r *http.Request, id string, verb node.Event, read func(*api.OperateRequest) *answer) answer {
	by, no := s.who(r, deployer.RoleFor(verb))
	if no != nil {
		if by.Name != "" && node.ValidID(id) {
			s.registry.Refused(r.Context(), by, verb, id, api.CodeOperatorRole)
		}
		return *no
	}
	var order api.OperateRequest
	if no := read(&order); no != nil {
		return *no
	}
	switch {
	case len(order.Reason) > api.MaxReason || !printable(order.Reason):
		return refused(*badField("reason", fmt.Sprintf("want at most %d printable bytes", api.MaxReason)))
	case order.Machine != "" && verb != node.EventApprove:
		return refused(*badField("machine", "goes only with approve"))
	}
	return s.turnstile(r, func() answer {
		var v deployer.View
		var err error
		if order.Machine != "" {
			v, err = s.registry.Approve(r.Context(), id, order.Machine, by, order.Reason)
		} else {
			v, err = s.registry.Operate(r.Context(), id, verb, by, order.Reason)
		}
		switch {
		case errors.Is(err, store.ErrNotFound):
			return noNode(id)
		case err != nil:
			return s.fail(r, err)
		}
		return answer{status: http.StatusOK, body: wireNode(v)}
	})
}

// readOrder reads the body of what an operator orders, which may be left out.
func (s *server) readOrder(w http.ResponseWriter, r *http.Request, into any) *answer {
	if r.ContentLength == 0 && r.Header.Get("Content-Type") == "" {
		return nil
	}
	body, done, problem := s.readBody(w, r)
	defer done()
	if problem == nil && len(body) > 0 {
		err := strictjson.Decode(body, into)
		var field *strictjson.FieldError
		switch {
		case errors.As(err, &field):
			problem = badOrder(clean(field.Field), clean(field.Error()))
		case err != nil:
			problem = badOrder("", clean(err.Error()))
		}
	}
	if problem == nil {
		return nil
	}
	no := refused(*problem)
	if problem.Code == api.CodeBusy {
		no = busy()
	}
	return &no
}

// badField is badOrder of one field, and says which.
func badField(field, reason string) *api.Problem { return badOrder(field, field+": "+reason) }

func badOrder(field, detail string) *api.Problem {
	return &api.Problem{
		Status: http.StatusBadRequest, Code: api.CodeBadRequest, Title: "The request breaks a rule",
		Field: field, Detail: detail,
	}
}

func noNode(id string) answer {
	return refused(api.Problem{
		Status: http.StatusNotFound, Code: api.CodeNotFound, Title: "No such node",
		Detail: "the deployer knows no node " + clean(id) + "; plasmactl node list shows those that it knows",
	})
}
