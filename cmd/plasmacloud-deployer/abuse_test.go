package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// anonymous is the memory of a process in bytes, without the pages of files.
func anonymous(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "RssAnon:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Error(err)
			}
			return kib << 10
		}
	}
	t.Error("no RssAnon in /proc")
	return 0
}

// TestAbuse: whoever sends requests by the thousand that are slow, too large, not
// JSON or unauthorised gets no more memory than the limits let him, and
// takes nothing from a node that is in order.
func TestAbuse(t *testing.T) {
	t.Parallel()
	const each, most = 1000, 160 << 20
	dir := t.TempDir()
	token := rand.Text()
	config := write(t, filepath.Join(dir, "c.json"), fmt.Sprintf(`{"manifest": %q, "tokens": {"join_file": %q}}`,
		write(t, filepath.Join(dir, "m.json"), manifest("node01", "node02")), write(t, filepath.Join(dir, "tokens"), "all "+token+"\n")))
	p := serveProc(t, nil, "--config", config, "--store", filepath.Join(dir, "state.db"))
	address := strings.TrimPrefix(p.url, "http://")
	good := ready("node01", node.PhaseReady)
	good.MachineID, good.JoinToken, good.Secret = "aaaaaaaa-0000-4000-8000-000000000001", token, rand.Text()
	if _, err := p.client.PhoneHome(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	good.JoinToken = ""

	request := func(body, more string) string {
		return fmt.Sprintf("POST /api/v1/phone-home HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s", len(body), more, body)
	}
	report := `{"node_id": "node01", "machine_id": "aaaaaaaa-0000-4000-8000-000000000001", "phase": "ready", "role": "worker"}`
	large := `{"node_id": "node01", "phase": "ready", "hostname": "` + strings.Repeat("x", 1<<20) + `"}`
	noise := make([]byte, 4096)
	_, _ = rand.Read(noise)
	kinds := map[string]struct {
		sends  string
		status []int // of the answer; 0 is none
	}{
		"slow header":       {"POST /api/v1/phone-home HTTP/1.1\r\nHost: d\r\nContent-Le", []int{0, http.StatusRequestTimeout, http.StatusBadRequest}},
		"slow body":         {request(report, "")[:200], []int{http.StatusRequestTimeout}},
		"too large":         {request(large, ""), []int{0, http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable}},
		"headers too large": {"GET /health HTTP/1.1\r\nHost: d\r\nX: " + strings.Repeat("x", 64<<10), []int{0, http.StatusRequestHeaderFieldsTooLarge}},
		"not HTTP":          {string(noise) + "\r\n\r\n", []int{0, http.StatusBadRequest}},
		"not JSON":          {request(string(noise), ""), []int{http.StatusBadRequest, http.StatusServiceUnavailable}},
		"deep JSON":         {request(strings.Repeat(`{"facts":`, 5000), ""), []int{http.StatusBadRequest, http.StatusServiceUnavailable}},
		"many keys":         {request(`{"facts": {`+strings.Repeat(`"a":"b",`, 5000)+`"a": "b"}}`, ""), []int{http.StatusBadRequest, http.StatusServiceUnavailable}},
		"no secret":         {request(report, ""), []int{http.StatusUnauthorized}},
		"wrong secret":      {request(report, node.SecretHeader+": "+rand.Text()+"\r\n"), []int{http.StatusUnauthorized}},
		"wrong token":       {request(strings.ReplaceAll(report, "node01", "node02"), "Authorization: Bearer "+rand.Text()+"\r\n"), []int{http.StatusUnauthorized}},
	}
	var all, watching sync.WaitGroup
	var peak atomic.Int64
	ended := make(chan struct{})
	watching.Go(func() { // the node that is in order, and the memory
		for {
			select {
			case <-ended:
				return
			case <-time.After(50 * time.Millisecond):
			}
			if answer, err := p.client.PhoneHome(t.Context(), good); err != nil || answer.State != node.Active {
				t.Errorf("a heartbeat of the node that is in order: %+v, %v", answer, err)
			}
			peak.Store(max(peak.Load(), anonymous(t, p.cmd.Process.Pid)))
		}
	})
	for name, kind := range kinds {
		kind.status = append(kind.status, http.StatusTooManyRequests) // where others have spent what the address has
		slots := make(chan struct{}, each)                            // all of the slow ones are open at once
		if !strings.HasPrefix(name, "slow") {
			slots = make(chan struct{}, 32)
		}
		var wrong atomic.Int64
		for range each {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				status, err := rawRequest(address, kind.sends)
				for _, want := range kind.status {
					if status == want {
						return
					}
				}
				if wrong.Add(1) == 1 {
					t.Errorf("%s: status %d, %v; want one of %v", name, status, err, kind.status)
				}
			})
		}
	}
	all.Wait()
	close(ended)
	watching.Wait()
	if peak.Load() > most {
		t.Errorf("it took %d MiB, more than %d", peak.Load()>>20, most>>20)
	}
	t.Logf("%d requests of %d kinds took %d MiB at most", each*len(kinds), len(kinds), peak.Load()>>20)
	n := p.get("node01")
	if n.State != node.Active || n.MachineID != good.MachineID || len(n.History) > 4 {
		t.Errorf("what became of the node: %+v", n)
	}
	if n := p.get("node02"); n.State != node.Pending {
		t.Errorf("somebody without a token joined: %+v", n)
	}
	if health, err := p.client.Health(t.Context()); err != nil || health.Status != "ok" {
		t.Errorf("%+v, %v", health, err)
	}
}

// rawRequest is the status that text gets, 0 where the connection ends without one.
func rawRequest(address, text string) (status int, err error) {
	conn, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err != nil {
		return -1, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = io.Copy(conn, bytes.NewReader([]byte(text))) // it may be cut off under way
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout():
		return -1, err
	case err != nil:
		return 0, nil
	}
	return response.StatusCode, response.Body.Close()
}

// TestMethodsOfStrangers: what is not there, and what is not allowed, costs nothing.
func TestMethodsOfStrangers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := serveProc(t, nil, "--store", filepath.Join(dir, "state.db"), "--manifest", write(t, filepath.Join(dir, "m.json"), manifest("node01")))
	for _, method := range []string{"DELETE", "PUT", "PATCH", "TRACE", "CONNECT", "BREW"} {
		status, err := rawRequest(strings.TrimPrefix(p.url, "http://"), method+" "+api.PathPhoneHome+" HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
		if status != http.StatusMethodNotAllowed && status != http.StatusNotFound && status != http.StatusBadRequest {
			t.Errorf("%s: %d, %v", method, status, err)
		}
	}
}
