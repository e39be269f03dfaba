package vmtests

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/bootsite"
	"github.com/centra/plasmacloud/vmtests/qemu"
)

// An ISO of one's own in the place of the small one.
var (
	ownISO   = flag.String("iso", "", "boot this ISO in TestBoot, `PATH`")
	ownFlake = flag.String("iso-flake", "", "the cluster of -iso, `REF`; without it that of the test")
	ownNode  = flag.String("iso-node", "node01", "the node that the machine with -iso is, `ID`; it has the first of its MAC addresses, and its serial number")
	ownToken = flag.String("iso-token", "", "what -iso joins with, the `FILE` of build-iso.sh's --join-token-file; without it every machine joins")
	keepISO  = flag.String("iso-keep", "", "keep the small ISO of TestBootOfAnISO, and its token, for -iso and -iso-token, in the folder `DIR`")
	ownTime  = flag.Duration("iso-time", 15*time.Minute, "how long a phase of -iso may take")
)

const bootToken = "5b8e12c97a6f4d03b1e8a7c6d5f4e3b2a190807060504030201000fedcba9876"

// bootCluster is what the machines of the test need, beside what the ISO's tests say.
const bootCluster = `
  plasmacloud.cluster.deployer.url = "http://deployer:8080";
  plasmacloud.cluster.nodes.node03.identity.macs = [ "52:54:00:00:00:03" ];
`

// site is a site for machines in a test.
type site struct {
	*bootsite.Site
	t *testing.T
}

func newSite(t *testing.T, cfg bootsite.Config) *site {
	t.Helper()
	repo, err := filepath.Abs("..")
	require.NoError(t, err)
	cfg.Repo, cfg.Bin = repo, bin
	if cfg.Flake == "" {
		cfg.Flake = clusterFlake(t, bootCluster)
		cfg.Eval = nixeval.Config{Lib: nixeval.LibOffline, OverrideInputs: map[string]string{"plasmacloud": "path:" + repo}}
	}
	s, err := bootsite.New(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			kept, err := s.Keep()
			t.Logf("the consoles are in %s (%v)", kept, err)
		}
		assert.NoError(t, s.Close())
	})
	return &site{s, t}
}

func (s *site) image(name, token string) string {
	s.t.Helper()
	dir, err := s.Image(s.t.Context(), name, token)
	require.NoError(s.t, err)
	return dir
}

func (s *site) boot(cfg qemu.Config) *qemu.Machine {
	s.t.Helper()
	m, err := s.Boot(s.t.Context(), cfg)
	require.NoError(s.t, err)
	return m
}

// follow waits for the phases, and logs how long they took.
func (s *site) follow(m *qemu.Machine, phases ...qemu.Phase) {
	s.t.Helper()
	took, err := m.Follow(phases...)
	require.NoError(s.t, err)
	kernel := ""
	if own, err := m.KernelTime(); err == nil {
		kernel = "; to userspace by the kernel's own clock " + own.String()
	}
	s.t.Logf("%s: %s%s", m.Name, took, kernel)
}

func (s *site) stateIs(id, want string) {
	s.t.Helper()
	state, config, err := s.State(id)
	require.NoError(s.t, err)
	assert.Equal(s.t, want, state+" "+config)
}

func says(name, pattern string) qemu.Phase { return qemu.Phase{Name: name, Pattern: pattern} }

