package vmtests

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/qemu"
)

const bootToken = "5b8e12c97a6f4d03b1e8a7c6d5f4e3b2a190807060504030201000fedcba9876"

// phase is how long a machine may take for a step, on a machine that has more to do.
const phase = 90 * time.Second

// site is where machines boot: a host with the deployer, as deployer by name.
type site struct {
	t        *testing.T
	host     *lab.Host
	guest    string // kernel and modules
	dir      string
	manifest string
	nodes    map[string]nixeval.Node
}

func newSite(t *testing.T) *site {
	t.Helper()
	guest, err := filepath.Abs("../.cache/guest")
	require.NoError(t, err)
	out, err := exec.Command("../.ci/guest", guest).CombinedOutput()
	require.NoError(t, err, string(out))
	result, err := nixeval.New(nixeval.Config{Lib: nixeval.LibOffline}).Eval(t.Context(), "..#three-nodes")
	require.NoError(t, err)
	l, err := lab.New("boot")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	host, err := l.Host("site")
	require.NoError(t, err)
	s := &site{t: t, host: host, guest: guest, dir: t.TempDir(), nodes: result.Manifest.Nodes}
	s.manifest = s.write("manifest.json", string(result.Manifest.JSON()), 0o644)
	return s
}

func (s *site) write(name, text string, mode os.FileMode) string {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	require.NoError(s.t, os.WriteFile(file, []byte(text), mode))
	return file
}

// image builds a small ISO for a node, which joins by a token.
func (s *site) image(id, token string) string {
	s.t.Helper()
	dir := filepath.Join(s.dir, id)
	require.NoError(s.t, os.MkdirAll(dir, 0o755))
	require.NoError(s.t, qemu.Image{
		Guest:     s.guest,
		PhoneHome: filepath.Join(bin, "plasmacloud-phone-home"),
		Arguments: "--phase ready --attempts 0 --join-token-file /join-token --secret-file /run/secret",
		Files: map[string]string{
			"/etc/nixos/secrets/cluster-config.json": s.nodes[id].ClusterConfig,
			"/etc/hosts":                             "10.0.2.2 deployer\n",
			"/join-token":                            token + "\n",
		},
	}.Build(dir))
	return dir
}

func (s *site) boot(cfg qemu.Config) *qemu.Machine {
	s.t.Helper()
	m, err := qemu.Start(s.t.Context(), s.host, cfg)
	require.NoError(s.t, err)
	return m
}

func (s *site) waitFor(m *qemu.Machine, pattern string) time.Duration {
	s.t.Helper()
	took, err := m.WaitFor(phase, pattern)
	require.NoError(s.t, err)
	return took
}

func (s *site) startDeployer() {
	s.t.Helper()
	config := s.write("deployer.json", fmt.Sprintf(`{"listen": "127.0.0.1:8080", "manifest": %q, "store": {"path": %q}, "tokens": {"join_file": %q}}`,
		s.manifest, filepath.Join(s.dir, "state.db"), s.write("join-tokens", "row1 "+bootToken+"\n", 0o600)), 0o644)
	_, err := s.host.Start("deployer", filepath.Join(bin, "plasmacloud-deployer"), "serve", "--config", config)
	require.NoError(s.t, err)
}

// state is what the deployer says of a node.
func (s *site) state(id string) string {
	out, err := s.host.Run(filepath.Join(bin, "plasmactl"), "node", "show", id, "-o", "json", "--deployer-url", "http://127.0.0.1:8080")
	if err != nil {
		return err.Error()
	}
	var shown struct{ State, Config string }
	if err := json.Unmarshal([]byte(out), &shown); err != nil {
		return err.Error()
	}
	return shown.State + " " + shown.Config
}

// TestBoot switches real machines on: from the boot loader to what the deployer
// says of them. One boots before there is a deployer, and loses its power on the
// way; one boots through UEFI; one has a token that the deployer does not know.
func TestBoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	early := qemu.Config{Name: "early", ISO: filepath.Join(s.image("node01", bootToken), "small.iso"), UUID: "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a01", MAC: "52:54:00:00:00:01"}
	m := s.boot(early)
	s.waitFor(m, `userspace after`)
	require.NoError(t, m.Cut())
	early.Name = "again"
	m = s.boot(early)
	s.waitFor(m, `network after`)
	s.waitFor(m, `level=WARN msg="not reached, trying again"`)
	s.startDeployer()
	s.waitFor(m, `node01: .*Active`)
	assert.Equal(t, "Active in_sync", s.state("node01"))

	uefi := s.boot(qemu.Config{Name: "uefi", UEFI: true, ISO: filepath.Join(s.image("node02", bootToken), "small.iso"), UUID: "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a02", MAC: "52:54:00:00:00:02"})
	stranger := s.image("node03", strings.Repeat("0", len(bootToken)))
	refused := s.boot(qemu.Config{Name: "refused", Kernel: filepath.Join(stranger, "kernel"), Initrd: filepath.Join(stranger, "initrd"), Args: qemu.KernelArgs, UUID: "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a03", MAC: "52:54:00:00:00:03"})
	s.waitFor(refused, `phone-home ended with status 77`)
	assert.Regexp(t, `refuses.*join_token_wrong`, refused.Console())
	assert.NotContains(t, refused.Console(), strings.Repeat("0", len(bootToken)))
	assert.Equal(t, "Pending unknown", s.state("node03"))
	s.waitFor(uefi, `node02: .*Active`)
	assert.Equal(t, "Active in_sync", s.state("node02"))
}
