package nixeval

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/nix/offline"
)

// Lib says which nixpkgs lib an evaluation uses.
type Lib string

const (
	LibAuto    Lib = "auto"    // nixpkgs, or the stand-in where nixpkgs cannot be downloaded
	LibNixpkgs Lib = "nixpkgs" // nixpkgs only
	LibOffline Lib = "offline" // the stand-in of nix/offline only, no network
)

// Default limits of an evaluation. A cluster of 1,000 nodes takes well under a
// tenth of either.
const (
	DefaultTimeout = 5 * time.Minute
	DefaultMemory  = 4 << 30 // bytes
)

// Config is what an Evaluator works with. The zero value is ready for use.
type Config struct {
	Nix     string        // the nix executable; "" looks for nix in PATH
	Lib     Lib           // "" means LibAuto
	Timeout time.Duration // for one evaluation, downloads included; 0 means DefaultTimeout
	Memory  int64         // ceiling of Nix' heap in bytes; 0 means DefaultMemory
	Warn    func(string)  // takes what the operator should know of a good evaluation; nil discards

	// OverrideInputs replaces flake inputs, by name ("plasmacloud",
	// "plasmacloud/nixpkgs") with a flake reference.
	OverrideInputs map[string]string

	// Keep is a file for what the evaluation comes to, for an Evaluator in a process without a
	// network, whose Kept it is: that takes it in place of evaluating the same, and removes it.
	Keep, Kept string
}

// Evaluator evaluates clusters. It is safe for use by several goroutines.
type Evaluator struct{ cfg Config }

// New returns an Evaluator for cfg.
func New(cfg Config) *Evaluator {
	if cfg.Nix == "" {
		cfg.Nix = "nix"
	}
	if cfg.Lib == "" {
		cfg.Lib = LibAuto
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	if cfg.Warn == nil {
		cfg.Warn = func(string) {}
	}
	return &Evaluator{cfg}
}

// Result is an evaluated cluster and how it was evaluated.
type Result struct {
	Manifest *Manifest
	Lib      Lib           // LibNixpkgs or LibOffline, whichever was used
	Nix      string        // version, such as 2.8.0
	Took     time.Duration // all of it, downloads and copying included
	Memory   int64         // the most that Nix had resident, in bytes
}

// Eval evaluates the cluster that ref names: a flake reference, and after '#'
// the cluster's name where the flake has several. A folder is taken as it is
// on disk; in a git checkout Nix sees the tracked files only.
//
// Errors: [*EvalError] with the message of Nix, [*AssertionError] for a cluster
// that is well-formed but wrong, [exec.ErrNotFound] where there is no nix,
// [context.DeadlineExceeded] when the timeout ran out.
func (e *Evaluator) Eval(ctx context.Context, ref string) (*Result, error) {
	flake, err := parseRef(ref)
	if err != nil {
		return nil, err
	}
	if !clusterName.MatchString(flake.fragment) {
		return nil, fmt.Errorf("%q after '#' is no cluster name: want letters, digits, '-' and '_'", flake.fragment)
	}
	raw, result, err := e.eval(ctx, flake, "plasmacloud", "--apply", choose(flake.fragment))
	if err != nil {
		return nil, err
	}
	if result.Manifest, err = DecodeManifest(bytes.NewReader(raw)); err != nil {
		return nil, fmt.Errorf("evaluate %s: %w", flake.given, err)
	}
	return result, nil
}

// EvalAttr evaluates one attribute of a flake, FLAKE#ATTRPATH, and returns its
// JSON. It runs no assertion: for a cluster's data there is Eval.
func (e *Evaluator) EvalAttr(ctx context.Context, ref string) (json.RawMessage, error) {
	flake, err := parseRef(ref)
	if err != nil {
		return nil, err
	}
	raw, _, err := e.eval(ctx, flake, flake.fragment)
	return raw, err
}

// eval is evaluate, or what was kept of it.
func (e *Evaluator) eval(ctx context.Context, flake flakeRef, attr string, args ...string) ([]byte, *Result, error) {
	if e.cfg.Kept != "" {
		text, err := os.ReadFile(e.cfg.Kept)
		var kept kept
		if err == nil {
			err = errors.Join(json.Unmarshal(text, &kept), os.Remove(e.cfg.Kept))
		}
		if err != nil {
			return nil, nil, fmt.Errorf("what %s was evaluated to: %w", flake.given, err)
		}
		return kept.Raw, &kept.Result, nil
	}
	raw, result, err := e.evaluate(ctx, flake, attr, args...)
	if err == nil && e.cfg.Keep != "" {
		var text []byte
		if text, err = json.Marshal(kept{raw, *result}); err == nil {
			err = os.WriteFile(e.cfg.Keep, text, 0o600)
		}
	}
	return raw, result, err
}

// kept is what Config.Keep and Config.Kept hold.
type kept struct {
	Raw    json.RawMessage
	Result Result // without the manifest, which is in Raw
}

// evaluate returns how it was evaluated also with an [*EvalError].
func (e *Evaluator) evaluate(ctx context.Context, flake flakeRef, attr string, args ...string) ([]byte, *Result, error) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()

	scratch, err := scratchDir("eval")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(scratch)

	nix, err := e.version(ctx)
	if err != nil {
		return nil, nil, err
	}
	run := run{Evaluator: e, flake: flake, scratch: scratch, target: flake.given, overrides: map[string]string{}, given: map[string]string{}}
	if err := run.prepare(nix); err != nil {
		return nil, nil, fmt.Errorf("prepare flake %s: %w", flake.given, err)
	}

	lib := e.cfg.Lib
	if lib == LibAuto {
		lib = LibNixpkgs
		if _, chosen := e.cfg.OverrideInputs["nixpkgs"]; !chosen {
			run.impatient = true
		}
	}
	raw, err := run.eval(ctx, lib, attr, args...)
	var evalErr *EvalError
	if run.impatient && errors.As(err, &evalErr) && unreachable(evalErr.Message) {
		e.cfg.Warn("nixpkgs cannot be reached, so the built-in stand-in for its lib is used (" + firstLine(evalErr.Message) + ")")
		lib = LibOffline
		raw, err = run.eval(ctx, lib, attr, args...)
	}
	return raw, &Result{Lib: lib, Nix: nix.number, Took: time.Since(begin), Memory: run.memory}, err
}

