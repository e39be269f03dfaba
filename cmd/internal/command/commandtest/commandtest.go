// Package commandtest has what the tests of all binaries ask of their commands.
package commandtest

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/cmd/internal/help"
)

// Help looks whether a command and all below it have a --help that fits a terminal.
func Help(t *testing.T, cmd *cobra.Command) {
	t.Helper()
	var out bytes.Buffer
	cmd.SetOut(&out)
	require.NoError(t, cmd.Help())
	assert.Contains(t, out.String(), "Usage:\n  "+cmd.CommandPath())
	Fits(t, cmd.CommandPath(), out.String())
	for _, sub := range cmd.Commands() {
		Help(t, sub)
	}
}

// Fits looks whether the help of a command fits a terminal.
func Fits(t *testing.T, name, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimRight(line, "\n")), help.Width, "%s --help: %s", name, line)
	}
}
