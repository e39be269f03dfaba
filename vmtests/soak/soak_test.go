package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/deployerproc"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

var programs labcluster.Built

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	flag.Parse()
	// They wait for daemons more than they compute, on however few processors.
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = flag.Set("test.parallel", "4")
	}
	dir, err := os.MkdirTemp("", "plasmacloud-soak-")
	if err == nil {
		defer os.RemoveAll(dir)
		programs, err = labcluster.Build(dir, "../..")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func short(t *testing.T, speaker string) soak {
	return soak{repo: "../..", programs: programs, speaker: speaker, seed: rand.Uint64(), say: t.Logf}
}

// Two rounds of what `make soak` does for long.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, speaker := range []string{"v3", "v4"} {
		t.Run(speaker, func(t *testing.T) {
			t.Parallel()
			require.NoError(t, short(t, speaker).faults(t.Context(), func(round int) bool { return round < 2 }))
		})
	}
}

// A few of the kills of `make soak`, with fewer nodes.
func TestStorm(t *testing.T) {
	t.Parallel()
	program, err := deployerproc.Build(t.Context(), t.TempDir(), "../..")
	require.NoError(t, err)
	require.NoError(t, short(t, "v4").storm(t.Context(), program, 300, 3))
}

func TestFlapping(t *testing.T) {
	t.Parallel()
	require.NoError(t, short(t, "v4").flapping(t.Context(), 1000, 3*time.Second))
}

func TestGrowthIsSeen(t *testing.T) {
	var all []usage
	for i := range 100 {
		all = append(all, usage{memory: 100 << 20, goroutines: float64(100 + 10*i), files: 20})
	}
	begin, end := quarter(all, 1), quarter(all, 3)
	assert.EqualError(t, end.grown(begin), "goroutines grew from 470 to 970")
	begin = usage{memory: 55 << 20, goroutines: 28, files: 18}
	assert.NoError(t, usage{memory: 57 << 20, goroutines: 40, files: 20}.grown(begin))
	for what, end := range map[string]usage{
		"memory grew":     {memory: 66 << 20, goroutines: 28, files: 18},
		"goroutines grew": {memory: 55 << 20, goroutines: 60, files: 18},
		"files grew":      {memory: 55 << 20, goroutines: 28, files: 30},
	} {
		assert.ErrorContains(t, end.grown(begin), what)
	}
}

func TestUnknownPart(t *testing.T) {
	assert.ErrorContains(t, run(context.Background(), "flaps", time.Second, 1, "v4", 100, 100, 1), "there are faults, flapping, storm and size")
}
