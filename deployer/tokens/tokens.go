// Package tokens reads the two files of tokens that a deployer has: by which a
// machine may join, and by which an operator may ask.
//
// A line is one token, in words with blanks between them; a word that begins with # begins a comment:
//
//	NAME TOKEN [expires=2026-12-31T00:00:00Z] [node=ID] [role=ROLE]
//
// In the place of TOKEN its hash may stand: sha256: and 64 hex digits. An operator's line may
// also have the word certificate there: NAME is then the common name of the certificate that
// the operator's client shows.
//
// The name is what logs and histories show. Of a join token, node and role say for
// which nodes it is good; without them it is for all. An operator's token has a role
// (viewer, operator or admin) and no node. Tokens are kept as their hashes.
package tokens

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/secretfile"
)

// Kind says what the tokens of a file are for.
type Kind int

const (
	Join Kind = iota
	Operators
)

// Role is what an operator may do. Each one may do what those before it may.
type Role string

const (
	Viewer   Role = "viewer"   // look
	Operator Role = "operator" // change what can be undone
	Admin    Role = "admin"    // change what cannot
)

var roles = []Role{Viewer, Operator, Admin}

// May says whether r may do what takes needed.
func (r Role) May(needed Role) bool { return r.order() >= needed.order() && r.order() >= 0 }

func (r Role) order() int {
	for i, known := range roles {
		if r == known {
			return i
		}
	}
	return -1
}

// Token is one line of a file, without the token itself.
type Token struct {
	Name    string
	Expires time.Time // zero: never
	Node    string    // of a join token: the one node that it is for; "" is any
	Role    string    // of a join token: the role of the nodes that it is for, "" is any; else a Role

	Certificate bool // of an operator who shows a certificate in place of a token

	sum [sha256.Size]byte
}

// Expired says whether the token's time is over.
func (t Token) Expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// Limits of a file.
const (
	MaxTokens = 10_000
	maxBytes  = 4 << 20
)

// File is a file of tokens that can be read again.
type File struct {
	path   string
	kind   Kind
	tokens atomic.Pointer[content]
}

type content struct {
	bySum       map[[sha256.Size]byte]Token
	certificate map[string]Token // by name
}

// Open reads the file at path, which not everybody may read. Errors name the file
// and the line, and never what stands there.
func Open(kind Kind, path string) (*File, error) {
	f := &File{path: path, kind: kind}
	return f, f.Reload()
}

// Reload reads the file again. On an error the tokens stay as they were.
func (f *File) Reload() error {
	data, err := secretfile.Read(f.path, maxBytes)
	if err != nil {
		return err
	}
	list, err := Parse(f.kind, data)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.set(list)
	return nil
}

func (f *File) set(list []Token) {
	c := content{make(map[[sha256.Size]byte]Token, len(list)), map[string]Token{}}
	for _, t := range list {
		if t.Certificate {
			c.certificate[t.Name] = t
		} else {
			c.bySum[t.sum] = t
		}
	}
	f.tokens.Store(&c)
}

// Len is how many lines with tokens or certificates there are.
func (f *File) Len() int {
	c := f.tokens.Load()
	return len(c.bySum) + len(c.certificate)
}

// Certificate is the line of the certificate with that common name, also of one that has
// expired. Whether the certificate is to be believed its caller has found out.
func (f *File) Certificate(commonName string) (found Token, ok bool) {
	found, ok = f.tokens.Load().certificate[commonName]
	return found, ok
}

// Find is the line of the token, also of one that has expired. How long it takes
// does not depend on how much of the token is right: it is looked for by its hash,
// of which nobody can choose the beginning, and compared as a whole.
func (f *File) Find(token string) (found Token, ok bool) {
	sum := sha256.Sum256([]byte(token))
	found = f.tokens.Load().bySum[sum]
	if subtle.ConstantTimeCompare(sum[:], found.sum[:]) != 1 {
		return Token{}, false
	}
	return found, true
}

// hashPrefix begins a hash; no token has a colon.
const hashPrefix = "sha256:"

var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Parse reads the lines of a file of tokens. Its errors name the line.
func Parse(kind Kind, data []byte) ([]Token, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not valid UTF-8")
	}
	list := []Token{}
	names, sums := map[string]int{}, map[[sha256.Size]byte]int{}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		words := strings.Fields(line)
		// Within a word a # is a mistake: what is before it must not pass for the token.
		if at := slices.IndexFunc(words, func(word string) bool { return word[0] == '#' }); at >= 0 {
			words = words[:at]
		}
		if len(words) == 0 {
			continue
		}
		t, err := parseLine(kind, words)
		if err == nil && names[t.Name] != 0 {
			err = fmt.Errorf("the name is that of line %d; each token has its own", names[t.Name])
		}
		if err == nil && sums[t.sum] != 0 {
			err = fmt.Errorf("the token is that of line %d; give each name its own", sums[t.sum])
		}
		if err == nil && len(list) == MaxTokens {
			err = fmt.Errorf("more than %d tokens", MaxTokens)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		names[t.Name], sums[t.sum] = number, number
		list = append(list, t)
	}
	return list, nil
}

// parseLine must not put a word into an error: any may be a token in a wrong place.
func parseLine(kind Kind, words []string) (Token, error) {
	if len(words) < 2 {
		return Token{}, errors.New("want NAME TOKEN, and then what limits it")
	}
	t := Token{Name: words[0], sum: sha256.Sum256([]byte(words[1]))}
	if !tokenName.MatchString(t.Name) {
		return Token{}, errors.New("the first word is the token's name: letters, digits, dot, dash and underscore, at most 63")
	}
	if digits, ok := strings.CutPrefix(words[1], hashPrefix); ok {
		sum, err := hex.DecodeString(digits)
		if err != nil || len(sum) != len(t.sum) {
			return Token{}, errors.New("the second word is the token's hash: want sha256: and 64 hex digits; printf %s TOKEN | sha256sum has them")
		}
		t.sum = [sha256.Size]byte(sum)
	} else if kind == Operators && words[1] == "certificate" {
		t.Certificate, t.sum = true, sha256.Sum256([]byte("certificate "+t.Name)) // its own, and no token's
	} else if err := secretfile.CheckToken(words[1]); err != nil {
		return Token{}, fmt.Errorf("the second word is the token: %w", err)
	}
	seen := map[string]bool{}
	for i, word := range words[2:] {
		key, value, _ := strings.Cut(word, "=")
		if seen[key] {
			return Token{}, fmt.Errorf("word %d: given twice", i+3)
		}
		seen[key] = true
		var err error
		switch {
		case key == "expires":
			if t.Expires, err = time.Parse(time.RFC3339, value); err != nil {
				return Token{}, errors.New("expires: want a time such as 2026-12-31T00:00:00Z")
			}
		case key == "node" && kind == Join:
			if t.Node = value; !node.ValidID(value) {
				return Token{}, errors.New("node: want the node's name in plasmacloud.cluster.nodes")
			}
		case key == "role":
			t.Role = value
			if kind == Join && value != "control-plane" && value != "worker" {
				return Token{}, errors.New("role: want control-plane or worker")
			}
		default:
			return Token{}, fmt.Errorf("word %d: want %s", i+3, known(kind))
		}
	}
	if kind == Operators && Role(t.Role).order() < 0 {
		return Token{}, errors.New("role: want role=viewer, role=operator or role=admin")
	}
	return t, nil
}

func known(kind Kind) string {
	if kind == Join {
		return "expires=TIME, node=ID or role=ROLE"
	}
	return "role=ROLE or expires=TIME"
}
