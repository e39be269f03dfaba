package phonehome

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// script answers the requests one after the other; its last line goes on.
type script struct {
	t       *testing.T
	answers []answer
	at      []time.Duration // when each request came, since the first
	started time.Time
	last    api.PhoneHomeRequest

	token, secret string // that the last one brought
	acks          int    // requests that acknowledge
}

type answer struct {
	status  int // 0: the connection fails
	header  http.Header
	body    any
	hangs   bool
	because func() // runs before the answer
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	if len(s.at) == 0 {
		s.started = time.Now()
	}
	s.at = append(s.at, time.Since(s.started))
	if r.URL.String() != "http://deployer:8080/api/v1/phone-home" || r.Method != http.MethodPost {
		s.t.Errorf("asked for %s %s", r.Method, r.URL)
	}
	s.last = api.PhoneHomeRequest{}
	s.token, s.secret = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), r.Header.Get(node.SecretHeader)
	if err := json.NewDecoder(r.Body).Decode(&s.last); err != nil {
		s.t.Error(err)
	}
	if s.last.Acknowledges != "" {
		s.acks++
	}
	a := s.answers[min(len(s.at), len(s.answers))-1]
	if a.because != nil {
		a.because()
	}
	if a.hangs {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if a.status == 0 {
		return nil, errors.New("connection refused")
	}
	body, _ := json.Marshal(a.body)
	header := a.header
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/json")
	if _, ok := a.body.(api.Problem); ok {
		header.Set("Content-Type", api.ProblemContentType)
	}
	return &http.Response{StatusCode: a.status, Header: header, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
}

func accepts(state node.State, seconds int) answer {
	return answer{status: 200, body: api.PhoneHomeResponse{
		NodeID: "node01", State: state, Message: string(state), HeartbeatIntervalSeconds: seconds,
	}}
}

func refuses(status int, code string, header ...string) answer {
	a := answer{status: status, body: api.Problem{Title: "No", Status: status, Detail: "because of " + code, Code: code}}
	if len(header) > 0 {
		a.header = http.Header{"Retry-After": header}
	}
	return a
}

var unreached = answer{}

// testConfig is a Config for s, whose log goes to the buffer.
func testConfig(t *testing.T, s *script) (Config, *bytes.Buffer) {
	path := filepath.Join(t.TempDir(), "cluster-config.json")
	if err := os.WriteFile(path, []byte(goodConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &bytes.Buffer{}
	return Config{
		ConfigPath: path, MachineID: "4c4c4544-0044-4a10-8052-b4c04f503532", Attempts: 5, Timeout: 5 * time.Second,
		Root: t.TempDir(), Transport: s, SecretFile: filepath.Join(filepath.Dir(path), "secret"), Logger: slog.New(slog.NewTextHandler(log, nil)),
	}, log
}

// TestAcknowledges: a node says once that it has heard that it is decommissioned, and
// again when that was lost, or it is decommissioned anew.
func TestAcknowledges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ok, out, heard := accepts(node.Active, 10), refuses(403, node.CodeDecommissioned), accepts(node.Decommissioned, 10)
		ctx, cancel := context.WithCancel(t.Context())
		s := &script{t: t, answers: []answer{ok, out, unreached, out, heard, out, out, ok, out, heard, {status: 200, because: cancel}}}
		cfg, log := testConfig(t, s)
		cfg.Heartbeat = true
		if err := Run(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		if s.acks != 3 {
			t.Errorf("%d acknowledgements, want one that is lost and two\n%s", s.acks, log)
		}
		if !strings.Contains(log.String(), "this node is decommissioned, and the deployer knows") {
			t.Error(log)
		}

		s = &script{t: t, answers: []answer{out, heard}}
		cfg, _ = testConfig(t, s)
		var refused *api.Error
		if err := Run(t.Context(), cfg); !errors.As(err, &refused) || refused.Code != node.CodeDecommissioned || s.acks != 1 {
			t.Errorf("the first report: %v, %d acknowledgements", err, s.acks)
		}
	})
}

func TestJoin(t *testing.T) {
	ok := accepts(node.Active, 10)
	for name, test := range map[string]struct {
		answers  []answer
		attempts int
		requests int
		err      string        // "" for accepted
		least    time.Duration // until the last request
		most     time.Duration
	}{
		"at once":               {[]answer{ok}, 5, 1, "", 0, 0},
		"at the third":          {[]answer{unreached, unreached, ok}, 5, 3, "", 0, 3 * time.Second},
		"given up":              {[]answer{unreached}, 5, 5, "not reached in 5 attempts", 0, 15 * time.Second},
		"given up at once":      {[]answer{unreached}, 1, 1, "not reached in 1 attempts", 0, 0},
		"without end":           {append(repeat(unreached, 50), ok), 0, 51, "", 0, 50 * 30 * time.Second},
		"refused":               {[]answer{refuses(403, "unknown_node")}, 5, 1, "403 unknown_node", 0, 0},
		"refused without end":   {[]answer{refuses(409, "machine_conflict")}, 0, 1, "because of machine_conflict", 0, 0},
		"refused after a while": {[]answer{unreached, refuses(400, "bad_request")}, 5, 2, "bad_request", 0, time.Second},
		"busy":                  {[]answer{refuses(503, "busy"), ok}, 5, 2, "", 0, time.Second},
		"busy, told how long":   {[]answer{refuses(503, "busy", "20"), ok}, 5, 2, "", 20 * time.Second, 21 * time.Second},
		"too many requests":     {[]answer{refuses(429, "slow_down", "7"), ok}, 5, 2, "", 7 * time.Second, 8 * time.Second},
		"request timeout":       {[]answer{refuses(408, "x"), ok}, 5, 2, "", 0, time.Second},
		"told to wait a year":   {[]answer{refuses(503, "busy", "31536000"), ok}, 5, 2, "", maxRetryAfter, maxRetryAfter + time.Second},
		"hangs":                 {[]answer{{hangs: true}, ok}, 5, 2, "", 5 * time.Second, 6 * time.Second},
		"a proxy's page":        {[]answer{{status: 502, header: http.Header{}, body: "<html>"}, ok}, 5, 2, "", 0, time.Second},
		"a redirect":            {[]answer{{status: 302, header: http.Header{"Location": {"http://elsewhere/"}}, body: ""}}, 2, 2, "not a deployer's", 0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{t: t, answers: test.answers}
				cfg, log := testConfig(t, s)
				cfg.Attempts = test.attempts
				var accepted int
				cfg.Accepted = func(api.PhoneHomeResponse) { accepted++ }
				err := Run(t.Context(), cfg)
				if test.err == "" {
					if err != nil || accepted != 1 {
						t.Fatalf("%v, accepted %d times\n%s", err, accepted, log)
					}
				} else if err == nil || !strings.Contains(err.Error(), test.err) || accepted != 0 {
					t.Fatalf("%v, accepted %d times; want %q", err, accepted, test.err)
				}
				if errors.Is(err, ErrGaveUp) != strings.Contains(test.err, "attempts") && test.attempts != 2 {
					t.Errorf("%v", err)
				}
				took := s.at[len(s.at)-1]
				if len(s.at) != test.requests || took < test.least || took > test.most {
					t.Errorf("%d requests in %s, want %d in %s to %s", len(s.at), took, test.requests, test.least, test.most)
				}
			})
		})
	}
}

