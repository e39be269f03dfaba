package lab

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A package of Nix has FRR's daemons beside its vtysh, to which a profile has a link.
func TestFRRDaemonsOfNix(t *testing.T) {
	store, profile := t.TempDir(), t.TempDir()
	daemons := filepath.Join(store, "libexec", "frr")
	require.NoError(t, os.MkdirAll(daemons, 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(store, "bin"), 0o755))
	for _, program := range []string{"bin/vtysh", "libexec/frr/bgpd"} {
		require.NoError(t, os.WriteFile(filepath.Join(store, program), nil, 0o755))
	}
	require.NoError(t, os.Symlink(filepath.Join(store, "bin", "vtysh"), filepath.Join(profile, "vtysh")))
	t.Setenv("PATH", profile)
	folder, err := FRRDaemons()
	require.NoError(t, err)
	assert.Equal(t, daemons, folder)
}
