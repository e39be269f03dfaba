// Package vmtests proves the whole: the evaluated configuration on real daemons.
package vmtests

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"
)

// bin has gobgpd, gobgp and our four programs.
var bin string

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
	dir, err := os.MkdirTemp("", "plasmacloud-vmtests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	out, err := exec.Command("go", "build", "-o", bin, "../cmd/...",
		"github.com/osrg/gobgp/v3/cmd/gobgpd", "github.com/osrg/gobgp/v3/cmd/gobgp").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
