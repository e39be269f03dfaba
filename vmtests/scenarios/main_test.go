// Package scenarios proves the announcer against real routers: what they learn,
// and what they hear when something fails. The scripts in testdata are scenarios
// that each fill one file.
package scenarios

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/labcluster"
)

const repo = "../.."

// patience is how long a test waits for what should happen soon, on a machine
// that does much else.
const patience = 60 * time.Second

var programs labcluster.Built

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	// The tests wait for daemons more than they compute, on however few processors.
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = flag.Set("test.parallel", "6")
	}
	dir, err := os.MkdirTemp("", "plasmacloud-scenarios-")
	if err == nil {
		defer os.RemoveAll(dir)
		programs, err = labcluster.Build(dir, repo)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// start runs a cluster until the test is over.
func start(t *testing.T, name, speaker string, cluster *labcluster.Evaluated) *labcluster.Cluster {
	t.Helper()
	c, err := labcluster.Start(labcluster.Config{Name: name, Programs: programs.With(speaker), Cluster: cluster, Password: `p'w\$x&|#!{@`})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Log())
		}
		assert.NoError(t, c.Close())
	})
	require.NoError(t, err)
	return c
}
