package bgp_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/vip"
)

// The process has no files left to open: no check can be made, and none says anything of
// what it checks. Everything stays, and the announcer says why; once there are files again
// all is as it was.
func TestFilesExhausted(t *testing.T) { gobgpdtest.Each(t, testFilesExhausted) }

func testFilesExhausted(t *testing.T, g gobgpdtest.Generation) {
	s, web := newSite(t, gobgpdtest.Config{Generation: g}), newService(t)
	dead := newService(t)
	dead.bad.Store(true)
	port := strings.TrimPrefix(web.URL, "http://127.0.0.1:")
	often := func(check object) object {
		// A busy machine is late with a program's answer, but not often.
		check["interval"], check["timeout"], check["rise"], check["fall"] = "200ms", "200ms", 1, 3
		return check
	}
	listen := fmt.Sprintf("127.0.0.1:%d", gobgpdtest.FreePort(t, "127.0.0.1"))
	s.extra = object{"metrics": object{"listen": listen}, "reconcile_interval": "100ms"}
	s.configure(
		object{"address": v4a, "checks": []object{web.check()}},
		object{"address": v4b, "checks": []object{often(object{"type": "tcp", "address": "localhost:" + port})}},
		object{"address": v4d, "hold": "route", "checks": []object{often(object{"type": "exec", "command": []string{"/bin/true"}})}},
		object{"address": v6a, "checks": []object{often(object{"type": "tcp", "address": net.JoinHostPort("127.0.0.1", port)})}},
		object{"address": v4c, "checks": []object{dead.check()}},
	)
	addForeign(t, s, "198.51.100.1")
	s.start()
	s.waitRoutes(v4a, v4b, v4d, v6a)
	s.waitLog("health changed", 5)
	// It keeps its connection, since no other is accepted then.
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}, Timeout: gobgpdtest.Wait}
	defer client.CloseIdleConnections()
	status := func() string {
		t.Helper()
		response, err := client.Get("http://" + listen + "/status")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	var before string
	s.eventually("status has what the router has", func() error {
		if before = status(); strings.Count(before, `"its check is up"`) != 4 {
			return errors.New(before)
		}
		return nil
	})

	var limit unix.Rlimit
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}, nil); err != nil {
		t.Fatal(err)
	}
	updates, removed, changes := s.router.Updates(t), s.removals(), s.count("health changed")
	s.waitLog("checks cannot be asked, and stay as they are", 1)
	for _, check := range []string{web.URL + "/healthz", "localhost:" + port, "127.0.0.1:" + port, "/bin/true"} {
		s.eventually("status says why of "+check, func() error {
			if text := status(); !strings.Contains(text, "check "+check+" cannot be asked: ") {
				return fmt.Errorf("%s", text)
			}
			return nil
		})
	}
	// What needs no new file is still done.
	if err := s.holder.Release(t.Context(), vip.Address, []netip.Addr{netip.MustParseAddr(v6a)}); err != nil {
		t.Fatal(err)
	}
	s.waitHeld(v4a, v4b, v4d, v6a)
	s.signal(syscall.SIGHUP)
	s.waitLog("reload refused; the old configuration stays", 1)
	passes := s.count("pass")
	s.waitLog("pass", passes+10)
	s.waitRoutes(v4a, v4b, v4d, v6a)
	if n := s.count("checks cannot be asked, and stay as they are"); n != 1 {
		t.Errorf("said %d times in less than a minute", n)
	}

	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	s.eventually("status is as before", func() error {
		text := status()
		for _, part := range []string{`"its check is up"`} {
			if strings.Count(text, part) != strings.Count(before, part) {
				return fmt.Errorf("%s, was %s", text, before)
			}
		}
		return nil
	})
	if n := s.router.Updates(t) - updates; n != 0 {
		t.Errorf("%d UPDATEs", n)
	}
	if n := s.count("health changed") - changes; n != 0 {
		t.Errorf("health changed %d times", n)
	}
	for _, addr := range []string{v4a, v4b, "198.51.100.1"} {
		if at, ok := removed.of(addr); ok {
			t.Errorf("%s was let go at %s", addr, at)
		}
	}
	s.signal(syscall.SIGHUP)
	s.waitLog("reloaded", 1)
	web.bad.Store(true)
	s.waitRoutes(v4b, v4d, v6a)
	dead.bad.Store(false)
	s.waitRoutes(v4b, v4c, v4d, v6a)
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if !s.held().Foreign[netip.MustParseAddr("198.51.100.1")] {
		t.Error("the stranger's address is gone")
	}
}
