package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/certtest"
	"github.com/centra/plasmacloud/deployer/node"
)

func TestParseBaseURL(t *testing.T) {
	for raw, ok := range map[string]bool{
		"http://deployer:8080": true, "https://deployer/": true, "http://[2001:db8::1]:8080/base": true, "http://10.0.0.1": true,
		"": false, "deployer:8080": false, "ftp://deployer": false, "http://": false, "http://:8080": false,
		"http://user:hunter2@deployer": false, "http://deployer/?q=1": false, "http://deployer/#x": false, "http://de ployer": false,
	} {
		_, err := ParseBaseURL(raw)
		if (err == nil) != ok {
			t.Errorf("%q: %v", raw, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

// TestStrangeAnswers: what is not a deployer's answer is an error that says so,
// and never more than a bounded amount of it is read.
func TestStrangeAnswers(t *testing.T) {
	write := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for name, test := range map[string]struct {
		answer    http.HandlerFunc
		want      string
		code      string // of an *Error
		temporary bool
	}{
		"a page":               {write(200, "text/html", "<html>"), "check the URL and any proxy", "not_a_deployer", true},
		"a proxy's error":      {write(502, "text/html", "<html>"), "502 not_a_deployer", "not_a_deployer", true},
		"a proxy's 404":        {write(404, "text/plain", "no"), "404 not_a_deployer", "not_a_deployer", false},
		"a redirect":           {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "302 not_a_deployer", "not_a_deployer", true},
		"somebody's yes":       {write(200, "application/json", `{"status":"success"}`), "about the node", "not_a_deployer", true},
		"nothing":              {write(200, "application/json", "null"), "about the node", "not_a_deployer", true},
		"broken JSON":          {write(200, "application/json", "{"), "read the answer", "", false},
		"a flood":              {write(200, "application/json", strings.Repeat(" ", maxAnswerBytes+10)), "larger than", "", false},
		"a broken problem":     {write(403, ProblemContentType, "{"), "403 not_a_deployer", "not_a_deployer", false},
		"a flood of a problem": {write(403, ProblemContentType, `{"code":"`+strings.Repeat("x", maxProblemBytes)), "not_a_deployer", "not_a_deployer", false},
		"a hostile problem":    {write(403, ProblemContentType, `{"title":"\u001b[2JNo","code":"c","detail":"a\nb"}`), "\ufffd[2JNo: a\ufffdb", "c", false},
		"busy":                 {write(429, ProblemContentType, `{"title":"Busy","code":"busy"}`), "429 busy", "busy", true},
		"too slow": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then the server sees the client leave
			<-r.Context().Done()
		}, "deadline exceeded", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(test.answer)
			defer srv.Close()
			client, err := NewClient(srv.URL, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			if name == "too slow" {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
			}
			_, err = client.PhoneHome(ctx, PhoneHomeRequest{NodeID: "node01", Phase: node.PhaseReady})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v, want %q in it", err, test.want)
			}
			var answered *Error
			if errors.As(err, &answered) != (test.code != "") {
				t.Fatalf("%#v", err)
			}
			if answered != nil && (answered.Code != test.code || answered.Temporary() != test.temporary) {
				t.Errorf("code %s, temporary %v", answered.Code, answered.Temporary())
			}
		})
	}
}

// TestWrongScheme: who takes https for http is told what to ask instead.
func TestWrongScheme(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	host := strings.TrimPrefix(plain.URL, "http://")
	c, err := NewClient("https://"+host, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, health := c.Health(t.Context())
	follow := c.Follow(t.Context(), "", nil)
	for _, err := range []error{health, follow} {
		if err == nil || !strings.Contains(err.Error(), "at http://"+host) {
			t.Errorf("%v", err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "x": 0, "99999999999": 0, "Mon, 02 Jan 2006 15:04:05 GMT": 0,
	} {
		if got := retryAfter(value); got != want {
			t.Errorf("%q is %s, want %s", value, got, want)
		}
	}
	if got := retryAfter(time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)); got < 50*time.Second || got > time.Minute {
		t.Errorf("a date in a minute is %s", got)
	}
}

// The proxies of the environment are read once in a process.
func TestMain(m *testing.M) {
	_ = os.Setenv("HTTP_PROXY", "http://proxy.example:1")
	_ = os.Setenv("HTTPS_PROXY", "http://proxy.example:2")
	m.Run()
}

// TestPlainHTTP: a proxy of the environment does not get what it could read, and who
// names a CA does not speak without it.
func TestPlainHTTP(t *testing.T) {
	withCA, err := TLSFiles{CA: certtest.New(t).File}.Transport()
	if err != nil {
		t.Fatal(err)
	}
	for _, given := range []http.RoundTripper{nil, withCA} {
		client, err := NewClient("https://deployer.example", 0, given)
		if err != nil {
			t.Fatal(err)
		}
		for raw, want := range map[string]bool{"http://deployer.example": false, "https://deployer.example": true} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, raw, nil)
			if err != nil {
				t.Fatal(err)
			}
			transport, _ := client.http.Transport.(*http.Transport)
			if proxy, err := transport.Proxy(r); err != nil || (proxy != nil) != want {
				t.Errorf("%s goes by the proxy %v, %v", raw, proxy, err)
			}
		}
	}
	if _, err := NewClient("http://deployer.example", 0, withCA); err == nil || !strings.Contains(err.Error(), "make it https://") {
		t.Errorf("plain HTTP with a CA: %v", err)
	}
}
