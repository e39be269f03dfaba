package deployer_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
)

// TestRefusalLog: a flood of refusals does not become a flood of lines.
func TestRefusalLog(t *testing.T) {
	var lines strings.Builder
	w := newWorld(t, func(c *deployer.Config) { c.Logger = slog.New(slog.NewTextHandler(&lines, nil)) })
	for i := range 1000 {
		w.refused(fmt.Sprintf("stray%d", i), report(node.PhaseReady), node.CodeUnknownNode)
	}
	w.clock.add(11 * time.Second)
	w.refused("stray", report(node.PhaseReady), node.CodeUnknownNode)
	if n := strings.Count(lines.String(), "\n"); n != 52 || !strings.Contains(lines.String(), "count=950") {
		t.Errorf("%d lines:\n%.2000s", n, lines.String())
	}
}
