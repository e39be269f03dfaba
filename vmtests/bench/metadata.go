package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

// matchboxGroups is for how many machines matchbox has a group.
const matchboxGroups = 1000

// benchMetadata asks matchbox (github.com/poseidon/matchbox), which somebody would take
// who needs no more than metadata at boot, for that of each of its machines. It writes
// nothing; the deployer has the report of a machine on disk before it answers.
func benchMetadata(ctx context.Context, b *bench) ([]figure, error) {
	url, stop, err := startMatchbox(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("matchbox: %w", err)
	}
	defer stop()
	var ours, theirs []float64
	for run := range b.runs {
		rate, err := askMatchbox(ctx, url)
		if err != nil {
			return nil, fmt.Errorf("matchbox: %w", err)
		}
		theirs = append(theirs, rate)
		handler, _, shut, err := registryHandler(ctx, func() (store.Store, error) {
			return bolt.Open(bolt.Config{Path: filepath.Join(b.dir, fmt.Sprintf("metadata%d.db", run))})
		})
		if err != nil {
			return nil, err
		}
		joined, _, err := storms(ctx, handler, 1, 0)
		shut()
		if err != nil {
			return nil, err
		}
		ours = append(ours, joined.rate)
	}
	our, their := percentile(ours, 50), percentile(theirs, 50)
	return []figure{
		{fmt.Sprintf("%d registrations with a deployer, each on disk", phoneHomes), fmt.Sprintf("%.0f/s", our), fmt.Sprintf("matchbox with %d groups", matchboxGroups), our / their},
		{work: fmt.Sprintf("metadata of %d machines from matchbox", matchboxGroups), value: fmt.Sprintf("%.0f/s", their)},
	}, nil
}

// startMatchbox builds it as .ci/matchbox says, and gives it a group for each machine.
func startMatchbox(ctx context.Context, b *bench) (url string, stop func(), err error) {
	path, err := exec.CommandContext(ctx, "go", "tool", "-modfile="+filepath.Join(b.repo, ".ci", "matchbox", "go.mod"), "-n", "matchbox").Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	if err != nil {
		return "", nil, err
	}
	data := filepath.Join(b.dir, "matchbox")
	for _, dir := range []string{"groups", "profiles", "assets"} {
		if err := os.MkdirAll(filepath.Join(data, dir), 0o700); err != nil {
			return "", nil, err
		}
	}
	write := func(name string, v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(data, name), text, 0o600)
	}
	err = write("profiles/worker.json", map[string]any{"id": "worker", "name": "worker"})
	for i := range matchboxGroups {
		err = errors.Join(err, write(fmt.Sprintf("groups/%s.json", nodeID(i)), map[string]any{
			"id": nodeID(i), "name": nodeID(i), "profile": "worker", "selector": map[string]string{"mac": mac(i)},
			"metadata": map[string]string{"node_id": nodeID(i), "ip": nodeIP(i).String(), "role": "worker"},
		}))
	}
	if err != nil {
		return "", nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.CommandContext(ctx, strings.TrimSpace(string(path)), "-address="+address, "-data-path="+data, "-assets-path="+filepath.Join(data, "assets"), "-log-level=error")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	url = "http://" + address
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := metadata(ctx, http.DefaultClient, url, 0)
		if err == nil {
			return url, stop, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			stop()
			return "", nil, err
		}
	}
}

func mac(i int) string { return fmt.Sprintf("02:00:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255) }

func metadata(ctx context.Context, client *http.Client, url string, i int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metadata?mac="+mac(i), nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && !strings.Contains(string(body), nodeID(i)) {
		err = fmt.Errorf("the metadata of %s is %d, %q", mac(i), response.StatusCode, body)
	}
	return err
}

// askMatchbox is the metadata of so many machines a second.
func askMatchbox(ctx context.Context, url string) (float64, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	failed := make(chan error, connections)
	var all sync.WaitGroup
	begin := time.Now()
	for range connections {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < matchboxGroups; i = int(next.Add(1)) - 1 {
				if err := metadata(ctx, client, url, i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return 0, err
	default:
		return matchboxGroups / time.Since(begin).Seconds(), nil
	}
}
