package vmtests

import (
	"encoding/json"
	"errors"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// nix evaluates an expression, as JSON into a value.
func nix(t *testing.T, expression string, into any) {
	t.Helper()
	out, err := exec.Command("nix", "--extra-experimental-features", "nix-command", "eval", "--impure", "--json", "--expr", expression).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		t.Fatalf("evaluate: %s", failed.Stderr)
	}
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, into))
}
