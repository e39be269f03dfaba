package labrun

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// State is what a standing lab tells of itself, in a file of its folder.
type State struct {
	Name     string           `json:"name"`
	Cluster  string           `json:"cluster"`
	PID      int              `json:"pid"`
	Enter    string           `json:"enter,omitempty"` // the command that enters the user namespace it is in; empty: none
	Since    time.Time        `json:"since"`
	Deployer string           `json:"deployer"` // its URL, inside
	Hosts    map[string]Place `json:"hosts"`
}

// Place is where a host is.
type Place struct {
	Kind      string `json:"kind"` // node, router, deployer, client, or switch
	Namespace string `json:"namespace"`
	Dir       string `json:"dir"`
}

const stateFile, statusSocket = "lab.json", "lab.sock"

// Stand builds the lab, tells what it found, and lets the lab stand until the
// context ends.
func (r *Runner) Stand(ctx context.Context, enter string, ready func(*Report, *State) error) (err error) {
	report := r.newReport()
	begin := time.Now()
	r.do("starting the lab of %s", count(len(r.evaluated.Manifest.Nodes), "node"))
	c, _, err := r.start(r.asEvaluated()) // no artifacts are wanted
	defer func() { err = errors.Join(err, c.Close()) }()
	if err != nil {
		return err
	}
	report.Up = time.Since(begin)
	report.routers(c)
	state := r.state(c, enter)
	text, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.Lab.Dir, stateFile), append(text, '\n'), 0o600); err != nil {
		return err
	}
	r.do("waiting until all is as declared")
	report.Checks = c.Settle(ctx, r.patience())
	report.Settled = time.Since(begin)
	report.Instead = c.Instead
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	socket, err := new(net.ListenConfig).Listen(ctx, "unix", filepath.Join(c.Lab.Dir, statusSocket))
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		now := *report
		now.Checks = c.Checks(request.Context())
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(&now)
	})}
	go func() { _ = server.Serve(socket) }()
	defer server.Close()
	if err := ready(report, state); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (r *Runner) state(c *labcluster.Cluster, enter string) *State {
	s := &State{Name: r.cfg.Name, Cluster: r.evaluated.Manifest.Cluster.Name, PID: os.Getpid(), Enter: enter, Since: time.Now().UTC(),
		Deployer: c.Deployer.URL, Hosts: map[string]Place{}}
	for _, h := range c.Lab.Hosts() {
		kind := "switch"
		switch {
		case c.Nodes[h.Name] != nil:
			kind = "node"
		case c.Routers[h.Name] != nil:
			kind = "router"
		case h == c.Deployer.Host:
			kind = "deployer"
		case h == c.Client.Host:
			kind = "client"
		}
		s.Hosts[h.Name] = Place{kind, h.Namespace, h.Dir}
	}
	return s
}

// ErrNone says that no lab of the name stands.
var ErrNone = errors.New("no such lab stands")

// Read is the state of the lab that has this name, or of the only one there is if
// the name is empty.
func Read(name string) (*State, error) {
	name, err := only(name)
	if err != nil {
		return nil, err
	}
	dir, running, err := lab.Find(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNone, name)
	}
	if err != nil {
		return nil, err
	}
	if !running {
		return nil, fmt.Errorf("the lab %s was killed; `plasmactl lab down --name %s` removes what it has left", name, name)
	}
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the lab %s is not up yet", name)
	}
	if err != nil {
		return nil, err
	}
	var s State
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("state of the lab %s: %w", name, err)
	}
	return &s, nil
}

// only is the name, or that of the only lab where none is given.
func only(name string) (string, error) {
	if name != "" {
		if !lab.Name.MatchString(name) {
			return "", fmt.Errorf("%w: %q cannot be the name of one", ErrNone, name)
		}
		return name, nil
	}
	names, err := lab.Claims()
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "", ErrNone
	case len(names) > 1:
		return "", fmt.Errorf("several labs stand, name one with --name: %s", strings.Join(names, ", "))
	}
	return names[0], nil
}

// Status compares a standing lab with its evaluation, now.
func Status(ctx context.Context, name string) (*State, *Report, error) {
	state, err := Read(name)
	if err != nil {
		return nil, nil, err
	}
	dir, _, err := lab.Find(state.Name)
	if err != nil {
		return nil, nil, err
	}
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, statusSocket))
		}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lab/", nil)
	if err != nil {
		return nil, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, nil, fmt.Errorf("the lab %s does not answer: %w", state.Name, err)
	}
	defer response.Body.Close()
	var report Report
	if err := json.NewDecoder(response.Body).Decode(&report); err != nil {
		return nil, nil, fmt.Errorf("the lab %s: %w", state.Name, err)
	}
	return state, &report, nil
}

// KillLeft ends what a killed lab in a user namespace has left running, from the
// outside: FRR's daemons are other users there, whom only its owner can end.
func KillLeft(ctx context.Context, name string) error {
	name, err := only(name)
	if err != nil {
		return nil //nolint:nilerr // Down says so
	}
	dir, running, err := lab.Find(name)
	if err != nil || running {
		return nil //nolint:nilerr // there is nothing, or it ends what it has started
	}
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return err
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range commands {
		text, gone := os.ReadFile(file)
		pid := filepath.Base(filepath.Dir(file))
		if gone != nil || !strings.Contains(string(text), dir+"/") {
			continue
		}
		if space, err := os.Readlink(filepath.Join(filepath.Dir(file), "ns/user")); err == nil && space == own {
			continue // somebody who looks at its files, or us
		}
		kill := exec.CommandContext(ctx, "nsenter", "--target", pid, "--user", "--preserve-credentials", "kill", "-9", pid)
		if out, failed := kill.CombinedOutput(); failed != nil {
			if _, stat := os.Stat(file); stat == nil {
				err = errors.Join(err, fmt.Errorf("end process %s: %w: %s", pid, failed, out))
			}
		}
	}
	return err
}

// downWithin is how long a lab may take to end in order.
const downWithin = 30 * time.Second

// Down ends the lab, and removes what it or a killed one of its name has left. It
// returns the name, and whether there was anything.
func Down(name string) (string, bool, error) {
	name, err := only(name)
	if errors.Is(err, ErrNone) {
		return name, false, nil
	}
	if err != nil {
		return name, false, err
	}
	dir, running, err := lab.Find(name)
	if errors.Is(err, os.ErrNotExist) {
		return name, false, errors.Join(lab.RemoveStale(name), nixeval.RemoveScratch())
	}
	if err != nil {
		return name, false, err
	}
	if running {
		if err := stop(dir); err != nil {
			return name, true, err
		}
	}
	return name, true, errors.Join(lab.RemoveStale(name), nixeval.RemoveScratch())
}

// stop ends the process of a lab, in order or else not.
func stop(dir string) error {
	pid, err := lab.PID(dir)
	if err != nil {
		return err
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end the lab's process %d: %w", pid, err)
		}
		err = lab.Eventually(downWithin, func() error {
			if _, running, err := lab.FindDir(dir); err == nil && running {
				return fmt.Errorf("the lab's process %d still runs", pid)
			}
			return nil
		})
		if err == nil {
			return nil
		}
	}
	return err
}
