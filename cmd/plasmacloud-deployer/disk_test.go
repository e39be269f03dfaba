package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// mount mounts a small file system of its own for the test.
func mount(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a tmpfs (needs root, or a user namespace): %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func (p *proc) unavailable(t *testing.T, id string, phase node.Phase) {
	t.Helper()
	_, err := p.client.PhoneHome(t.Context(), ready(id, phase))
	var answered *api.Error
	if !errors.As(err, &answered) || answered.Code != api.CodeUnavailable || answered.RetryAfter == 0 {
		t.Errorf("%s reports %s: %v, want %s", id, phase, err, api.CodeUnavailable)
	}
}

// TestDiskFull: what cannot be written is not acknowledged, what was is kept, and
// nodes that have nothing new to say notice nothing. With room again all goes on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := mount(t, "size=4m")
	var ids []string
	for i := range 200 {
		ids = append(ids, fmt.Sprintf("node%03d", i))
	}
	args := []string{"--store", filepath.Join(disk, "state.db"), "--manifest", write(t, filepath.Join(t.TempDir(), "m.json"), manifest(ids...))}
	p := serveProc(t, nil, args...)
	for _, id := range ids[:100] {
		if _, err := p.client.PhoneHome(t.Context(), ready(id, node.PhaseReady)); err != nil {
			t.Fatal(err)
		}
	}
	filler, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	filler.Close()
	// The file has free pages of its own; when they are used up nothing more fits.
	full := 100
	for ; full < len(ids); full++ {
		report := ready(ids[full], node.PhaseFailed)
		report.Error = strings.Repeat("x", api.MaxErrorBytes)
		if _, err := p.client.PhoneHome(t.Context(), report); err != nil {
			break
		}
	}
	if full == len(ids) {
		t.Fatal("the disk is not full")
	}
	report := ready(ids[full], node.PhaseFailed)
	report.Error = strings.Repeat("x", api.MaxErrorBytes)
	_, err = p.client.PhoneHome(t.Context(), report)
	var answered *api.Error
	if !errors.As(err, &answered) || answered.Code != api.CodeUnavailable {
		t.Errorf("a report on a full disk: %v", err)
	}
	if answer, err := p.client.PhoneHome(t.Context(), ready(ids[0], node.PhaseReady)); err != nil || answer.State != node.Active {
		t.Errorf("a heartbeat on a full disk: %+v, %v", answer, err)
	}
	if health, err := p.client.Health(t.Context()); err != nil || health.Status != "failing" {
		t.Errorf("health on a full disk: %+v, %v", health, err)
	}
	check := func(when string) {
		t.Helper()
		list, err := p.client.List(t.Context())
		if err != nil || len(list) != len(ids) {
			t.Fatalf("%s: %d nodes, %v", when, len(list), err)
		}
		for i, n := range list {
			want := node.Pending
			if i < 100 {
				want = node.Active
			} else if i < full {
				want = node.Failed
			}
			if n.State != want {
				t.Errorf("%s: %s is %s, want %s", when, n.ID, n.State, want)
			}
		}
	}
	check("full")
	if err := p.end(syscall.SIGKILL); err == nil {
		t.Error("killed and ended well")
	}
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	p = serveProc(t, nil, args...)
	check("killed, and with room again")
	for _, id := range ids[full:] {
		if _, err := p.client.PhoneHome(t.Context(), ready(id, node.PhaseReady)); err != nil {
			t.Fatal(err)
		}
	}
	if health, err := p.client.Health(t.Context()); err != nil || health.Status != "ok" {
		t.Errorf("health with room again: %+v, %v", health, err)
	}
}