// TestBoot switches real machines on: from the boot loader to what the deployer
// says of them. One boots before there is a deployer, loses its power on the way,
// and has a disk the next time; then several at once: one boots through UEFI, one has
// a token that the deployer does not know, and one is no node of the cluster.
func TestBoot(t *testing.T) {
	t.Parallel()
	if *ownISO != "" {
		cfg := bootsite.Config{Flake: *ownFlake}
		if *ownToken != "" {
			token, err := os.ReadFile(*ownToken)
			require.NoError(t, err)
			cfg.Tokens = "iso " + string(token)
		}
		newSite(t, cfg).bootISO(*ownISO, *ownNode, 2048, *ownTime)
		return
	}
	s := newSite(t, bootsite.Config{Tokens: "row1 " + bootToken + "\n"})
	iso := filepath.Join(s.image("all", bootToken), "small.iso")
	early := qemu.Config{Name: "early", ISO: iso, UUID: "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a01", MAC: "52:54:00:00:00:01"}
	m := s.boot(early)
	s.follow(m, qemu.Phases(true)[:2]...)
	require.NoError(t, m.Cut())
	early.Name = "again"
	disk, err := s.Write("disk", "what is on it...")
	require.NoError(t, err)
	require.NoError(t, os.Truncate(disk, 1<<20))
	early.Disk = disk
	m = s.boot(early)
	s.follow(m, qemu.Phases(true, says("disk", `disk vda of 2048 sectors: what is on it\.\.\.`), says("no deployer yet", `level=WARN msg="not reached, trying again"`))...)
	require.NoError(t, s.StartDeployer())
	s.follow(m, s.Active("node01"), says("told so", `node01: .*Active`))

	uefi := s.boot(qemu.Config{Name: "uefi", UEFI: true, ISO: iso, UUID: "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a02", Serial: "CZ3412X0PQ", MAC: "52:54:00:00:00:02"})
	wrong := s.image("wrong-token", strings.Repeat("0", len(bootToken)))
	direct := func(name, id string) *qemu.Machine {
		return s.boot(qemu.Config{Name: name, Kernel: filepath.Join(wrong, "kernel"), Initrd: filepath.Join(wrong, "initrd"), Args: qemu.KernelArgs,
			UUID: "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a" + id, MAC: "52:54:00:00:00:" + id})
	}
	refused, stranger := direct("refused", "03"), direct("stranger", "04")
	s.follow(refused, qemu.Phases(false, says("refused", `the script ended with status 77`))...)
	assert.Contains(t, refused.Console(), "refuses (401 join_token_wrong)")
	assert.NotContains(t, refused.Console(), strings.Repeat("0", len(bootToken)))
	s.stateIs("node03", "Pending unknown")
	s.follow(uefi, qemu.Phases(true, s.Active("node02"))...)
	s.follow(stranger, says("no node", `52:54:00:00:00:04`))
}

// TestBootOfAnISO gives TestBoot the small ISO as one that somebody else built.
func TestBootOfAnISO(t *testing.T) {
	t.Parallel()
	s := newSite(t, bootsite.Config{Flake: "", Tokens: "iso " + bootToken + "\n"})
	iso := filepath.Join(s.image("small", bootToken), "small.iso")
	if *keepISO != "" {
		data, err := os.ReadFile(iso)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(*keepISO, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(*keepISO, "small.iso"), data, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(*keepISO, "token"), []byte(bootToken+"\n"), 0o600))
	}
	s.bootISO(iso, "node01", 256, 2*qemu.Limit)
}

// bootISO boots an ISO of which nothing is known but the node that its machine
// is. It loses its power on the way, and comes before the deployer.
func (s *site) bootISO(iso, id string, memory int, within time.Duration) {
	s.t.Helper()
	node, known := s.Manifest.Nodes[id]
	require.True(s.t, known, "-iso-node %s: the cluster has %v", id, s.Manifest.NodeIDs())
	cfg := qemu.Config{Name: "iso", ISO: iso, UUID: "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a05", Memory: memory}
	if len(node.Identity.MACs) > 0 {
		cfg.MAC = node.Identity.MACs[0]
	}
	if node.Identity.Serial != nil {
		cfg.Serial = *node.Identity.Serial
	}
	serial := qemu.Phase{Name: "serial console", Pattern: `\S`, Limit: within}
	m := s.boot(cfg)
	s.follow(m, serial)
	require.NoError(s.t, m.Cut())
	cfg.Name = "iso-again"
	m = s.boot(cfg)
	s.follow(m, serial)
	require.NoError(s.t, s.StartDeployer())
	active := s.Active(id)
	active.Limit = within
	s.follow(m, active)
}
