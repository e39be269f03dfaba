package main

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tell is what a long command does with its console.
func tell(cmd *cobra.Command) {
	console := newConsole(cmd)
	defer console.Close()
	console.Doing("evaluating a cluster with a name too long for the line")
	fmt.Fprint(cmd.OutOrStdout(), "ok    router1  it is\nFAIL  router2  it is not\n")
	console.Doing("taking it down")
	console.Doing("taking it down")
	fmt.Fprintln(cmd.ErrOrStderr(), "plasmactl: warning: okay")
}

func TestConsole(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	for name, test := range map[string]struct{ variable, value, want string }{
		"terminal": {"TERM", "xterm", "\r\x1b[KN s: evaluating a cluster with a name …\r\x1b[K\x1b[32mok\x1b[0m    router1  it is\n\x1b[31mFAIL\x1b[0m  router2  it is not\n" +
			"\r\x1b[KN s: taking it down\r\x1b[Kplasmactl: warning: okay\n"},
		"no colours": {"NO_COLOR", "1", "\r\x1b[KN s: evaluating a cluster with a name …\r\x1b[Kok    router1  it is\nFAIL  router2  it is not\n" +
			"\r\x1b[KN s: taking it down\r\x1b[Kplasmactl: warning: okay\n"},
		"dumb terminal": {"TERM", "dumb", "ok    router1  it is\nFAIL  router2  it is not\nplasmactl: warning: okay\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(test.variable, test.value)
			tty, person, _ := terminal(t, 40, 10)
			cmd := &cobra.Command{}
			cmd.SetOut(tty)
			cmd.SetErr(tty)
			tell(cmd)
			require.Eventually(t, func() bool { return strings.Contains(person.String(), "okay") }, 5*time.Second, time.Millisecond)
			got := strings.ReplaceAll(person.String(), "\r\n", "\n")
			got = regexp.MustCompile(`\d+ s: `).ReplaceAllString(got, "N s: ")
			drawn := slices.Compact(strings.Split(got, eraseLine)) // after a second, once more
			assert.Equal(t, test.want, strings.Join(drawn, eraseLine))
		})
	}

	var out, errs bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	tell(cmd)
	assert.Equal(t, "ok    router1  it is\nFAIL  router2  it is not\n", out.String(), "a pipe")
	assert.Equal(t, "plasmactl: warning: okay\n", errs.String())
}
