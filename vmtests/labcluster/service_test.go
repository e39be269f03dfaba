package labcluster

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// Each check has its own answer and fails for itself, and clients of a VIP are answered
// whatever the checks want.
func TestService(t *testing.T) {
	t.Parallel()
	l, err := lab.New("service")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	host, err := l.Host("n")
	require.NoError(t, err)
	require.NoError(t, host.Addresses("lo", netip.MustParsePrefix("192.0.2.9/32"), netip.MustParsePrefix("203.0.113.1/32")))
	n := &Node{Host: host, ID: "n", cluster: &Cluster{}, place: place{netip.MustParseAddr("192.0.2.9")}}
	t.Cleanup(n.service.close)
	const checks = `{"vips": [{"address": "203.0.113.1", "checks": [
		{"type": "http", "url": "http://127.0.0.1:8080/healthz", "status": ["301"]},
		{"type": "http", "url": "http://127.0.0.1:8081/healthz", "body": "fine"},
		{"type": "http", "url": "http://127.0.0.1/", "status": ["204"]},
		{"type": "http", "url": "http://192.0.2.9/", "status": ["200"]},
		{"type": "tcp", "address": "localhost:8082"},
		{"type": "http", "url": "http://localhost:8082/both"}]}]}`
	text, err := n.forThisHost([]byte(checks))
	require.NoError(t, err)
	assert.Equal(t, checks, string(text), "all of it can be answered")
	require.NoError(t, n.serve())

	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return host.Dial(ctx, network, address)
		}}}
	got := func(url string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+url, nil)
		require.NoError(t, err)
		response, err := client.Do(request)
		if err != nil {
			return 0
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	well := map[string]int{"127.0.0.1:8080/healthz": 301, "127.0.0.1:8081/healthz": 200, "127.0.0.1:80/": 204, "192.0.2.9:80/": 200,
		"[::1]:80/": 204 /* as localhost has it */, "127.0.0.1:8082/both": 200, "203.0.113.1:80/": 200}
	for _, failing := range []struct {
		which string
		bad   map[string]int // in place of well
	}{
		{"127.0.0.1:8080/healthz", map[string]int{"127.0.0.1:8080/healthz": 503}},
		{"/healthz", map[string]int{"127.0.0.1:8080/healthz": 503, "127.0.0.1:8081/healthz": 503}},
		{"/", map[string]int{"127.0.0.1:80/": 503, "[::1]:80/": 503, "192.0.2.9:80/": 503}},
		{"localhost:8082", map[string]int{"127.0.0.1:8082/both": 0}},
		{"", map[string]int{"127.0.0.1:8080/healthz": 503, "127.0.0.1:8081/healthz": 503, "127.0.0.1:80/": 503, "[::1]:80/": 503, "192.0.2.9:80/": 503,
			"127.0.0.1:8082/both": 0, "203.0.113.1:80/": 503}},
	} {
		for url, status := range well {
			assert.Equal(t, status, got(url), "%s before %q fails", url, failing.which)
		}
		require.NoError(t, n.Fail(failing.which, true))
		for url, status := range well {
			if bad, is := failing.bad[url]; is {
				status = bad
			}
			assert.Equal(t, status, got(url), "%s when %q fails", url, failing.which)
		}
		require.NoError(t, n.Fail(failing.which, false))
	}
	assert.ErrorContains(t, n.Fail("/nothing", true), "no check of n asks /nothing; they ask: 127.0.0.1:80/, 127.0.0.1:8080/healthz")
	assert.NotContains(t, n.Asked(), "203.0.113.1:80/", "a client is no check")
	assert.Contains(t, n.Asked(), "127.0.0.1:8081/healthz")

	// What asks no more is not waited for.
	_, err = n.forThisHost([]byte(strings.Replace(checks, "8081/healthz", "8081/new", 1)))
	require.NoError(t, err)
	assert.NotContains(t, n.Asked(), "127.0.0.1:8081/healthz")
}
