// Package vmtests proves the whole: the evaluated configuration on real daemons.
package vmtests

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// bin has our four programs, and a folder for each generation of gobgpd and its gobgp.
var bin string

var generations = []string{"v3", "v4"}

// backendAddress makes this test binary the service behind a VIP, for a host of the lab.
const backendAddress = "VMTESTS_BACKEND"

// asked begins a line in the log of a backend for each request.
const asked = "asked for"

func TestMain(m *testing.M) {
	if address := os.Getenv(backendAddress); address != "" {
		server := &http.Server{Addr: address, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				fmt.Println(asked, r.URL)
				fmt.Fprintln(w, "ok")
			})}
		fmt.Fprintln(os.Stderr, server.ListenAndServe())
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Parse()
	// Most of them wait for daemons; those that boot machines compute.
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = flag.Set("test.parallel", "4")
	}
	dir, err := os.MkdirTemp("", "plasmacloud-vmtests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // for tests as another user
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin = dir
	builds := [][]string{{bin, "../cmd/..."}}
	for _, g := range generations {
		builds = append(builds, []string{filepath.Join(bin, g) + "/", "github.com/osrg/gobgp/" + g + "/cmd/gobgpd", "github.com/osrg/gobgp/" + g + "/cmd/gobgp"})
	}
	for _, args := range builds {
		build := exec.Command("go", append([]string{"build", "-ldflags=-s -w", "-o"}, args...)...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the package does, for machines with no libc
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}
