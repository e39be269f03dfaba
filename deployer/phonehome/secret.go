package phonehome

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/centra/plasmacloud/deployer/secretfile"
)

// DefaultSecretFile is where an installed node keeps its secret.
const DefaultSecretFile = "/var/lib/plasmacloud-phone-home/secret"

// readSecret is the secret in the file at path, "" where there is none.
func readSecret(path string) (string, error) {
	secret, err := secretfile.Token(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", &ConfigError{fmt.Errorf("the node's secret cannot be used: %w. If it is torn, delete it: the node then joins anew with a token, or after a reset", err)}
	}
	return secret, nil
}

// makeSecret writes a new secret to path, whole and on disk before it returns: what
// the deployer hears of must be there after a power loss. If another process wrote
// one meanwhile, that is the secret.
func makeSecret(path string) (secret string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make the node's secret: %w", err)
		}
	}()
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	secret = base64.RawURLEncoding.EncodeToString(random)

	file, err := os.CreateTemp(dir, ".secret-*") // with mode 0600
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.WriteString(secret + "\n")
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return "", err
	}
	err = os.Link(file.Name(), path) // fails where a rename would replace
	if errors.Is(err, fs.ErrExist) {
		return readSecret(path)
	}
	if err != nil {
		return "", err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	return secret, errors.Join(folder.Sync(), folder.Close())
}
