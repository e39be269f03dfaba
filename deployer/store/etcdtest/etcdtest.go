// Package etcdtest starts real etcds for tests.
package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Versions are the etcds that there are: the one that Debian 12 has, and a new one,
// which is built from the modules that .ci/etcd names.
var Versions = []string{"3.4", "3.7"}

// build makes the new etcd, once for all tests of a binary; Go's cache has it for the
// next one.
var build = sync.OnceValues(func() (string, error) {
	root, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	module := filepath.Join(filepath.Dir(strings.TrimSpace(string(root))), ".ci", "etcd", "go.mod")
	path, err := exec.Command("go", "tool", "-modfile="+module, "-n", "server").Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	return strings.TrimSpace(string(path)), err
})

func program(version string) (string, error) {
	if version == "3.7" {
		return build()
	}
	path, err := exec.LookPath("etcd")
	if err != nil {
		return "", fmt.Errorf("%w: install Debian's etcd-server, or run make test-deps", err)
	}
	return path, nil
}

// Server is an etcd: one member, of a cluster of its own or of several.
type Server struct {
	URL string

	t    testing.TB
	args []string
	path string
	cmd  *exec.Cmd
	gone chan struct{} // closed when cmd has ended
}

// Start runs an etcd of the version until the test ends, and returns when it answers.
// flags go behind our own.
func Start(t testing.TB, version string, flags ...string) *Server {
	t.Helper()
	// It is alone: nobody else could be elected.
	flags = append([]string{"--heartbeat-interval=10", "--election-timeout=50"}, flags...)
	return start(t, version, 1, flags)[0]
}

// StartCluster is Start for several members of one cluster.
func StartCluster(t testing.TB, version string, members int) []*Server {
	t.Helper()
	return start(t, version, members, []string{"--heartbeat-interval=50", "--election-timeout=500"})
}

func start(t testing.TB, version string, members int, flags []string) []*Server {
	t.Helper()
	path, err := program(version)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // somebody else may take a port before the etcd does
		var err error
		servers := make([]*Server, members)
		var peers, cluster []string
		for i := range servers {
			servers[i] = &Server{t: t, path: path, URL: "http://" + freeAddress(t)}
			peers = append(peers, "http://"+freeAddress(t))
			cluster = append(cluster, fmt.Sprintf("member%d=%s", i, peers[i]))
		}
		for i, s := range servers {
			s.args = append([]string{
				fmt.Sprintf("--name=member%d", i), "--data-dir=" + dataDir(t), "--logger=zap", "--log-level=error",
				"--listen-client-urls=" + s.URL, "--advertise-client-urls=" + s.URL,
				"--listen-peer-urls=" + peers[i], "--initial-advertise-peer-urls=" + peers[i],
				"--initial-cluster=" + strings.Join(cluster, ","),
			}, flags...)
			s.Run()
		}
		for _, s := range servers {
			err = errors.Join(err, s.answers())
		}
		if err == nil {
			return servers
		}
		for _, s := range servers {
			s.Kill()
		}
	}
	t.Fatal("etcd does not start")
	return nil
}

// dataDir is in memory: a test need not wait for a disk. For figures it is on the disk.
func dataDir(t testing.TB) string {
	t.Helper()
	if _, figures := t.(*testing.B); !figures {
		if dir, err := os.MkdirTemp("/dev/shm", "etcdtest-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	return t.TempDir()
}

// WithTLS starts it anew, after Kill, with TLS for which clients need a certificate.
func (s *Server) WithTLS(ca, cert, key string) *Server {
	s.t.Helper()
	url := strings.Replace(s.URL, "http://", "https://", 1)
	s.args = append(s.args, "--listen-client-urls="+url, "--advertise-client-urls="+url,
		"--cert-file="+cert, "--key-file="+key, "--trusted-ca-file="+ca, "--client-cert-auth")
	s.URL = url
	s.Run()
	return s
}

// freeAddress is below the ports that the kernel gives to outgoing connections, one of
// which could take it while an etcd that is started again is away.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// Run starts it, and again after Kill.
func (s *Server) Run() {
	s.t.Helper()
	s.cmd = exec.Command(s.path, s.args...)
	s.cmd.Stderr = s.t.Output()
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, gone := s.cmd, make(chan struct{})
	s.gone = gone
	go func() {
		_ = cmd.Wait() // it is killed
		close(gone)
	}()
	s.t.Cleanup(s.Kill)
}

// Kill ends it at once, and returns when it is gone.
func (s *Server) Kill() {
	s.signal(syscall.SIGKILL)
	<-s.gone
}

// Stop lets it hang: it keeps its connections and answers nothing.
func (s *Server) Stop() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	for end := time.Now().Add(10 * time.Second); !s.stopped(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatal("etcd does not stop")
		}
	}
}

// stopped says whether all of its threads are.
func (s *Server) stopped() bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
	for _, path := range stats {
		stat, readErr := os.ReadFile(path)
		_, state, _ := strings.Cut(string(stat), ") ")
		if readErr == nil && !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return err == nil && len(stats) > 0
}

// Continue ends Stop.
func (s *Server) Continue() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal syscall.Signal) {
	_ = s.cmd.Process.Signal(signal) // one that has ended takes none
}

// Client is a client of it.
func (s *Server) Client() *clientv3.Client {
	s.t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.URL}, Logger: zap.NewNop()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// answers waits for its first answer.
func (s *Server) answers() error {
	s.t.Helper()
	client := s.Client()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		_, err := client.Get(attempt, "ready")
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-s.gone:
			return errors.New("etcd ended")
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}