func repeat(a answer, n int) []answer {
	all := make([]answer, n)
	for i := range all {
		all[i] = a
	}
	return all
}

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{t: t, answers: []answer{accepts(node.Failed, 10)}}
		cfg, _ := testConfig(t, s)
		cfg.Phase, cfg.Error = node.PhaseFailed, "no disk"
		if err := Run(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		r := s.last
		if r.NodeID != "node01" || r.Role != "control-plane" || r.IP != "10.0.0.11" || r.MachineID != cfg.MachineID ||
			!node.ValidConfigHash(r.ConfigHash) || r.Phase != node.PhaseFailed || r.Error != "no disk" || r.Facts["arch"] == "" {
			t.Errorf("%+v", r)
		}
	})
}

// TestFullJitter: nodes that lost the deployer together do not come back together.
func TestFullJitter(t *testing.T) {
	for failures, bound := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 6: 30 * time.Second, 1000: 30 * time.Second} {
		var low, high int
		for range 1000 {
			switch wait := backoff(failures, nil); {
			case wait < 0 || wait >= bound:
				t.Fatalf("after %d failures: %s, want less than %s", failures, wait, bound)
			case wait < bound/4:
				low++
			case wait > bound*3/4:
				high++
			}
		}
		if low < 100 || high < 100 {
			t.Errorf("after %d failures: %d waits in the first quarter and %d in the last of 1000", failures, low, high)
		}
	}
}

