package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/certtest"
	"github.com/centra/plasmacloud/deployer/node"
)

// wire is a client's connections, one for each request, and somebody who listens to them.
type wire struct {
	client *api.Client

	mu   sync.Mutex
	sent *bytes.Buffer // of the last connection
}

func tapped(t *testing.T, p *proc) *wire {
	t.Helper()
	w := &wire{}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.sent = new(bytes.Buffer)
		return &tappedConn{conn, w, w.sent}, err
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	if p.tls.CA != "" {
		config, err := p.tls.Config()
		if err != nil {
			t.Fatal(err)
		}
		transport.TLSClientConfig = config
	}
	var err error
	if w.client, err = api.NewClient(p.url, 10*time.Second, transport); err != nil {
		t.Fatal(err)
	}
	return w
}

type tappedConn struct {
	net.Conn
	wire *wire
	sent *bytes.Buffer
}

func (c *tappedConn) Write(data []byte) (int, error) {
	c.wire.mu.Lock()
	c.sent.Write(data)
	c.wire.mu.Unlock()
	return c.Conn.Write(data)
}

// report is what went over the wire for a report that was accepted, its headers too.
func (w *wire) report(t *testing.T, r api.PhoneHomeRequest) string {
	t.Helper()
	if _, err := w.client.PhoneHome(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent.String()
}

// TestReplay: what somebody on the way recorded is sent again, byte by byte. TLS makes
// nothing of it. Without TLS it is what the node has said, and no more: no other machine is
// the node, nothing may be installed over, and what an operator took back stays so.
func TestReplay(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS=%v", secure), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			token, admin := rand.Text(), rand.Text()
			config := fmt.Sprintf(`{"manifest": %q, "store": {"path": "%s/state.db"}, "tokens": {"join_file": %q, "operators_file": %q}`,
				write(t, filepath.Join(dir, "m.json"), manifest("node01")), dir,
				write(t, filepath.Join(dir, "tokens"), "all "+token+"\n"), write(t, filepath.Join(dir, "operators"), "alice "+admin+" role=admin\n"))
			ca := api.TLSFiles{}
			if secure {
				authority := certtest.New(t)
				cert, key := authority.Issue("deployer")
				ca.CA = authority.File
				config += fmt.Sprintf(`, "tls": {"cert": %q, "key": %q}`, cert, key)
			}
			p := startProc(t, nil, "--config", write(t, filepath.Join(dir, "deployer.json"), config+"}"))
			p.tls = ca
			p.listening()
			p.client = p.client.WithToken(admin)
			_, address, _ := strings.Cut(p.url, "://")

			w := tapped(t, p)
			r := ready("node01", "")
			r.MachineID, r.BootID, r.Secret = "aaaaaaaa-0000-4000-8000-000000000001", "boot", rand.Text()
			recorded := map[node.Phase]string{}
			for _, phase := range node.Phases[:4] {
				r.Phase, r.JoinToken = phase, ""
				if phase == node.PhaseBooted {
					r.JoinToken = token
				}
				recorded[phase] = w.report(t, r)
				if shows := strings.Contains(recorded[phase], r.Secret); shows == secure {
					t.Fatalf("the secret can be read on the way: %v", shows)
				}
			}
			replay := func(when string, phase node.Phase, want int) {
				t.Helper()
				if secure {
					want = 0
				}
				if status, err := rawRequest(address, recorded[phase]); status != want || err != nil {
					t.Errorf("%s, %s: status %d, %v, want %d", when, phase, status, err, want)
				}
			}
			before := p.get("node01")
			replay("again", node.PhaseBooted, http.StatusOK)
			replay("again", node.PhaseInstalling, http.StatusConflict)
			replay("again", node.PhaseInstalled, http.StatusOK)
			replay("again", node.PhaseReady, http.StatusOK)
			after := p.get("node01")
			if secure && !reflect.DeepEqual(before, after) {
				t.Errorf("a replay made\n%+v\nof\n%+v", after, before)
			}
			if after.State != node.Active || after.MachineID != r.MachineID || after.Phase != node.PhaseReady || after.Hold != before.Hold {
				t.Errorf("a replay made\n%+v\nof\n%+v", after, before)
			}
			w.report(t, r)

			for _, order := range []struct {
				verb node.Event
				want int
			}{{node.EventResetSecret, http.StatusUnauthorized}, {node.EventDecommission, http.StatusUnauthorized}} {
				if _, err := p.client.Operate(t.Context(), "node01", order.verb, api.OperateRequest{}); err != nil {
					t.Fatal(err)
				}
				before := p.get("node01")
				replay("after "+string(order.verb), node.PhaseReady, order.want)
				if after := p.get("node01"); !reflect.DeepEqual(before, after) {
					t.Errorf("after %s a replay made\n%+v\nof\n%+v", order.verb, after, before)
				}
			}
		})
	}
}
