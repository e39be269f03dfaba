package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
)

// maxBody is how much of an HTTP answer is read, in bytes; the rest is left.
const maxBody = 64 << 10

// Probe asks once. A nil error is a good answer; the text of any other says what
// was wrong, for people. ctx bounds the whole of it.
func Probe(ctx context.Context, c Check) error {
	dialer := &net.Dialer{ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		return refuseOwnVIP(c.NotAddr, address)
	}}
	switch c.Kind {
	case TCP:
		conn, err := dialer.DialContext(ctx, "tcp", c.Address)
		if err != nil {
			return err
		}
		return conn.Close()
	case HTTP:
		return probeHTTP(ctx, c.URL, dialer)
	default:
		return fmt.Errorf("no such type of check: %q", c.Kind)
	}
}

func probeHTTP(ctx context.Context, url string, dialer *net.Dialer) error {
	// A transport of its own: a connection kept from a probe before would hide
	// that the service accepts no new ones, and no proxy may answer for it.
	transport := &http.Transport{
		DialContext:       dialer.DialContext,
		DisableKeepAlives: true,
		// The question is whether the service works; who it is, its users verify.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "plasmacloud-announcer")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("answers %d, want 2xx", resp.StatusCode)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)); err != nil {
		return fmt.Errorf("answers %d, and its body breaks off: %w", resp.StatusCode, err)
	}
	return nil
}

var errOwnVIP = errors.New("leads to the VIP itself, which is held only while it is announced")

func refuseOwnVIP(vip netip.Addr, address string) error {
	if !vip.IsValid() {
		return nil
	}
	to, err := netip.ParseAddrPort(address)
	if err == nil && to.Addr().WithZone("").Unmap() == vip {
		return errOwnVIP
	}
	return nil
}