func TestInterval(t *testing.T) {
	for seconds, want := range map[int]time.Duration{
		-5: time.Second, 0: time.Second, 10: 10 * time.Second, 1 << 40: time.Hour,
	} {
		for range 100 {
			got := interval(api.PhoneHomeResponse{HeartbeatIntervalSeconds: seconds})
			if got < want*9/10 || got > want*11/10 {
				t.Fatalf("told %d seconds: %s, want %s give or take a tenth", seconds, got, want)
			}
		}
	}
}

// TestUntilRetry: who failed stays until the deployer calls it otherwise, whatever comes between.
func TestUntilRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{t: t, answers: []answer{
			unreached, accepts(node.Failed, 10), accepts(node.Failed, 10), unreached, refuses(409, "machine_conflict"),
			accepts(node.Failed, 10), accepts(node.Provisioning, 10),
		}}
		cfg, _ := testConfig(t, s)
		cfg.Phase, cfg.Error, cfg.UntilRetry, cfg.Attempts = node.PhaseFailed, "no disk", true, 0
		if err := Run(t.Context(), cfg); err != nil || len(s.at) != len(s.answers) {
			t.Errorf("%v after %d of %d answers", err, len(s.at), len(s.answers))
		}
	})
	synctest.Test(t, func(t *testing.T) { // nobody says that it may go on
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		cfg, _ := testConfig(t, &script{t: t, answers: repeat(accepts(node.Failed, 10), 10)})
		cfg.Phase, cfg.Error, cfg.UntilRetry = node.PhaseFailed, "no disk", true
		if err := Run(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("interrupted: %v", err)
		}
	})
}

// TestHeartbeat lives through what a node's day may bring, and its log has one
// line for each thing that became different.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := &script{t: t}
		cfg, log := testConfig(t, s)
		cfg.Heartbeat, cfg.Attempts = true, 0
		firstHash := ""
		s.answers = append(s.answers, unreached, unreached, accepts(node.Active, 10))
		s.answers = append(s.answers, repeat(accepts(node.Active, 10), 20)...)
		s.answers = append(s.answers, repeat(unreached, 10)...) // the deployer restarts
		s.answers = append(s.answers, repeat(accepts(node.Active, 10), 5)...)
		s.answers = append(s.answers, repeat(refuses(409, "machine_conflict"), 5)...)
		changed := accepts(node.Active, 10)
		changed.because = func() {
			firstHash = s.last.ConfigHash
			if err := os.WriteFile(cfg.ConfigPath, []byte(goodConfig+"\n"), 0o600); err != nil {
				t.Error(err)
			}
		}
		s.answers = append(s.answers, changed)
		broken := accepts(node.Active, 10)
		broken.because = func() {
			if s.last.ConfigHash == firstHash {
				t.Error("the new configuration is not reported")
			}
			if err := os.WriteFile(cfg.ConfigPath, []byte("{"), 0o600); err != nil {
				t.Error(err)
			}
		}
		s.answers = append(s.answers, broken)
		s.answers = append(s.answers, repeat(accepts(node.Active, 10), 5)...)
		end := accepts(node.Active, 10)
		end.because = func() {
			if s.last.ConfigHash == "" {
				t.Error("a broken file took the old configuration away")
			}
			stop()
		}
		s.answers = append(s.answers, end)

		if err := Run(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		if len(s.at) != len(s.answers) {
			t.Errorf("%d requests, want %d", len(s.at), len(s.answers))
		}
		var messages []string
		for line := range strings.Lines(log.String()) {
			_, rest, _ := strings.Cut(line, "level=")
			level, rest, _ := strings.Cut(rest, " msg=")
			message := strings.SplitN(rest, `"`, 3)
			if rest[0] == '"' {
				rest = message[1]
			} else {
				rest, _, _ = strings.Cut(rest, " ")
			}
			messages = append(messages, level+" "+rest)
		}
		want := []string{
			"WARN not reached, trying again", "WARN not reached, trying again", "INFO accepted",
			"WARN deployer not reached, trying again without end", "INFO heartbeat",
			"ERROR heartbeat refused", "INFO heartbeat", "ERROR cluster config not read again, reporting the old one",
		}
		if fmt.Sprint(messages) != fmt.Sprint(want) {
			t.Errorf("logged\n%s\nwant\n%s\n%s", strings.Join(messages, "\n"), strings.Join(want, "\n"), log)
		}
	})
}

