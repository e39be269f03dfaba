package server

import (
	"context"
	"net/http"

	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
	"github.com/centra/plasmacloud/deployer/node"
)

// operateNode is what an operator orders.
func (c *rpc) operateNode(ctx context.Context, id string, verb node.Event, order api.OperateRequest) (*deployerv1.Node, error) {
	return reply(ctx, c, func(_ http.ResponseWriter, r *http.Request) answer {
		return c.order(r, id, verb, func(into *api.OperateRequest) *answer {
			*into = order
			if !node.ValidID(id) {
				no := noNode(id)
				return &no
			}
			return nil
		})
	}, protoNode)
}

// ApproveNode is the verb approve.
func (c *rpc) ApproveNode(ctx context.Context, m *deployerv1.ApproveNodeRequest) (*deployerv1.Node, error) {
	return c.operateNode(ctx, m.NodeId, node.EventApprove, api.OperateRequest{Reason: m.Reason, Machine: m.Machine})
}

// HoldNode is the verb hold.
func (c *rpc) HoldNode(ctx context.Context, m *deployerv1.OperateNodeRequest) (*deployerv1.Node, error) {
	return c.operateNode(ctx, m.NodeId, node.EventHold, api.OperateRequest{Reason: m.Reason})
}

// ReleaseNode is the verb release.
func (c *rpc) ReleaseNode(ctx context.Context, m *deployerv1.OperateNodeRequest) (*deployerv1.Node, error) {
	return c.operateNode(ctx, m.NodeId, node.EventRelease, api.OperateRequest{Reason: m.Reason})
}

// RetryNode is the verb retry.
func (c *rpc) RetryNode(ctx context.Context, m *deployerv1.OperateNodeRequest) (*deployerv1.Node, error) {
	return c.operateNode(ctx, m.NodeId, node.EventRetry, api.OperateRequest{Reason: m.Reason})
}

// ReinstallNode is the verb reinstall.
func (c *rpc) ReinstallNode(ctx context.Context, m *deployerv1.OperateNodeRequest) (*deployerv1.Node, error) {
	return c.operateNode(ctx, m.NodeId, node.EventReinstall, api.OperateRequest{Reason: m.Reason})
}

// DecommissionNode is the verb decommission.
func (c *rpc) DecommissionNode(ctx context.Context, m *deployerv1.OperateNodeRequest) (*deployerv1.Node, error) {
	return c.operateNode(ctx, m.NodeId, node.EventDecommission, api.OperateRequest{Reason: m.Reason})
}

// ResetNode is the verb reset.
func (c *rpc) ResetNode(ctx context.Context, m *deployerv1.OperateNodeRequest) (*deployerv1.Node, error) {
	return c.operateNode(ctx, m.NodeId, node.EventReset, api.OperateRequest{Reason: m.Reason})
}

// ResetNodeSecret is the verb reset-secret.
func (c *rpc) ResetNodeSecret(ctx context.Context, m *deployerv1.OperateNodeRequest) (*deployerv1.Node, error) {
	return c.operateNode(ctx, m.NodeId, node.EventResetSecret, api.OperateRequest{Reason: m.Reason})
}
