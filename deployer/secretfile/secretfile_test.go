package secretfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	const secret = "0123456789abcdefghijkl"
	for name, test := range map[string]struct {
		content string
		mode    os.FileMode
		want    string // in the error; "" is none
	}{
		"a token":          {secret, 0o600, ""},
		"a line":           {secret + "\n", 0o640, ""},
		"a line of DOS":    {secret + "\r\n", 0o400, ""},
		"for everybody":    {secret, 0o644, "its mode is 0644"},
		"to be written":    {secret, 0o602, "its mode is 0602"},
		"empty":            {"", 0o600, "found 0"},
		"short":            {secret[1:], 0o600, "22 to 256 characters, found 21"},
		"long":             {strings.Repeat("x", 257), 0o600, "found 257"},
		"two lines":        {secret + "\n" + secret + "\n", 0o600, "one word"},
		"with a name":      {"name " + secret, 0o600, "one word"},
		"far too long":     {strings.Repeat("x", 5000), 0o600, "larger than 4096"},
		"with a null byte": {secret + "\x00", 0o600, "one word"},
	} {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, test.mode); err != nil {
			t.Fatal(err)
		}
		token, err := Token(path)
		switch {
		case test.want == "":
			if err != nil || token != secret {
				t.Errorf("%s: %q, %v", name, token, err)
			}
		case err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), secret[1:]):
			t.Errorf("%s: %v, want %q, with the path and without the secret", name, err, test.want)
		}
	}
	for _, path := range []string{"/nowhere", t.TempDir(), "/dev/null"} {
		if _, err := Token(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
