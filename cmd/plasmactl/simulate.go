package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/fleet"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/secretfile"
)

// simulation is what `plasmactl simulate` is told.
type simulation struct {
	deployer  deployerFlags
	format    outputFormat
	fleet     fleet.Config
	storms    []string
	beat      time.Duration
	tokenFile string
	maxP99    time.Duration
	real      bool
	again     bool
	manifest  string
}

func simulateCommand() *cobra.Command {
	var s simulation
	var acts []string
	for _, act := range fleet.Acts[1:] {
		acts = append(acts, fmt.Sprintf("  %-12s %s", act.Name, act.About))
	}
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Try a deployer out with many simulated nodes",
		Long: `Runs the phone-home client of many made-up nodes in this process, against a deployer that
you start for the purpose: to find out how many nodes it can take on its machine, and what
it does in a bad hour. It is no tool for a deployer that serves real nodes: it ends where
the deployer has heard of any, and where simulated ones are Active from another run.

First all nodes join at once. Then come the storms, in the order given, "all" for all:

` + strings.Join(acts, "\n") + `

duplicates, tokens, skew and slow are about a --share of the nodes. tokens needs
--join-token-file. Latencies are as the nodes see them.

The deployer has to know the nodes: --write-manifest writes a manifest that declares them.

Exit status: 0 everything was as it has to be; 1 it was not; 64 the command line
is wrong; 78 a file is wrong, or cannot be read.`,
		Example: `  plasmactl simulate --nodes 10000 --write-manifest sim.json
  plasmacloud-deployer serve --manifest sim.json --store sim.db --listen :8081
  plasmactl simulate --nodes 10000 --deployer-url http://127.0.0.1:8081 \
    --storm reboot,slow --time 1m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd) },
	}
	s.deployer.register(cmd)
	s.format.register(cmd)
	s.deployer.url = "" // nobody's by default
	url := cmd.PersistentFlags().Lookup("deployer-url")
	url.DefValue, url.Usage = "", "base `URL` of the deployer to try out; there is no default"
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVar(&s.fleet.Nodes, "nodes", 100, "how many `N` nodes there are")
	flags.StringSliceVar(&s.storms, "storm", nil, "`STORM` to play after the nodes have joined; repeatable, or with commas")
	flags.Float64Var(&s.fleet.Share, "share", 0.1, "`PART` of the nodes that some storms are about")
	flags.DurationVar(&s.beat, "time", 0, "let the nodes send heartbeats for this `DURATION` at the end")
	flags.StringVar(&s.tokenFile, "join-token-file", "", "`FILE` with the token by which the nodes join, for a deployer with join tokens")
	flags.IntVar(&s.fleet.Connections, "connections", 0, "`N` connections that the nodes share; one for each node, but at most 4096, where it is not given")
	flags.BoolVar(&s.fleet.Apart, "own-connections", false, "each node keeps a connection of its own, as real ones do, in place of a share of --connections")
	flags.Uint64Var(&s.fleet.Seed, "seed", 1, "what the machines and their secrets are made of; the same `NUMBER` makes the same ones")
	flags.DurationVar(&s.fleet.Patience, "patience", 5*time.Minute, "`DURATION` within which all nodes have to be Active again")
	flags.DurationVar(&s.maxP99, "max-p99", 0, "99th percentile of latencies, a `DURATION`, over which it is a fault; 0 for any")
	flags.BoolVar(&s.again, "again", false, "go on though simulated nodes are Active from a run before, with the same --seed")
	flags.BoolVar(&s.real, "beside-real-nodes", false, "go on though the deployer serves real nodes, which will feel it")
	flags.StringVar(&s.manifest, "write-manifest", "", "write a manifest that declares the nodes to `FILE`, and end")
	_ = cmd.RegisterFlagCompletionFunc("storm", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		names := []string{"all"}
		for _, act := range fleet.Acts[1:] {
			names = append(names, act.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func (s *simulation) run(cmd *cobra.Command) error {
	acts, err := s.acts()
	switch {
	case err != nil:
		return daemon.UsageError(err)
	case s.fleet.Nodes < 1 || s.fleet.Nodes > fleet.MaxNodes:
		return daemon.UsageError(fmt.Errorf("--nodes: want 1 to %d", fleet.MaxNodes))
	case s.fleet.Share <= 0 || s.fleet.Share > 1:
		return daemon.UsageError(errors.New("--share: want more than 0, and at most 1"))
	case s.manifest != "":
		return writeManifest(s.manifest, s.fleet.Nodes, s.deployer.url)
	case s.deployer.url == "":
		return daemon.UsageError(errors.New("--deployer-url: name a deployer that serves no real nodes; there is no default"))
	}
	client, err := s.deployer.client()
	if err != nil {
		return err
	}
	s.fleet.URL = s.deployer.url
	if s.fleet.TLS, err = s.deployer.files.Config(); err != nil {
		return daemon.ConfigError(err)
	}
	if s.tokenFile != "" {
		if s.fleet.JoinToken, err = secretfile.Token(s.tokenFile); err != nil {
			return daemon.ConfigError(fmt.Errorf("join token: %w", err))
		}
	}
	nodes, err := client.List(cmd.Context())
	if err != nil {
		return unreached(err)
	}
	if err := s.mayRun(nodes); err != nil {
		return err
	}
	if err := enoughFiles(s.fleet); err != nil {
		return err
	}
	begin := time.Now()
	s.fleet.Progress = func(p fleet.Progress) {
		line := fmt.Sprintf("%5.0fs  %s: %d reports", time.Since(begin).Seconds(), p.Act, p.Reports)
		if p.Nodes > 0 {
			line += fmt.Sprintf(", %d of %d nodes Active", p.Active, p.Nodes)
		}
		fmt.Fprintln(cmd.ErrOrStderr(), line)
	}
	results, err := s.play(cmd, client, acts)
	if shown := s.show(cmd.OutOrStdout(), results); err == nil {
		err = shown
	}
	if err != nil {
		return err
	}
	faults := 0
	for _, r := range results {
		faults += len(r.Faults)
	}
	if faults > 0 {
		return fmt.Errorf("not as it has to be: %d faults", faults)
	}
	return nil
}

// acts are those after the join.
func (s *simulation) acts() ([]fleet.Act, error) {
	var acts []fleet.Act
	for _, name := range s.storms {
		if name == "all" {
			for _, act := range fleet.Acts[1:] {
				if act.Name != "tokens" || s.tokenFile != "" {
					acts = append(acts, act)
				}
			}
			continue
		}
		act, ok := fleet.FindAct(name)
		if !ok || name == fleet.Acts[0].Name {
			return nil, fmt.Errorf("--storm %s: there is none of that name; plasmactl simulate --help lists them", name)
		}
		if name == "tokens" && s.tokenFile == "" {
			return nil, errors.New("--storm tokens: without --join-token-file, and a deployer that wants join tokens, none is wrong")
		}
		acts = append(acts, act)
	}
	return acts, nil
}

// mayRun keeps a simulation away from a deployer that is at work.
func (s *simulation) mayRun(nodes []api.Node) error {
	for _, n := range nodes {
		simulated := strings.HasPrefix(n.ID, fleet.Prefix)
		switch {
		case !simulated && n.LastSeen != nil && !s.real:
			return fmt.Errorf("the deployer serves real nodes, %s for one; start one of its own for the simulation, or pass --beside-real-nodes", n.ID)
		case simulated && n.State == node.Active && !s.again:
			return fmt.Errorf("%s is Active from another run; give the deployer a new store, or pass --again, with the --seed of that run", n.ID)
		}
	}
	return nil
}

// enoughFiles says so before nodes fail for want of file descriptors.
func enoughFiles(cfg fleet.Config) error {
	const others = 64
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	want := cfg.Connections
	if want == 0 {
		want = min(cfg.Nodes, 4096)
	}
	if cfg.Apart {
		want += cfg.Nodes
	}
	want += int(2*cfg.Share*float64(cfg.Nodes)) + others
	if uint64(want) > limit.Cur {
		return fmt.Errorf("it takes %d open files, and this process may have %d; raise `ulimit -n`, or take fewer with --connections and --share, and without --own-connections", want, limit.Cur)
	}
	return nil
}

// play goes on after a fault: what comes later says more about it.
func (s *simulation) play(cmd *cobra.Command, client *api.Client, acts []fleet.Act) (results []fleet.Result, err error) {
	f, err := fleet.New(s.fleet)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ctx := cmd.Context()
	add := func(all ...fleet.Result) {
		for _, r := range all {
			if p99 := time.Duration(r.P99 * float64(time.Millisecond)); s.maxP99 > 0 && p99 > s.maxP99 && r.Act != "slow" && r.Act != "check" {
				r.Faults = append(r.Faults, fmt.Sprintf("the 99th percentile is %s, over --max-p99 %s", p99, s.maxP99))
			}
			results = append(results, r)
		}
	}
	for _, act := range append([]fleet.Act{fleet.Acts[0]}, acts...) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", act.Name, act.About)
		done, err := act.Play(f, ctx)
		add(done...)
		if err != nil {
			return results, fmt.Errorf("%s: %w", act.Name, err)
		}
	}
	if s.beat > 0 {
		done, err := f.Beat(ctx, s.beat)
		if err != nil {
			return results, fmt.Errorf("heartbeats: %w", err)
		}
		add(done)
	}
	done, err := f.Check(ctx, client)
	if err != nil {
		return results, unreached(err)
	}
	add(done)
	return results, nil
}

func (s *simulation) show(w io.Writer, results []fleet.Result) error {
	if s.format == outputJSON {
		ok := len(results) > 0
		for _, r := range results {
			ok = ok && r.OK()
		}
		return printJSON(w, map[string]any{"deployer_url": s.fleet.URL, "nodes": s.fleet.Nodes, "seed": s.fleet.Seed, "ok": ok, "acts": results})
	}
	var rows [][]any
	for _, r := range results {
		active, verdict := "", "ok"
		if r.AllActive > 0 {
			active = fmt.Sprintf("%.2fs", r.AllActive)
		}
		if !r.OK() {
			verdict = "FAULT"
		}
		refused := 0
		for _, n := range r.Refused {
			refused += n
		}
		unanswered := 0
		for _, n := range r.Errors {
			unanswered += n
		}
		rows = append(rows, []any{r.Act, r.Nodes, r.Reports, fmt.Sprintf("%.0f/s", r.Rate), fmt.Sprintf("%.1fms", r.P50),
			fmt.Sprintf("%.1fms", r.P99), fmt.Sprintf("%.1fms", r.Worst), refused, unanswered, active, verdict})
	}
	if err := printTable(w, "ACT\tNODES\tREPORTS\tRATE\tP50\tP99\tWORST\tREFUSED\tUNANSWERED\tALL ACTIVE\tVERDICT", rows); err != nil {
		return err
	}
	for _, r := range results {
		for _, of := range []struct {
			what   string
			counts map[string]int
		}{{"refused", r.Refused}, {"unanswered", r.Errors}} {
			for _, code := range slices.Sorted(maps.Keys(of.counts)) {
				fmt.Fprintf(w, "%s: %d %s: %s\n", r.Act, of.counts[code], of.what, code)
			}
		}
		for _, fault := range r.Faults {
			fmt.Fprintf(w, "%s: FAULT: %s\n", r.Act, strings.Map(printable, fault))
		}
	}
	return nil
}

// writeManifest declares the nodes, as `plasmactl eval --out` does those of a cluster.
func writeManifest(path string, nodes int, url string) error {
	declared := map[string]any{}
	for i := range nodes {
		text := fleet.ClusterConfig(i)
		var config struct {
			Role string `json:"node_role"`
			IP   string `json:"node_ip"`
		}
		if err := json.Unmarshal(text, &config); err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		declared[fleet.ID(i)] = map[string]any{
			"role": config.Role, "ip": config.IP, "ipv6": nil, "services": []string{}, "labels": map[string]string{}, "site": nil,
			"identity": map[string]any{"macs": []string{}, "serial": nil},
			"deployment": map[string]any{
				"targetHost": config.IP, "targetUser": "root", "targetPort": 22, "tags": []string{},
				"provision": map[string]any{"mode": "live", "disk": nil, "script": nil},
			},
			"clusterConfig": string(text), "configHash": "sha256:" + hex.EncodeToString(sum[:]), "bgp": nil, "announcer": nil,
		}
	}
	manifest, err := json.Marshal(map[string]any{
		"data": map[string]any{
			"schemaVersion": 1, "nodes": declared, "vips": map[string]any{},
			"cluster": map[string]any{"name": "simulated", "asn": nil, "initialPeers": []string{}, "deployerUrl": url},
		},
		"failedAssertions": []string{}, "warnings": []string{},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(manifest, '\n'), 0o644)
}
