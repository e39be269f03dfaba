package server

import (
	"net/url"
	"strings"
	"testing"
)

// FuzzLocalPath: wherever a stranger's link wants to lead after signing in, it leads to
// a page of ours.
func FuzzLocalPath(f *testing.F) {
	for _, seed := range []string{"/", "/ui/nodes?q=a", "//x/", "/\\x/", "https://x/ui/", "/ui/../../x", "/ui/%2e%2e/x", "/ui/\r\nA: b", "javascript:x", "/ui/login", "?q", "#x", "/? "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, next string) {
		to := localPath(next)
		at, err := url.Parse(to)
		if err != nil || at.IsAbs() || at.Host != "" || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") ||
			to != "/" && !strings.HasPrefix(to, "/?") && !strings.HasPrefix(to, "/ui/") || strings.ContainsAny(to, "\r\n\\ \x00") {
			t.Fatalf("%q leads to %q", next, to)
		}
	})
}
