package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store/etcdtest"
)

// TestMigrate takes the nodes of a deployer from bbolt into etcd and back, each time
// to a deployer that goes on where the other one stopped.
func TestMigrate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := write(t, filepath.Join(dir, "m.json"), manifest("node01", "node02", "node03"))
	server := etcdtest.Start(t, "3.4")
	boltFile := filepath.Join(dir, "state.db")
	etcdFile := write(t, filepath.Join(dir, "etcd.json"), fmt.Sprintf(`{"manifest": %q, "store": {"type": "etcd", "endpoints": [%q]}}`, m, server.URL))
	command := func(want string, args ...string) {
		t.Helper()
		var out strings.Builder
		err := run(t.Context(), args, &out, io.Discard)
		if got := fmt.Sprint(out.String(), err); !strings.Contains(got, want) {
			t.Errorf("%v: %s, want %q", args, got, want)
		}
	}
	nodes := func(p *proc) (list []api.Node) {
		t.Helper()
		for _, id := range []string{"node01", "node02", "node03"} {
			list = append(list, p.get(id)) // with its history
		}
		return list
	}

	p := serveProc(t, nil, "--store", boltFile, "--manifest", m)
	for id, phase := range map[string]node.Phase{"node01": node.PhaseReady, "node02": node.PhaseBooted} {
		if _, err := p.client.PhoneHome(t.Context(), ready(id, phase)); err != nil {
			t.Fatal(err)
		}
	}
	want := nodes(p)
	first := filepath.Join(dir, "first.backup")
	command("another deployer has "+boltFile, "backup", first, "--store", boltFile)
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	command(boltFile+": ok, nodes: 3", "verify", "--store", boltFile)
	command(first+": nodes: 3", "backup", first, "--store", boltFile)
	if info, err := os.Stat(first); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	command(first+": ok, nodes: 3, join tokens: 0, events: 3, entries of the audit log: 0, as of 2", "verify", first)

	command("etcd "+server.URL+" /plasmacloud/: nodes: 3, join tokens: 0, events: 3, entries of the audit log: 0, as of 2", "restore", first, "--config", etcdFile)
	p = serveProc(t, nil, "--config", etcdFile)
	if got := nodes(p); !reflect.DeepEqual(withoutReachability(got), withoutReachability(want)) {
		t.Errorf("in etcd\n%+v\nwant\n%+v", got, want)
	}
	// All of these work beside a deployer that runs.
	if _, err := p.client.PhoneHome(t.Context(), ready("node02", node.PhaseReady)); err != nil {
		t.Fatal(err)
	}
	command("restore into one without nodes", "restore", first, "--config", etcdFile)
	command("node03: Decommissioned", "decommission", "node03", "--config", etcdFile)
	command("/plasmacloud/: ok, nodes: 3", "verify", "--config", etcdFile)
	second := filepath.Join(dir, "second.backup")
	command(second+": nodes: 3", "backup", second, "--config", etcdFile)
	want = nodes(p)
	if want[2].State != node.Decommissioned {
		t.Errorf("the deployer that runs does not see it: %+v", want[2])
	}

	other := filepath.Join(dir, "other.db")
	command(other+": nodes: 3", "restore", second, "--store", other)
	p = serveProc(t, nil, "--store", other, "--manifest", m)
	if got := nodes(p); !reflect.DeepEqual(withoutReachability(got), withoutReachability(want)) {
		t.Errorf("in bbolt again\n%+v\nwant\n%+v", got, want)
	}
}

// withoutReachability drops what a deployer that has just started cannot know.
func withoutReachability(nodes []api.Node) []api.Node {
	for i := range nodes {
		nodes[i].Reachability = ""
	}
	return nodes
}

// TestBackupErrors: what goes wrong is said, ends with an error, and leaves nothing
// that looks like a backup.
func TestBackupErrors(t *testing.T) {
	dir := t.TempDir()
	none, bad := filepath.Join(dir, "none.db"), write(t, filepath.Join(dir, "bad.backup"), "hello\n")
	store := filepath.Join(dir, "state.db")
	m := write(t, filepath.Join(dir, "m.json"), manifest("node01", "node02"))
	if err := serveProc(t, nil, "--store", store, "--manifest", m).end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"backup", filepath.Join(dir, "x"), "--store", none}, "none.db: no such file"},
		{[]string{"backup", filepath.Join(dir, "no", "x"), "--store", store}, "backup of " + store + ": the directory " + filepath.Join(dir, "no") + " does not exist"},
		{[]string{"backup", dir, "--store", store}, dir + " is a directory; name a file in it"},
		{[]string{"backup"}, "accepts 1 arg"},
		{[]string{"verify", "--store", none}, "none.db: no such file"},
		{[]string{"verify", filepath.Join(dir, "none")}, "backup: open"},
		{[]string{"verify", bad}, "bad.backup: not a backup of plasmacloud-deployer"},
		{[]string{"restore", bad, "--store", none}, "bad.backup: not a backup of plasmacloud-deployer"},
	} {
		err := run(t.Context(), test.args, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v, want %q", test.args, err, test.want)
		}
	}
	spoil(t, store, "node02", "{torn")
	backupFile := filepath.Join(dir, "part.backup")
	for _, args := range [][]string{{"verify", "--store", store}, {"backup", backupFile, "--store", store}} {
		err := run(t.Context(), args, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "unreadable records: 1, which") || !strings.Contains(err.Error(), "nodes/node02") {
			t.Errorf("%v: %v", args, err)
		}
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"verify", backupFile}, &out, io.Discard); err != nil || !strings.Contains(out.String(), "ok, nodes: 1") {
		t.Errorf("the rest is a good backup: %q, %v", out.String(), err)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if _, statErr := os.Stat(none); statErr == nil || err != nil || len(left) != 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}
