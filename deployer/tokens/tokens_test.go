package tokens

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	secret1 = "c2VjcmV0LW9uZS1zZWNyZXQtb25l"
	secret2 = "6f1c3a5b7d9e0f1a2b3c4d5e6f708192"
	hash2   = "sha256:8791e118b5220b7ff038ae844fcc0749504176dcd385b5a94385b6213fb57a98" // of secret2
)

func TestParse(t *testing.T) {
	list, err := Parse(Join, []byte(`
		# for the second row
		row2 `+secret1+` expires=2026-12-31T00:00:00Z role=worker  # until new year
		node03.2026	`+secret2+"\tnode=node03\r\n"))
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	end := time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC)
	if r := list[0]; r.Name != "row2" || !r.Expires.Equal(end) || r.Role != "worker" || r.Node != "" || !r.Expired(end) || r.Expired(end.Add(-1)) {
		t.Errorf("%+v", r)
	}
	if n := list[1]; n.Name != "node03.2026" || n.Node != "node03" || n.Expired(end) {
		t.Errorf("%+v", n)
	}

	for _, test := range []struct {
		kind Kind
		line string
		want string // "" is none
	}{
		{Join, "a " + secret1, ""},
		{Join, "", ""},
		{Operators, "a " + secret1 + " role=admin expires=2027-01-01T00:00:00+01:00", ""},
		{Join, secret1, "line 2: want NAME TOKEN"},
		{Join, secret1 + "= a", "line 2: the first word is the token's name"},
		{Join, secret1 + " a", "line 2: the second word is the token: a token has 22 to 256 characters, found 1"},
		{Join, "a " + secret1 + "#5f", "A-Z a-z 0-9"},
		{Join, "a " + secret1 + " expires=2027-01-01T00:00:00Z#node=n1", "expires: want a time"},
		{Join, "a " + secret1 + " #node=n1", ""},
		{Join, "\ufeffa " + secret1, "the first word is the token's name"},
		{Join, "a " + secret1 + "\x00", "A-Z a-z 0-9"},
		{Join, "a,b " + secret1, "the first word is the token's name"},
		{Join, "a " + secret1 + "ö", "A-Z a-z 0-9"},
		{Join, "a " + secret1 + " " + secret2, "line 2: word 3: want expires=TIME, node=ID or role=ROLE"},
		{Join, "a " + secret1 + " expires=tomorrow", "line 2: expires: want a time such as"},
		{Join, "a " + secret1 + " expires=", "expires: want a time"},
		{Join, "a " + secret1 + " node=Node_1", "line 2: node: want"},
		{Join, "a " + secret1 + " role=viewer", "line 2: role: want control-plane or worker"},
		{Join, "a " + secret1 + " node=n1 node=n2", "line 2: word 4: given twice"},
		{Join, "a " + secret1 + "\na " + secret2, "line 3: the name is that of line 2"},
		{Join, "a " + secret1 + "\nb " + secret1, "line 3: the token is that of line 2"},
		{Operators, "a " + secret1, "line 2: role: want role=viewer"},
		{Operators, "a " + secret1 + " role=worker", "line 2: role: want role=viewer"},
		{Operators, "a " + secret1 + " role=admin node=n1", "line 2: word 4: want role=ROLE"},
		{Operators, "a certificate role=admin\nb certificate role=viewer expires=2027-01-01T00:00:00Z", ""},
		{Operators, "a certificate", "line 2: role: want role=viewer"},
		{Operators, "a certificate role=admin\na " + secret1 + " role=viewer", "line 3: the name is that of line 2"},
		{Join, "a certificate", "line 2: the second word is the token"},
		{Join, "a " + hash2, ""},
		{Operators, "a " + hash2 + " role=admin", ""},
		{Join, "a " + strings.ToUpper(hash2), "A-Z a-z 0-9"},
		{Join, "a " + hash2[:len(hash2)-2], "line 2: the second word is the token's hash: want sha256: and 64 hex digits"},
		{Join, "a " + hash2 + "00", "the token's hash"},
		{Join, "a sha256:" + secret1, "the token's hash"},
		{Join, "a " + hash2 + "\nb " + secret2, "line 3: the token is that of line 2"},
		{Join, "a\xff " + secret1, "UTF-8"},
	} {
		_, err := Parse(test.kind, []byte("# first\n"+test.line+"\n"))
		switch {
		case test.want == "" && err != nil, test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%q: %v, want %q", test.line, err, test.want)
		case err != nil && (strings.Contains(err.Error(), secret1) || strings.Contains(err.Error(), secret2)):
			t.Errorf("%q: the error shows a token: %v", test.line, err)
		}
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "join")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	write("one "+secret1, 0o640)
	f, err := Open(Join, path)
	if err != nil || f.Len() != 1 {
		t.Fatal(f, err)
	}
	has := func(token, name string) {
		t.Helper()
		if found, ok := f.Find(token); found.Name != name || ok != (name != "") {
			t.Errorf("%q is %+v", token, found)
		}
	}
	has(secret1, "one")
	has(secret1[1:], "")
	has("", "")

	for text, mode := range map[string]os.FileMode{"two " + secret2: 0o644, "broken": 0o600} {
		write(text, mode)
		if err := f.Reload(); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%v", err)
		}
		has(secret1, "one")
	}
	for _, line := range []string{"two " + secret2, "two " + hash2} {
		write(line, 0o600)
		if err := f.Reload(); err != nil {
			t.Error(err)
		}
		has(secret2, "two")
		has(secret1, "")
		has(hash2, "")
		has(hash2[len(hashPrefix):], "")
	}
}

func TestRoles(t *testing.T) {
	for role, may := range map[Role]string{Viewer: "viewer", Operator: "viewer operator", Admin: "viewer operator admin", "": "", "root": ""} {
		for _, needed := range roles {
			if role.May(needed) != strings.Contains(may, string(needed)) {
				t.Errorf("%q, %s", role, needed)
			}
		}
	}
}

// FuzzParse: a file is either refused with its line, and without what stands in it,
// or all of its tokens are found again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"a " + secret1, "a " + secret1 + " expires=2026-12-31T00:00:00Z node=n1 # x", "a " + secret1 + " role=viewer\nb " + secret2 + " role=admin",
		"a " + hash2 + " role=viewer", "a certificate role=admin",
		"a b", "a " + secret1 + " =", "\x00", "a\u00a0" + secret1,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, join bool) {
		kind := Operators
		if join {
			kind = Join
		}
		list, err := Parse(kind, data)
		if err != nil {
			if text := err.Error(); !strings.HasPrefix(text, "line ") && text != "not valid UTF-8" {
				t.Fatal(text)
			}
			for _, word := range strings.Fields(string(data)) {
				if len(word) >= 22 && strings.Contains(err.Error(), word) {
					t.Fatalf("%q is in the error %q", word, err)
				}
			}
			return
		}
		var file File
		file.set(list)
		for line := range strings.Lines(string(data)) {
			line, _, _ = strings.Cut(line, "#")
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			found, ok := file.Find(words[1])
			switch digits, hashed := strings.CutPrefix(words[1], hashPrefix); {
			case hashed && ok:
				t.Fatalf("%q: the hash is taken for the token", line)
			case hashed:
				sum, _ := hex.DecodeString(digits)
				found, ok = file.tokens.Load().bySum[[sha256.Size]byte(sum)]
			case kind == Operators && words[1] == "certificate":
				found, ok = file.Certificate(words[0])
			}
			if !ok || found.Name != words[0] || kind == Operators && !Role(found.Role).May(Viewer) {
				t.Fatalf("%q: %+v, %v", line, found, ok)
			}
		}
	})
}
