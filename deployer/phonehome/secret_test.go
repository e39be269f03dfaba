package phonehome

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/secretfile"
)

func TestMakeSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "secret")
	if secret, err := readSecret(path); err != nil || secret != "" {
		t.Fatalf("%q, %v", secret, err)
	}
	// Two that start at once, a service and an installer, are one node.
	var wg sync.WaitGroup
	made := make([]string, 8)
	for i := range made {
		wg.Go(func() {
			var err error
			if made[i], err = makeSecret(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	kept, err := readSecret(path)
	if err != nil || len(kept) != 43 {
		t.Fatalf("%q, %v", kept, err)
	}
	for _, secret := range made {
		if secret != kept {
			t.Errorf("made %q, kept %q", secret, kept)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

// TestProve: what a report brings, and that nothing of it is logged.
func TestProve(t *testing.T) {
	const joinToken = "join-token-join-token-join"
	for name, test := range map[string]struct {
		token  string // content of the file; "-" is no file, "" no flag
		secret string // the same of the secret's file
		brings string // token+secret, "new" is a secret that was made
		fails  string
	}{
		"nothing":                     {"", "-", "+", ""},
		"a token":                     {joinToken, "-", joinToken + "+new", ""},
		"a token and a secret":        {joinToken, strings.Repeat("s", 43), joinToken + "+" + strings.Repeat("s", 43), ""},
		"a secret":                    {"", strings.Repeat("s", 43), "+" + strings.Repeat("s", 43), ""},
		"a secret, the token is gone": {"-", strings.Repeat("s", 43), "+" + strings.Repeat("s", 43), ""},
		"no token":                    {"-", "-", "", "join token: open"},
		"a torn secret":               {joinToken, "torn", "", "If it is torn, delete it"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{t: t, answers: []answer{accepts(node.Active, 10)}}
			cfg, log := testConfig(t, s)
			file := func(name, content string) string {
				path := filepath.Join(t.TempDir(), name)
				switch content {
				case "":
					return ""
				case "-":
				default:
					if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				return path
			}
			cfg.JoinTokenFile, cfg.SecretFile = file("token", test.token), file("secret", test.secret)
			err := Run(t.Context(), cfg)
			if test.fails != "" {
				var config *ConfigError
				if err == nil || !strings.Contains(err.Error(), test.fails) || !errors.As(err, &config) || len(s.at) > 0 {
					t.Errorf("%v after %d requests, want %q", err, len(s.at), test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			brought := s.token + "+" + s.secret
			if kept, _ := secretfile.Token(cfg.SecretFile); strings.HasSuffix(test.brings, "+new") && kept != "" {
				brought = strings.TrimSuffix(brought, kept) + "new"
			}
			if brought != test.brings {
				t.Errorf("brings %q, want %q", brought, test.brings)
			}
			if plain := strings.Contains(log.String(), "plain HTTP"); plain != (s.secret != "") {
				t.Errorf("warned of plain HTTP: %v", plain)
			}
			if s.secret != "" && strings.Contains(log.String(), s.secret) || strings.Contains(log.String(), joinToken) {
				t.Errorf("the log shows it:\n%s", log)
			}
		})
	}
}

// TestSecretCannotBeKept: a node that cannot keep a secret says so, and does not
// join with one that the next boot has forgotten.
func TestSecretCannotBeKept(t *testing.T) {
	s := &script{t: t, answers: []answer{accepts(node.Active, 10)}}
	cfg, _ := testConfig(t, s)
	cfg.JoinTokenFile = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(cfg.JoinTokenFile, []byte("join-token-join-token-join"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.SecretFile = "/proc/self/secret"
	cfg.Logger = slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil))
	if err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "make the node's secret: ") || len(s.at) > 0 {
		t.Errorf("%v, %d requests", err, len(s.at))
	}
}

// TestNewToken: a token that is replaced is used at the next heartbeat, so that a
// node that was reset joins anew by itself.
func TestNewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		token := filepath.Join(t.TempDir(), "token")
		write := func(name string) {
			if err := os.WriteFile(token, []byte(strings.Repeat(name, 30)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("1")
		var secret, config string
		s := &script{t: t}
		expired := refuses(401, node.CodeJoinTokenExpired)
		expired.because = func() {
			secret = s.secret
			write("2")
			if err := os.Remove(config); err != nil { // an ISO may unmount it
				t.Error(err)
			}
		}
		last := accepts(node.Active, 10)
		last.because = cancel
		s.answers = []answer{accepts(node.Active, 10), expired, last}
		cfg, log := testConfig(t, s)
		cfg.Heartbeat, cfg.JoinTokenFile, config = true, token, cfg.ConfigPath
		if err := Run(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		if s.token != strings.Repeat("2", 30) || s.secret != secret || !strings.Contains(log.String(), "code=join_token_expired") {
			t.Errorf("the last report brought %q and %q\n%s", s.token, s.secret, log)
		}
	})
}