var clusterName = regexp.MustCompile(`^[A-Za-z0-9_-]*$`)

// choose is applied to the flake's output `plasmacloud`, so that one evaluation
// both finds the cluster and reads it.
func choose(cluster string) string {
	return `all: let
  wanted = "` + cluster + `";
  names = builtins.attrNames all;
  list = builtins.concatStringsSep ", " names;
in
  if wanted != "" then
    all.${wanted} or (throw "the flake has no cluster ${wanted}; it has: ${list}")
  else if builtins.length names == 1 then
    all.${builtins.head names}
  else
    throw "the flake has several clusters, name one after '#': ${list}"`
}

// run is one call of Eval.
type run struct {
	*Evaluator
	flake     flakeRef
	scratch   string            // temporary folder
	target    string            // the flake reference that Nix gets
	overrides map[string]string // inputs that we override, since target has no lock file
	given     map[string]string // inputs that the user overrides
	impatient bool              // give up a download soon, there is another way
	memory    int64             // peak of the last evaluation, in bytes
}

// prepare finds the references that Nix is to get for the flake and for the
// overrides, and works around locks that this Nix refuses.
func (r *run) prepare(nix version) error {
	if r.flake.dir != "" {
		if r.flake.plain {
			r.target = r.flake.dir // Nix takes a relative one without "./" for a name of its registry
		}
		lock, err := readLock(r.flake.dir)
		if err != nil {
			return err
		}
		if lock.hasRelativeInputs() && !nix.locksRelativeInputs() {
			if r.target, err = copyFlake(r.flake.dir, filepath.Join(r.scratch, "source"), false); err != nil {
				return err
			}
			maps.Copy(r.overrides, lock.pins())
		}
	}
	for name, ref := range r.cfg.OverrideInputs {
		override, err := parseRef(ref)
		if err == nil && override.dir != "" && override.fragment == "" {
			lock, err := readLock(override.dir)
			if err != nil {
				return err
			}
			// Nix copies all of a path, also what git ignores; we leave that out.
			withLock := !lock.hasRelativeInputs() || nix.locksRelativeInputs()
			if ref, err = copyFlake(override.dir, filepath.Join(r.scratch, "input", strings.ReplaceAll(name, "/", "-")), withLock); err != nil {
				return fmt.Errorf("input %s: %w", name, err)
			}
		}
		r.given[name] = ref
	}
	return nil
}

func (r *run) eval(ctx context.Context, lib Lib, attr string, more ...string) ([]byte, error) {
	args := append([]string{
		"--extra-experimental-features", "nix-command flakes",
		"eval", "--json", "--no-write-lock-file", r.target + "#" + attr,
		// Nix would look for packages.<system>.<attr> first; there is no such system.
		"--option", "system", "no-system",
	}, more...)
	overrides := maps.Clone(r.overrides)
	if lib == LibOffline {
		standIn := filepath.Join(r.scratch, "offline")
		if err := os.CopyFS(standIn, offline.FS); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("unpack the stand-in for nixpkgs: %w", err)
		}
		// By the name that it has in PlasmaCloud's own flake, and in a user's.
		overrides["nixpkgs"] = "path:" + standIn
		overrides["plasmacloud/nixpkgs"] = "path:" + standIn
	}
	maps.Copy(overrides, r.given)
	for name, ref := range overrides {
		args = append(args, "--override-input", name, ref)
	}
	if r.impatient {
		args = append(args, "--option", "connect-timeout", "5", "--option", "download-attempts", "1")
	}
	store, err := privateStore()
	if err != nil {
		return nil, err
	}
	if store != "" {
		// In a user namespace we look like root, for whom Nix wants its group of builders.
		args = append(args, "--store", store, "--option", "build-users-group", "")
	}

	stdout, stderr, usage, err := r.nix(ctx, args...)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("evaluate %s: stopped after %s: %w", r.flake.given, r.cfg.Timeout, ctx.Err())
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return nil, err
		}
		if strings.Contains(stderr, "GC Warning: Out of Memory") || strings.Contains(stderr, "error: out of memory") {
			return nil, &EvalError{Flake: r.flake.given, Message: fmt.Sprintf("Nix needs more than its ceiling of %d MiB", r.cfg.Memory>>20), Hint: "raise it with --eval-memory"}
		}
		source := ""
		if r.flake.dir != "" {
			source, _ = sourceRoot(r.flake.dir)
		}
		msg := userPaths(message(stderr), source)
		return nil, &EvalError{Flake: r.flake.given, Message: msg, Hint: hint(msg)}
	}
	r.memory = usage.Maxrss << 10 // getrusage(2): in KiB
	for _, text := range warnings(stderr) {
		r.cfg.Warn(text)
	}
	return stdout, nil
}

