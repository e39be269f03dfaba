package deployer

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
)

// message tells a node in one line where it stands, for its own log.
func message(v View) string {
	var m string
	switch {
	case v.Waiting:
		m = string(v.State) + ": " + v.Hold
	case v.State == node.Provisioning:
		m = fmt.Sprintf("%s, attempt %d, expected ready by %s", v.State, v.Attempt, v.Deadline.Format(time.RFC3339))
	case v.State == node.Failed && v.LastError != nil:
		m = string(v.State) + ": " + v.LastError.Message
	default:
		m = string(v.State)
	}
	if !v.Declared {
		m += "; not declared in the manifest"
	}
	if v.Config == node.Drifted {
		m += "; runs another configuration than the manifest expects"
	}
	if v.Declared && v.ReportedIP.IsValid() && v.IP.IsValid() && v.ReportedIP != v.IP {
		m += fmt.Sprintf("; reports ip %s where %s is declared", v.ReportedIP, v.IP)
	}
	return m
}

// refusalLog logs refusals within a budget.
type refusalLog struct {
	log    *slog.Logger
	budget LogBudget
}

func (l *refusalLog) add(ctx context.Context, now time.Time, id string, refused *node.RefusedError) {
	ok, unlogged := l.budget.Take(now)
	if unlogged > 0 {
		l.log.WarnContext(ctx, "more nodes were refused than logged", "count", unlogged)
	}
	if ok {
		l.log.WarnContext(ctx, "node refused", "node", id, "code", refused.Code, "reason", refused.Detail)
	}
}
