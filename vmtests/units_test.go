package vmtests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// exposure is ten times what systemd-analyze may say of a unit of ours: 0 is a
// service that can do nothing, 10 one that can do everything.
const exposure = "25"

var (
	inStore = regexp.MustCompile(`/nix/store/[^/ ]+/bin/([^ ]+)`)
	// What Nix makes of shell commands.
	script = regexp.MustCompile(`/nix/store/[^/\s]+`)
	// What systemd 254 knows, and NixOS has at least, and Debian 12's does not.
	later = regexp.MustCompile(`(?m)^.*Unknown key '(RestartSteps|RestartMaxDelaySec)' in section \[Service\], ignoring\.\n`)
)

// units writes the units that nix/tests records to a folder, with programs that are
// on this machine, and returns their files by name.
func units(t *testing.T) map[string]string {
	t.Helper()
	recorded, err := filepath.Glob("../nix/tests/units/*.service")
	require.NoError(t, err)
	dir := t.TempDir()
	files := map[string]string{}
	for _, path := range recorded {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		here := inStore.ReplaceAllStringFunc(string(text), func(program string) string {
			name := inStore.FindStringSubmatch(program)[1]
			for _, built := range []string{filepath.Join(bin, name), filepath.Join(bin, "v4", name)} {
				if _, err := os.Stat(built); err == nil {
					return built
				}
			}
			found, err := exec.LookPath(name)
			require.NoError(t, err, path)
			return found
		})
		here = script.ReplaceAllString(here, "/bin/sh")
		name := filepath.Base(path)
		files[name] = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(files[name], []byte(here), 0o644))
	}
	return files
}

func analyze(args ...string) (string, error) {
	out, err := exec.Command("systemd-analyze", append([]string{"--no-pager"}, args...)...).CombinedOutput()
	return string(out), err
}

// systemd takes the units as they are written: no key that it does not know, no
// value that it does not understand.
func TestUnitsAreWellFormed(t *testing.T) {
	t.Parallel()
	for name, file := range units(t) {
		out, err := analyze("verify", "--man=no", "--recursive-errors=no", file)
		if known := later.ReplaceAllString(out, ""); known != "" || out == "" {
			assert.NoError(t, err, "%s: %s", name, known)
			assert.Empty(t, known, name)
		}
	}

	wrong := filepath.Join(t.TempDir(), "wrong.service")
	require.NoError(t, os.WriteFile(wrong, []byte("[Service]\nExecStart=/bin/true\nProtectSystm=strict\n"), 0o644))
	out, _ := analyze("verify", "--man=no", "--recursive-errors=no", wrong)
	assert.Contains(t, out, "ProtectSystm", "a key that systemd does not know")
}

func TestUnitsAreConfined(t *testing.T) {
	t.Parallel()
	files := units(t)
	assert.Greater(t, len(files), 4)
	for name, file := range files {
		out, err := analyze("security", "--offline=true", "--threshold="+exposure, file)
		assert.NoError(t, err, "%s: %s", name, out)
	}

	open := filepath.Join(t.TempDir(), "open.service")
	require.NoError(t, os.WriteFile(open, []byte("[Service]\nExecStart=/bin/true\n"), 0o644))
	_, err := analyze("security", "--offline=true", "--threshold="+exposure, open)
	assert.Error(t, err, "a service that may do everything")
}
