package server

import (
	"context"
	"net/http"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
	"github.com/centra/plasmacloud/deployer/store"
)

// ListTokens answers with the join tokens, without what proves them.
func (c *rpc) ListTokens(ctx context.Context, _ *deployerv1.ListTokensRequest) (*deployerv1.ListTokensResponse, error) {
	return reply(ctx, c, c.tokens, func(list api.TokenList) *deployerv1.ListTokensResponse {
		return &deployerv1.ListTokensResponse{Tokens: each(list.Tokens, protoToken)}
	})
}

// CreateToken makes a join token and answers with it, once.
func (c *rpc) CreateToken(ctx context.Context, m *deployerv1.CreateTokenRequest) (*deployerv1.NewToken, error) {
	return reply(ctx, c, func(_ http.ResponseWriter, r *http.Request) answer {
		return c.admin(r, store.EventTokenCreate, func(by deployer.Operator) answer {
			wanted := api.TokenRequest{Name: m.Name, Node: m.Node, Role: m.Role, Uses: int(m.Uses)}
			if m.Expires != nil {
				if m.Expires.CheckValid() != nil {
					return refused(*badField("expires", "want a time"))
				}
				wanted.Expires = m.Expires.AsTime()
			}
			return c.makeToken(r, wanted, by)
		})
	}, protoNewToken)
}

// RevokeToken takes a join token away.
func (c *rpc) RevokeToken(ctx context.Context, m *deployerv1.RevokeTokenRequest) (*deployerv1.RevokeTokenResponse, error) {
	return reply(ctx, c, func(_ http.ResponseWriter, r *http.Request) answer { return c.revokeToken(r, m.Name) },
		func(struct{}) *deployerv1.RevokeTokenResponse { return &deployerv1.RevokeTokenResponse{} })
}

// ListAudit answers with a page of who did what.
func (c *rpc) ListAudit(ctx context.Context, m *deployerv1.ListAuditRequest) (*deployerv1.ListAuditResponse, error) {
	return reply(ctx, c, func(_ http.ResponseWriter, r *http.Request) answer {
		if m.Limit < 0 || m.Limit > api.MaxList {
			return refused(*badLimit())
		}
		return c.auditLog(r, m.After, int(m.Limit))
	}, protoAudit)
}
