// Package secretfile reads files that hold a secret: tokens, keys, passwords. Its
// errors name the file and never what is in it.
package secretfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Read is the content of the file at path, at most limit bytes. A file that
// anybody may read or write is an error: what is in it is no secret.
func Read(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err // names the path
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", path)
	case mode.Perm()&0o007 != 0:
		return nil, fmt.Errorf("%s: its mode is %04o, so anybody on this machine may use the secret in it; chmod 0600 it, or 0640 for a group", path, mode.Perm())
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return data, nil
}

// MinToken and MaxToken bound the length of a token. 22 characters of base64 are
// the 128 bits that nobody guesses.
const (
	MinToken = 22
	MaxToken = 256
)

// Token is the one token in the file at path, which may end with a line break.
func Token(path string) (string, error) {
	data, err := Read(path, 4<<10)
	if err != nil {
		return "", err
	}
	token := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if err := CheckToken(token); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return token, nil
}

// CheckToken says what keeps token from being one (RFC 6750 section 2.1, b64token).
func CheckToken(token string) error {
	for i := range len(token) {
		c := token[i]
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', strings.IndexByte("-._~+/=", c) >= 0:
		default:
			return errors.New("a token is one word of A-Z a-z 0-9 - . _ ~ + / =, and nothing else may stand beside it; make one with: openssl rand -hex 32")
		}
	}
	if len(token) < MinToken || len(token) > MaxToken {
		return fmt.Errorf("a token has %d to %d characters, found %d; make one with: openssl rand -hex 32", MinToken, MaxToken, len(token))
	}
	return nil
}
