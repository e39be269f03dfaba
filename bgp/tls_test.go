package bgp_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
)

// waitSaid returns when the log has a line with that message and a part of its error.
func (s *site) waitSaid(msg, part string) {
	s.t.Helper()
	s.eventually("log says "+part, func() error {
		for _, l := range s.logged() {
			if l.Msg == msg && strings.Contains(l.Error, part) {
				return nil
			}
		}
		return os.ErrNotExist
	})
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A speaker at a Unix socket, over TLS: the announcer starts with the wrong CA, keeps
// on trying, and needs no restart; nor does it when the speaker dies and comes back.
func TestSpeakerAtUnixSocket(t *testing.T) { gobgpdtest.Each(t, testSpeakerAtUnixSocket) }

func testSpeakerAtUnixSocket(t *testing.T, g gobgpdtest.Generation) {
	authority := gobgpdtest.NewAuthority(t)
	cert, key := authority.Issue("server", time.Now().Add(time.Hour))
	s := newSite(t, gobgpdtest.Config{Generation: g, Unix: true, Args: []string{"--tls", "--tls-cert-file", cert, "--tls-key-file", key}})
	ca := t.TempDir() + "/ca.pem"
	copyFile(t, gobgpdtest.NewAuthority(t).CA, ca)
	s.extra = object{"speaker": object{"address": s.daemon.API, "timeout": "500ms", "tls": object{"ca": ca, "server_name": "gobgpd.example"}}}
	s.configure(object{"address": v4a})
	s.start()
	s.waitSaid("speaker not ready", "TLS with the speaker fails: "+s.daemon.API)
	copyFile(t, authority.CA, ca)
	s.waitRoutes(v4a)
	s.daemon.Kill()
	s.waitSaid("speaker not ready", "speaker is not running")
	s.daemon.Run()
	s.waitLog("announced", 2)
}
