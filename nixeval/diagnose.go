package nixeval

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// EvalError is a failed evaluation in the words of Nix' module system or
// parser: without the trace, and with the user's own paths in place of copies
// in the Nix store.
type EvalError struct {
	Flake   string // the flake reference as it was given
	Message string
	Hint    string // how to mend it, where we know better than Nix does; may be empty
}

func (e *EvalError) Error() string {
	s := "evaluate " + e.Flake + ": " + e.Message
	if e.Hint != "" {
		s += "\n" + e.Hint
	}
	return s
}

var ansi = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

// message takes the last error out of Nix' stderr. Nix before 2.20 prints the
// message first and the trace after it, later versions print the trace first
// and indent the message; in both the last "error:" that has text begins the
// message, and its further lines are indented by the width of "error: ".
func message(stderr string) string {
	lines := strings.Split(ansi.ReplaceAllString(stderr, ""), "\n")
	start := -1
	for i, line := range lines {
		text := strings.TrimLeft(line, " ")
		if rest, ok := strings.CutPrefix(text, "error:"); ok && strings.TrimSpace(rest) != "" {
			start = i
		}
	}
	if start < 0 {
		return strings.TrimSpace(stderr)
	}
	var kept []string
	for i, line := range lines[start:] {
		line = strings.TrimPrefix(line, "       ")
		if strings.HasPrefix(line, "(use '--show-trace'") || strings.HasPrefix(strings.TrimSpace(line), "… ") {
			break
		}
		if i == 0 {
			line = strings.TrimPrefix(line, "error: ")
		}
		kept = append(kept, strings.TrimRight(line, " "))
	}
	return strings.TrimSpace(strings.Join(kept, "\n"))
}

// warnings takes the warnings of the evaluated code out of Nix' stderr and
// leaves out what Nix says about our own flags and about the checkout.
func warnings(stderr string) []string {
	var found []string
	for line := range strings.Lines(ansi.ReplaceAllString(stderr, "")) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "warning: ")
		if !ok {
			text, ok = strings.CutPrefix(strings.TrimSpace(line), "evaluation warning: ")
		}
		if !ok || aboutOurselves(text) {
			continue
		}
		found = append(found, text)
	}
	return found
}

func aboutOurselves(warning string) bool {
	for _, part := range []string{
		"does not match any input", // we override an input by each name it may have
		"not writing modified lock file",
		"creating lock file",
		"updating lock file",
		"Git tree ",
		"unknown flake output",
		"you don't have Internet access",
		"'build-users-group' does not exist", // we build nothing
	} {
		if strings.Contains(warning, part) {
			return true
		}
	}
	return false
}

var storePath = regexp.MustCompile(`/nix/store/[0-9a-z]{32}-[^/\s'"«»:]+((?:/[^/\s'"«»:]+)+)`)

// userPaths puts paths below source in place of their copies in the Nix store.
func userPaths(text, source string) string {
	if source == "" {
		return text
	}
	return storePath.ReplaceAllStringFunc(text, func(found string) string {
		own := filepath.Join(source, storePath.FindStringSubmatch(found)[1])
		if _, err := os.Stat(own); err != nil {
			return found
		}
		return own
	})
}

// unreachable tells whether Nix failed because an input could not be downloaded.
func unreachable(stderr string) bool {
	for _, part := range []string{
		"unable to download",
		"Couldn't resolve host",
		"Could not resolve host",
		"Couldn't connect to server",
		"Could not connect to server",
		"Failed to connect to",
		"unable to access '",
		"Connection timed out",
	} {
		if strings.Contains(stderr, part) {
			return true
		}
	}
	return false
}

var missingPath = regexp.MustCompile(`path '[^']+' does not exist`)

func hint(msg string) string {
	switch {
	case strings.Contains(msg, "mutable lock"):
		return "this Nix is too old for the lock file of an input: use Nix 2.26 or later, or name a local copy of the input: --override-input plasmacloud=path:DIR"
	case strings.Contains(msg, "does not provide attribute"):
		return "the flake's outputs must come from plasmacloud.lib.mkCluster; nix/examples/three-nodes/flake.nix shows how"
	case unreachable(msg):
		return "with no network, name a local copy of the input: --override-input plasmacloud=path:DIR"
	case strings.Contains(msg, "is not tracked by Git"), strings.Contains(msg, "No such file or directory"), missingPath.MatchString(msg):
		return "a file in a git checkout is visible to Nix only after `git add`"
	}
	return ""
}
