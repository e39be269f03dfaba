package server

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/tokens"
)

// admin lets an admin do what h does; where it is somebody else, the audit log has it.
func (s *server) admin(r *http.Request, action node.Event, h func(deployer.Operator) answer) answer {
	by, no := s.who(r, tokens.Admin)
	if no != nil {
		if by.Name != "" && action != "" {
			s.registry.Refused(r.Context(), by, action, "", api.CodeOperatorRole)
		}
		return *no
	}
	return s.turnstile(r, func() answer { return h(by) })
}

func (s *server) tokens(_ http.ResponseWriter, r *http.Request) answer {
	return s.admin(r, "", func(deployer.Operator) answer {
		all, err := s.registry.Tokens(r.Context())
		if err != nil {
			return s.fail(r, err)
		}
		list := api.TokenList{Tokens: make([]api.Token, len(all))}
		for i, t := range all {
			list.Tokens[i] = wireToken(t)
		}
		return answer{status: http.StatusOK, body: list}
	})
}

func (s *server) createToken(w http.ResponseWriter, r *http.Request) answer {
	by, no := s.who(r, tokens.Admin)
	var wanted api.TokenRequest
	if no == nil {
		no = s.readOrder(w, r, &wanted)
	}
	if no != nil {
		if by.Name != "" && no.status == http.StatusForbidden {
			s.registry.Refused(r.Context(), by, store.EventTokenCreate, "", api.CodeOperatorRole)
		}
		return *no
	}
	return s.turnstile(r, func() answer { return s.makeToken(r, wanted, by) })
}

func (s *server) makeToken(r *http.Request, wanted api.TokenRequest, by deployer.Operator) answer {
	t, token, err := s.registry.CreateToken(r.Context(), node.Token{
		Name: wanted.Name, Node: wanted.Node, Role: wanted.Role, Expires: wanted.Expires, Uses: wanted.Uses,
	}, by)
	var field *node.FieldError
	switch {
	case errors.As(err, &field):
		return refused(*badOrder(field.Field, field.Error()))
	case errors.Is(err, store.ErrTokenExists):
		return refused(api.Problem{
			Status: http.StatusConflict, Code: api.CodeTokenExists, Title: "There is a token of that name",
			Detail: "take another name, or revoke the token " + wanted.Name + " first",
		})
	case errors.Is(err, deployer.ErrTooManyTokens):
		return refused(api.Problem{
			Status: http.StatusConflict, Code: api.CodeTooManyTokens, Title: "There are too many tokens",
			Detail: fmt.Sprintf("there are %d already; revoke those that have expired or are used up first", deployer.MaxTokens),
		})
	case err != nil:
		return s.fail(r, err)
	}
	return answer{status: http.StatusOK, body: api.NewToken{Token: wireToken(t), Secret: token}}
}

func (s *server) revokeToken(r *http.Request, name string) answer {
	return s.admin(r, store.EventTokenRevoke, func(by deployer.Operator) answer {
		switch err := s.registry.RevokeToken(r.Context(), name, by); {
		case errors.Is(err, store.ErrNoToken):
			return refused(api.Problem{
				Status: http.StatusNotFound, Code: api.CodeNotFound, Title: "No such token",
				Detail: "the deployer has no join token " + clean(name) + "; plasmactl token list shows those that it has, beside those of its file",
			})
		case err != nil:
			return s.fail(r, err)
		}
		return answer{status: http.StatusOK, body: struct{}{}}
	})
}

func wireToken(t node.Token) api.Token {
	return api.Token{
		Name: t.Name, Node: t.Node, Role: t.Role, Expires: optional(t.Expires), Uses: t.Uses, Used: t.Used,
		Created: t.Created, CreatedBy: t.CreatedBy, LastUsed: optional(t.LastUsed), LastNode: t.LastNode,
	}
}

func (s *server) audit(_ http.ResponseWriter, r *http.Request) answer {
	after, limit, problem := listQuery(r)
	if problem != nil {
		return refused(*problem)
	}
	return s.auditLog(r, after, limit)
}

func (s *server) auditLog(r *http.Request, after string, limit int) answer {
	return s.admin(r, "", func(deployer.Operator) answer {
		page, err := s.registry.Audit(r.Context(), after, cmp.Or(limit, api.MaxList))
		if err != nil {
			return s.noPage(r, err, "entries", "begin anew without after")
		}
		log := api.AuditLog{Entries: make([]api.AuditEntry, len(page.Events)), Next: page.Next, More: page.More}
		for i, e := range page.Events {
			log.Entries[i] = api.AuditEntry{
				Cursor: e.Cursor, At: e.At, By: e.By, Remote: e.Remote, Action: e.Event, NodeID: e.Node, Token: e.Token,
				Result: string(e.Result), Code: e.Code, Reason: e.Reason,
			}
		}
		return answer{status: http.StatusOK, body: log}
	})
}
