package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/nixeval"
)

// overridesVariable has inputs in the form of --override-input, with commas, for who would
// name the same with every command.
const overridesVariable = "PLASMACLOUD_OVERRIDE_INPUTS"

// evalFlags are the flags of every command that evaluates a cluster.
type evalFlags struct {
	flake     string
	lib       string
	overrides map[string]string
	memoryMiB int64
	cfg       nixeval.Config
}

func (f *evalFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.flake, "flake", ".", "the cluster: a `FLAKE` reference, with #CLUSTER where it has several")
	flags.StringVar(&f.cfg.Nix, "nix", "nix", "the nix `EXECUTABLE`")
	flags.StringVar(&f.lib, "lib", string(nixeval.LibAuto), "nixpkgs' lib to evaluate with: nixpkgs, offline (the built-in stand-in, no network), or auto, which takes the `LIB` that can be reached")
	flags.StringToStringVar(&f.overrides, "override-input", nil, "take `INPUT=REF` in place of a flake input, for example plasmacloud=path:/src/plasmacloud (repeatable), beside those of $"+overridesVariable)
	flags.DurationVar(&f.cfg.Timeout, "eval-timeout", nixeval.DefaultTimeout, "give up the evaluation after this `DURATION`")
	flags.Int64Var(&f.memoryMiB, "eval-memory", nixeval.DefaultMemory>>20, "ceiling of Nix' heap in `MIB`")
	_ = cmd.RegisterFlagCompletionFunc("lib", cobra.FixedCompletions(
		[]string{string(nixeval.LibAuto), string(nixeval.LibNixpkgs), string(nixeval.LibOffline)}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagDirname("flake")
}

// config checks the flags that pflag cannot check by their type.
func (f *evalFlags) config(stderr io.Writer) (nixeval.Config, error) {
	cfg := f.cfg
	switch cfg.Lib = nixeval.Lib(f.lib); cfg.Lib {
	case nixeval.LibAuto, nixeval.LibNixpkgs, nixeval.LibOffline:
	default:
		return cfg, daemon.UsageError(fmt.Errorf("--lib %q: want auto, nixpkgs or offline", f.lib))
	}
	if f.memoryMiB < 64 {
		return cfg, daemon.UsageError(fmt.Errorf("--eval-memory %d: Nix needs at least 64 MiB", f.memoryMiB))
	}
	if cfg.Timeout <= 0 {
		return cfg, daemon.UsageError(fmt.Errorf("--eval-timeout %s: want more than 0", cfg.Timeout))
	}
	cfg.Memory = f.memoryMiB << 20
	cfg.OverrideInputs = map[string]string{}
	for pair := range strings.FieldsFuncSeq(os.Getenv(overridesVariable), func(r rune) bool { return r == ',' }) {
		name, ref, is := strings.Cut(pair, "=")
		if !is || name == "" || ref == "" {
			return cfg, daemon.UsageError(fmt.Errorf("$%s: %q is not INPUT=REF", overridesVariable, pair))
		}
		cfg.OverrideInputs[name] = ref
	}
	maps.Copy(cfg.OverrideInputs, f.overrides)
	cfg.Kept = os.Getenv(keptVariable)
	cfg.Warn = func(text string) { fmt.Fprintf(stderr, "plasmactl: warning: %s\n", text) }
	return cfg, nil
}

func evalCommand() *cobra.Command {
	var flags evalFlags
	var format outputFormat
	var out string
	cmd := &cobra.Command{
		Use:   "eval",
		Short: "Evaluate a cluster's Nix definition",
		Long: `Evaluates the cluster of a flake with one "nix eval" and prints its nodes and
VIPs, or with -o json the whole manifest: what the deployer, the nodes and the
announcers are going to get.

The module system's assertions are always part of the evaluation. Without a
network, the built-in stand-in takes the place of nixpkgs' lib, and a warning
says so.

Exit status: 0 the cluster is right; 1 it is not, or could not be evaluated;
64 the command line is wrong.`,
		Example: `  plasmactl eval --flake ./my-cluster
  plasmactl eval --flake ./my-cluster --override-input plasmacloud=path:/src
  plasmactl eval --flake .#three-nodes -o json
  plasmactl eval --flake ./my-cluster --out manifest.json    for the deployer`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.config(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			result, err := nixeval.New(cfg).Eval(cmd.Context(), flags.flake)
			if err != nil {
				return err
			}
			for _, warning := range result.Manifest.Warnings {
				cfg.Warn(warning)
			}
			if out != "" {
				if err := replaceFile(out, result.Manifest.JSON()); err != nil {
					return fmt.Errorf("--out: %w", err)
				}
			}
			if format == outputJSON {
				_, err := cmd.OutOrStdout().Write(result.Manifest.JSON())
				return err
			}
			return printCluster(cmd.OutOrStdout(), result)
		},
	}
	flags.register(cmd)
	format.register(cmd)
	cmd.Flags().StringVar(&out, "out", "", "also write the manifest to `FILE`")
	return cmd
}

// replaceFile writes a file whole or not at all, since a deployer may read it
// at any moment. What is there and is no regular file, a device or a pipe, is
// written to.
func replaceFile(name string, content []byte) error {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	mode := os.FileMode(0o644)
	if info, err := os.Stat(name); err == nil {
		if !info.Mode().IsRegular() {
			return os.WriteFile(name, content, mode)
		}
		mode = info.Mode().Perm()
	}
	temporary, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) //nolint:errcheck // it is gone when all went well
	_, err = temporary.Write(content)
	if err = errors.Join(err, temporary.Chmod(mode), temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), name)
}

func printCluster(w io.Writer, result *nixeval.Result) error {
	m := result.Manifest
	asn := "no BGP"
	if m.Cluster.ASN != nil {
		asn = fmt.Sprintf("AS %d", *m.Cluster.ASN)
	}
	fmt.Fprintf(w, "cluster %s, %s, deployer %s\nevaluated in %.2f s by Nix %s with %s\n\n",
		m.Cluster.Name, asn, m.Cluster.DeployerURL, result.Took.Seconds(), result.Nix, libInWords(result.Lib))

	var rows [][]any
	for _, id := range m.NodeIDs() {
		node := m.Nodes[id]
		rows = append(rows, []any{id, node.Role, node.IP, strings.Join(node.Services, ","), shortHash(node.ConfigHash)})
	}
	err := printTable(w, "NODE\tROLE\tIP\tSERVICES\tCONFIG HASH", rows)

	if len(m.VIPs) > 0 {
		rows = nil
		for _, prefix := range slices.Sorted(maps.Keys(m.VIPs)) {
			rows = append(rows, []any{prefix, strings.Join(m.VIPs[prefix].Nodes, ",")})
		}
		fmt.Fprintln(w)
		err = errors.Join(err, printTable(w, "VIP\tANNOUNCED BY", rows))
	}
	return err
}

func libInWords(lib nixeval.Lib) string {
	if lib == nixeval.LibOffline {
		return "the stand-in for nixpkgs' lib"
	}
	return "nixpkgs"
}

// shortHash shortens sha256:<64 hex> for a table.
func shortHash(hash string) string {
	if len(hash) > 19 {
		return hash[:19]
	}
	return hash
}
