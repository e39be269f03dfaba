// Package deployerproc runs plasmacloud-deployer in a process of its own, to be killed,
// starved and measured.
package deployerproc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
)

// Build builds the program into dir from the checkout at repo.
func Build(ctx context.Context, dir, repo string) (program string, err error) {
	program = filepath.Join(dir, "plasmacloud-deployer")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/plasmacloud-deployer")
	build.Dir = repo
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the deployer: %w: %s", err, out)
	}
	return program, nil
}

// Deployer is one deployer, over all the processes that it is in turn.
type Deployer struct {
	URL    string
	Client *api.Client

	program, config string
	cmd             *exec.Cmd
	gone            chan struct{} // closed when cmd has ended
	log             tail
}

// New is a deployer that does not run yet. config is deployer.json; its listen is a
// free port of 127.0.0.1, its store state.db in dir, unless it says otherwise.
func New(program, dir string, config map[string]any) (*Deployer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	l.Close()
	all := map[string]any{"listen": address, "store": map[string]any{"path": filepath.Join(dir, "state.db")}}
	for key, value := range config {
		all[key] = value
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	d := &Deployer{URL: "http://" + all["listen"].(string), program: program, config: filepath.Join(dir, "deployer.json")}
	if err := os.WriteFile(d.config, text, 0o600); err != nil {
		return nil, err
	}
	d.Client, err = api.NewClient(d.URL, time.Minute, &http.Transport{MaxIdleConnsPerHost: 4})
	return d, err
}

// Start runs it, with env over that of this process, and waits until it is ready.
func (d *Deployer) Start(ctx context.Context, env ...string) error {
	d.cmd = exec.CommandContext(ctx, d.program, "serve", "--config", d.config, "--log-level", "warn")
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.cmd.Env = append(os.Environ(), env...)
	d.cmd.Stderr = &d.log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	d.gone = gone
	go func() {
		_ = d.cmd.Wait() // Log has the reason
		close(gone)
	}()
	for {
		asked, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := d.Client.Health(asked)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-gone:
			return fmt.Errorf("the deployer ended: %s", d.Log())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Kill ends it with SIGKILL, and returns when it is gone.
func (d *Deployer) Kill() { d.end(syscall.SIGKILL) }

// Stop ends it with SIGTERM, and returns when it is gone.
func (d *Deployer) Stop() { d.end(syscall.SIGTERM) }

func (d *Deployer) end(signal syscall.Signal) {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(signal) // it may have ended
	<-d.gone
}

// Signal sends it a signal.
func (d *Deployer) Signal(signal syscall.Signal) error { return d.cmd.Process.Signal(signal) }

// Ended says whether its process has.
func (d *Deployer) Ended() bool {
	select {
	case <-d.gone:
		return true
	default:
		return false
	}
}

// Memory is what it has in memory, without the pages of its store, which are the kernel's,
// and the most that it ever had, which the kernel counts with those; in bytes.
func (d *Deployer) Memory() (now, most int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	fields := map[string]*int64{"RssAnon:": &now, "VmHWM:": &most}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 || fields[words[0]] == nil {
			continue
		}
		kib, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		*fields[words[0]] = kib << 10
		delete(fields, words[0])
	}
	if len(fields) > 0 {
		return 0, 0, errors.New("/proc has no RssAnon or VmHWM")
	}
	return now, most, nil
}

// Log is the end of what it logged.
func (d *Deployer) Log() string { return d.log.String() }

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

const tailBytes = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text.Write(p)
	if over := t.text.Len() - tailBytes; over > tailBytes {
		t.text.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}