// nix runs nix with the limits of the configuration. The exit status decides
// whether stdout counts: a failing nix has often written part of its JSON.
func (e *Evaluator) nix(ctx context.Context, args ...string) (stdout []byte, stderr string, usage syscall.Rusage, err error) {
	cmd := exec.CommandContext(ctx, e.cfg.Nix, args...)
	cmd.Env = append(os.Environ(),
		"GC_MAXIMUM_HEAP_SIZE="+strconv.FormatInt(e.cfg.Memory, 10), // libgc: out of memory beyond it
		"NO_COLOR=1", "TERM=dumb")
	// Nix starts git and download helpers; all of them end with the context. When we
	// are killed, Nix is too: the signal is sent when the thread ends that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out := capped{limit: maxManifest}
	errs := tail{limit: 1 << 20}
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("nix is not there (%s): install it (Debian: apt-get install nix-bin; elsewhere https://nixos.org/download) or name it with --nix: %w", e.cfg.Nix, exec.ErrNotFound)
	}
	if cmd.ProcessState != nil {
		if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			usage = *u
		}
	}
	return out.buf, string(errs.buf), usage, err
}

// version is which Nix there is.
type version struct {
	number string // such as 2.8.0
	lix    bool   // Lix, which has gone its own way since Nix 2.18
}

// locksRelativeInputs tells whether this Nix takes a lock file that has inputs
// of the form path:./dir: Nix does from 2.26 on.
func (v version) locksRelativeInputs() bool { return !v.lix && atLeast(v.number, 2, 26) }

var versionNumber = regexp.MustCompile(`\b(\d+)\.(\d+)[0-9A-Za-z.-]*`)

func (e *Evaluator) version(ctx context.Context) (version, error) {
	out, stderr, _, err := e.nix(ctx, "--version")
	if err != nil {
		return version{}, fmt.Errorf("ask nix for its version: %w", errors.Join(err, errors.New(strings.TrimSpace(stderr))))
	}
	text := firstLine(string(out))
	v := version{number: versionNumber.FindString(text[strings.LastIndex(text, ")")+1:]), lix: strings.Contains(text, "Lix")}
	if !strings.HasPrefix(text, "nix (") || v.number == "" { // nix (Nix) 2.8.0
		return v, fmt.Errorf("%s is not Nix: its --version prints %q", e.cfg.Nix, text)
	}
	return v, nil
}

func atLeast(number string, major, minor int) bool {
	part := versionNumber.FindStringSubmatch(number)
	if part == nil {
		return false
	}
	maj, _ := strconv.Atoi(part[1])
	mnr, _ := strconv.Atoi(part[2])
	return maj > major || maj == major && mnr >= minor
}

// privateStore is a folder of the user's for Nix to keep its store in, where
// this user can neither write to /nix nor reach a daemon. Empty: not needed.
func privateStore() (string, error) {
	if os.Getenv("NIX_REMOTE") != "" || writable("/nix/var/nix/daemon-socket/socket") || writable("/nix/var/nix/db") {
		return "", nil
	}
	if _, err := os.Stat("/nix/var/nix/db"); errors.Is(err, os.ErrNotExist) && writable("/") {
		return "", nil // Nix makes it
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("this user has no right to /nix, and no folder for a store of its own: set HOME or XDG_CACHE_HOME: %w", err)
	}
	store := filepath.Join(cache, "plasmacloud", "nix")
	if err := os.MkdirAll(store, 0o700); err != nil {
		return "", fmt.Errorf("this user has no right to /nix, and no folder for a store of its own: set HOME or XDG_CACHE_HOME to one that can be written: %w", err)
	}
	return store, nil
}

func writable(path string) bool { return syscall.Access(path, 2 /* W_OK */) == nil }

// capped keeps what is written to it and fails beyond limit bytes.
type capped struct {
	buf   []byte
	limit int
}

func (c *capped) Write(p []byte) (int, error) {
	if len(c.buf)+len(p) > c.limit {
		return 0, fmt.Errorf("nix printed more than %d MiB", c.limit>>20)
	}
	c.buf = append(c.buf, p...)
	return len(p), nil
}

// tail keeps the last bytes written to it.
type tail struct {
	buf   []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.limit; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