// TestNoRoomAtFirst: a deployer that had no room for its file starts once it has.
func TestNoRoomAtFirst(t *testing.T) {
	t.Parallel()
	disk := mount(t, "size=4k")
	args := []string{"--store", filepath.Join(disk, "state.db"), "--manifest", write(t, filepath.Join(t.TempDir(), "m.json"), manifest("node01"))}
	err := run(t.Context(), append([]string{"serve", "--config", write(t, filepath.Join(t.TempDir(), "c.json"), "{}"), "--listen", "127.0.0.1:0"}, args...), io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "no room") {
		t.Fatalf("without room: %v", err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if n := serveProc(t, nil, args...).get("node01"); n.State != node.Pending {
		t.Errorf("with room: %+v", n)
	}
}

// TestFileTakenAway: what would go into a file that nobody finds again is not acknowledged,
// until it is back.
func TestFileTakenAway(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.db")
	p := serveProc(t, nil, "--store", file, "--manifest", write(t, filepath.Join(t.TempDir(), "m.json"), manifest("node01", "node02")))
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(file, file+".old")
	p.unavailable(t, "node01", node.PhaseBooted)
	if health, err := p.client.Health(t.Context()); err != nil || health.Status != "failing" {
		t.Errorf("health: %+v, %v", health, err)
	}
	write(t, file, "another one")
	p.unavailable(t, "node01", node.PhaseBooted)
	move(file+".old", file)
	if _, err := p.client.PhoneHome(t.Context(), ready("node01", node.PhaseReady)); err != nil {
		t.Error(err)
	}
}

// TestRoomAgain: the deployer need not be started anew once there is room.
func TestRoomAgain(t *testing.T) {
	t.Parallel()
	disk := mount(t, "size=1m")
	p := serveProc(t, nil, "--store", filepath.Join(disk, "state.db"), "--manifest", write(t, filepath.Join(t.TempDir(), "m.json"), manifest("node01", "node02")))
	filler := filepath.Join(disk, "filler")
	_ = os.WriteFile(filler, make([]byte, 1<<20), 0o600) // until it is full
	// A page is not written in place, so that free ones of the file do for a few changes.
	report := ready("node01", node.PhaseFailed)
	report.Error = strings.Repeat("x", api.MaxErrorBytes)
	var err error
	for i := 0; i < 200 && err == nil; i++ {
		report.BootID = fmt.Sprint(i)
		_, err = p.client.PhoneHome(t.Context(), report)
	}
	if err == nil {
		t.Fatal("the disk is not full")
	}
	p.unavailable(t, "node02", node.PhaseBooted)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"node01", "node02"} {
		if answer, err := p.client.PhoneHome(t.Context(), ready(id, node.PhaseReady)); err != nil || answer.State != node.Active {
			t.Errorf("%s: %+v, %v", id, answer, err)
		}
	}
	if health, err := p.client.Health(t.Context()); err != nil || health.Status != "ok" {
		t.Errorf("%+v, %v", health, err)
	}
}

// TestDiskTurnsReadOnly: a disk that takes no more writes, as the kernel does to one with
// errors, costs what changes something and nothing else; strace gives the errors. When it
// takes them again, all that was answered is there, also after a crash, and nothing else.
func TestDiskTurnsReadOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"--store", filepath.Join(dir, "state.db"), "--manifest", write(t, filepath.Join(dir, "m.json"), manifest("node01", "node02", "node03"))}
	p := serveProc(t, nil, args...)
	if _, err := p.client.PhoneHome(t.Context(), ready("node01", node.PhaseReady)); err != nil {
		t.Fatal(err)
	}
	events := func() int {
		t.Helper()
		list, err := p.client.Events(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Events)
	}
	before := events()
	const writes = "pwrite64,pwritev,ftruncate,fallocate,fsync,fdatasync"
	strace := exec.Command("strace", "-f", "-e", "trace="+writes, "-e", "inject="+writes+":error=EROFS", "-p", fmt.Sprint(p.cmd.Process.Pid))
	said, err := strace.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := strace.Start(); err != nil {
		t.Fatal(err)
	}
	attached := bufio.NewScanner(said)
	for attached.Scan() && !strings.Contains(attached.Text(), " attached") { //nolint:revive // until it is
	}
	go func() { _, _ = io.Copy(io.Discard, said) }()
	for range 3 {
		p.unavailable(t, "node02", node.PhaseReady)
	}
	p.unavailable(t, "node01", node.PhaseFailed)
	if answer, err := p.client.PhoneHome(t.Context(), ready("node01", node.PhaseReady)); err != nil || answer.State != node.Active {
		t.Errorf("a heartbeat: %+v, %v", answer, err)
	}
	if health, err := p.client.Health(t.Context()); err != nil || health.Status != "failing" {
		t.Errorf("health: %+v, %v", health, err)
	}
	check := func(when string, want ...node.State) {
		t.Helper()
		for i, state := range want {
			if n := p.get(fmt.Sprintf("node%02d", i+1)); n.State != state {
				t.Errorf("%s: %s is %s, want %s", when, n.ID, n.State, state)
			}
		}
	}
	check("read-only", node.Active, node.Pending, node.Pending)
	if n := events(); n != before {
		t.Errorf("%d events of what was not done", n-before)
	}
	if err := strace.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = strace.Wait() // it says by what it was ended
	if answer, err := p.client.PhoneHome(t.Context(), ready("node02", node.PhaseReady)); err != nil || answer.State != node.Active {
		t.Errorf("writable again: %+v, %v", answer, err)
	}
	if health, err := p.client.Health(t.Context()); err != nil || health.Status != "ok" {
		t.Errorf("health when writable again: %+v, %v", health, err)
	}
	_ = p.end(syscall.SIGKILL)
	p = serveProc(t, nil, args...)
	check("after a crash", node.Active, node.Active, node.Pending)
}

// TestReadOnlyDisk: the deployer says so, and ends.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	disk := mount(t, "size=1m")
	path := filepath.Join(disk, "state.db")
	m := write(t, filepath.Join(t.TempDir(), "m.json"), manifest("node01"))
	if err := serveProc(t, nil, "--store", path, "--manifest", m).end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), []string{"serve", "--listen", "127.0.0.1:0", "--store", path, "--manifest", m}, new(strings.Builder), new(strings.Builder))
	if err == nil || !strings.Contains(err.Error(), path+" is on a filesystem that is mounted read-only; mount it for writing") {
		t.Error(err)
	}
}
