package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/bootsite"
	"github.com/centra/plasmacloud/vmtests/qemu"
)

// bootFlake is the example, with what the ISO of a cluster needs.
const bootFlake = `{
  inputs.plasmacloud.url = "plasmacloud";
  outputs = { plasmacloud, ... }: plasmacloud.lib.mkCluster { modules = [
    ./cluster.nix
    {
      plasmacloud.cluster.nodes.node01.identity.macs = [ "52:54:00:00:00:01" ];
      plasmacloud.cluster.nodes.node02.identity.macs = [ "52:54:00:00:00:02" ];
    }
  ]; };
}`

// benchBoot boots the small ISO through BIOS and UEFI, and its kernel without any
// boot loader, beside the kernel's own time to its first process.
func benchBoot(ctx context.Context, b *bench) ([]figure, error) {
	dir := filepath.Join(b.dir, "boot")
	cluster, err := os.ReadFile(filepath.Join(b.repo, "nix/examples/three-nodes/cluster.nix"))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(dir, "cluster.nix"), cluster, 0o600), os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(bootFlake), 0o600))
	}
	if err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "bin")+"/", "./cmd/...")
	build.Dir, build.Env = b.repo, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the programs: %w: %s", err, out)
	}
	site, err := bootsite.New(ctx, bootsite.Config{
		Repo: b.repo, Bin: filepath.Join(dir, "bin"), Flake: dir,
		Eval: nixeval.Config{Lib: nixeval.LibOffline, OverrideInputs: map[string]string{"plasmacloud": "path:" + b.repo}},
	})
	if err != nil {
		return nil, err
	}
	defer site.Close()
	image, err := site.Image(ctx, "small", strings.Repeat("any", 10))
	if err == nil {
		err = site.StartDeployer()
	}
	if err != nil {
		return nil, err
	}
	accel, err := qemu.Accel(ctx)
	if err != nil {
		return nil, err
	}
	iso := filepath.Join(image, "small.iso")
	var figures []figure
	for _, way := range []struct {
		name string
		cfg  qemu.Config
	}{
		{"BIOS", qemu.Config{ISO: iso}},
		{"UEFI", qemu.Config{ISO: iso, UEFI: true}},
		{"no boot loader", qemu.Config{Kernel: filepath.Join(image, "kernel"), Initrd: filepath.Join(image, "initrd"), Args: qemu.KernelArgs}},
	} {
		var kernel []time.Duration
		all := map[string][]time.Duration{}
		total, err := median(b.runs, func() (time.Duration, error) {
			took, own, err := bootOnce(ctx, site, way.cfg, fmt.Sprintf("%s-%d", way.name, len(kernel)))
			kernel = append(kernel, own)
			for _, p := range took {
				all[p.Phase] = append(all[p.Phase], p.Took)
			}
			return took.Total(), err
		})
		if err != nil {
			return nil, err
		}
		own := percentile(kernel, 50)
		value := fmt.Sprintf("%.2f s", total.Seconds())
		for _, phase := range qemu.Phases(way.cfg.ISO != "", site.Active("")) {
			value += fmt.Sprintf(", %s %.2f s", phase.Name, percentile(all[phase.Name], 50).Seconds())
		}
		figures = append(figures, figure{accel + ", " + way.name, value,
			fmt.Sprintf("the kernel's own time to userspace (%.2f s)", own.Seconds()), total.Seconds() / own.Seconds()})
	}
	return figures, nil
}

// bootOnce boots node01, which is Active once it is said so on the console.
func bootOnce(ctx context.Context, site *bootsite.Site, cfg qemu.Config, name string) (qemu.Took, time.Duration, error) {
	cfg.Name, cfg.MAC, cfg.UUID = name, "52:54:00:00:00:01", "6f1b7a52-0f6c-4f44-9c7b-0d5b1f1e2a01"
	m, err := site.Boot(ctx, cfg)
	if err != nil {
		return nil, 0, err
	}
	took, err := m.Follow(qemu.Phases(cfg.ISO != "", qemu.Phase{Name: "Active", Pattern: `node01: .*Active`})...)
	err = errors.Join(err, m.Cut())
	own, timeErr := m.KernelTime()
	return took, own, errors.Join(err, timeErr)
}
