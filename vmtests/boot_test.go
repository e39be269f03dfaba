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

// bootScript is what the machines of the test do, in the order of the ISO's units.
const bootScript = `
plasmacloud-phone-home identify --nodes /nodes.json --out /run/plasmacloud --hostname
plasmacloud-phone-home --config /run/plasmacloud/cluster-config.json --phase ready --attempts 0 \
  --join-token-file /join-token --secret-file /run/plasmacloud/secret
`

// bootCluster is what the machines of the test need, beside what the ISO's tests say.
const bootCluster = `
  plasmacloud.cluster.deployer.url = "http://deployer:8080";
  plasmacloud.cluster.nodes.node03.identity.macs = [ "52:54:00:00:00:03" ];
`

// site is where machines boot: a host with the deployer, as deployer by name.
type site struct {
	t        *testing.T
	host     *lab.Host
	guest    string // kernel and modules
	dir      string
	manifest string
	nodes    string // nodes.json of the cluster's ISO
}

func newSite(t *testing.T) *site {
	t.Helper()
	guest, err := filepath.Abs("../.cache/guest")
	require.NoError(t, err)
	out, err := exec.Command("../.ci/guest", guest).CombinedOutput()
	require.NoError(t, err, string(out))
	l, err := lab.New("boot")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	host, err := l.Host("site")
	require.NoError(t, err)
	s := &site{t: t, host: host, guest: guest, dir: t.TempDir()}

	flake := clusterFlake(t, bootCluster)
	repo, err := filepath.Abs("..")
	require.NoError(t, err)
	result, err := nixeval.New(nixeval.Config{Lib: nixeval.LibOffline, OverrideInputs: map[string]string{"plasmacloud": "path:" + repo}}).Eval(t.Context(), flake)
	require.NoError(t, err)
	s.manifest = s.write("manifest.json", string(result.Manifest.JSON()), 0o644)
	isoAttr(t, flake, `environment.etc."plasmacloud/nodes.json".text`, &s.nodes)
	return s
}

func (s *site) write(name, text string, mode os.FileMode) string {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	require.NoError(s.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(s.t, os.WriteFile(file, []byte(text), mode))
	return file
}

// image builds a small ISO for all nodes, which join by a token.
func (s *site) image(name, token string) string {
	s.t.Helper()
	dir := filepath.Join(s.dir, name)
	require.NoError(s.t, os.MkdirAll(dir, 0o755))
	require.NoError(s.t, qemu.Image{
		Guest:     s.guest,
		PhoneHome: filepath.Join(bin, "plasmacloud-phone-home"),
		Script:    bootScript,
		Files: map[string]string{
			"/nodes.json": s.nodes,
			"/etc/hosts":  "10.0.2.2 deployer\n",
			"/join-token": token + "\n",
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

func (s *site) waitFor(m *qemu.Machine, pattern string) {
	s.t.Helper()
	_, err := m.WaitFor(phase, pattern)
	require.NoError(s.t, err)
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
// way; one boots through UEFI; one has a token that the deployer does not know,
// and one is no node of the cluster.
func TestBoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	iso := filepath.Join(s.image("all", bootToken), "small.iso")
	early := qemu.Config{Name: "early", ISO: iso, UUID: "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a01", MAC: "52:54:00:00:00:01"}
	m := s.boot(early)
	s.waitFor(m, `userspace after`)
	require.NoError(t, m.Cut())
	early.Name = "again"
	m = s.boot(early)
	s.waitFor(m, `level=WARN msg="not reached, trying again"`)
	s.startDeployer()
	s.waitFor(m, `node01: .*Active`)
	assert.Equal(t, "Active in_sync", s.state("node01"))

	uefi := s.boot(qemu.Config{Name: "uefi", UEFI: true, ISO: iso, UUID: "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a02", Serial: "CZ3412X0PQ", MAC: "52:54:00:00:00:02"})
	wrong := s.image("wrong-token", strings.Repeat("0", len(bootToken)))
	direct := func(name, id string) *qemu.Machine {
		return s.boot(qemu.Config{Name: name, Kernel: filepath.Join(wrong, "kernel"), Initrd: filepath.Join(wrong, "initrd"), Args: qemu.KernelArgs,
			UUID: "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a" + id, MAC: "52:54:00:00:00:" + id})
	}
	refused := direct("refused", "03")
	s.waitFor(refused, `the script ended with status 77`)
	assert.Contains(t, refused.Console(), "refuses (401 join_token_wrong)")
	assert.NotContains(t, refused.Console(), strings.Repeat("0", len(bootToken)))
	assert.Equal(t, "Pending unknown", s.state("node03"))
	s.waitFor(uefi, `node02: .*Active`)
	assert.Equal(t, "Active in_sync", s.state("node02"))
	s.waitFor(direct("stranger", "04"), `52:54:00:00:00:04`)
}