func TestHeartbeatEnds(t *testing.T) {
	for name, answers := range map[string][]answer{
		"while it waits":       {accepts(node.Active, 3600)},
		"before it is heard":   {unreached},
		"in a hanging request": {accepts(node.Active, 1), {hangs: true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				defer stop()
				cfg, _ := testConfig(t, &script{t: t, answers: answers})
				cfg.Heartbeat, cfg.Attempts = true, 0
				if err := Run(ctx, cfg); err != nil {
					t.Errorf("ended by its context: %v", err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		cfg, _ := testConfig(t, &script{t: t, answers: []answer{refuses(403, "unknown_node")}})
		cfg.Heartbeat, cfg.Attempts = true, 0
		var refused *api.Error
		if err := Run(t.Context(), cfg); !errors.As(err, &refused) || refused.Code != "unknown_node" {
			t.Errorf("refused before it was ever accepted: %v", err)
		}
	})
}

func TestConfigErrors(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no file":      {func(c *Config) { c.ConfigPath = "/nowhere.json" }, "/nowhere.json"},
		"bad url":      {func(c *Config) { c.DeployerURL = "ftp://deployer" }, "want a base URL"},
		"no url":       {func(c *Config) { write(t, c.ConfigPath, strings.Replace(goodConfig, "http://deployer:8080", "", 1)) }, "--deployer-url"},
		"shared id":    {func(c *Config) { c.MachineID = "ffffffff-ffff-ffff-ffff-ffffffffffff" }, "cannot tell this machine from others"},
		"other schema": {func(c *Config) { write(t, c.ConfigPath, `{"schema_version":9}`) }, "schema_version"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{t: t, answers: []answer{accepts(node.Active, 1)}}
			cfg, _ := testConfig(t, s)
			test.change(&cfg)
			err := Run(t.Context(), cfg)
			var config *ConfigError
			if !errors.As(err, &config) || !strings.Contains(err.Error(), test.want) || len(s.at) > 0 {
				t.Errorf("%v after %d requests, want %q", err, len(s.at), test.want)
			}
		})
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFirstHeartbeat: those of nodes that joined together come all over the interval.
func TestFirstHeartbeat(t *testing.T) {
	var quarters [4]int
	for range 1000 {
		wait := first(9 * time.Second)
		if wait < time.Second || wait >= 9*time.Second {
			t.Fatalf("%s of 9s", wait)
		}
		quarters[(wait-time.Second)/(2*time.Second)]++
	}
	for i, n := range quarters {
		if n < 150 {
			t.Errorf("%d of 1000 in quarter %d", n, i)
		}
	}
	if wait := first(900 * time.Millisecond); wait != time.Second {
		t.Errorf("%s of the shortest interval", wait)
	}
}
