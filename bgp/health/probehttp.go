package health

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
)

// maxBody is how much of an HTTP answer is read, in bytes; the rest is left.
const maxBody = 64 << 10

func probeHTTP(ctx context.Context, c Check, dialer *net.Dialer) error {
	trust, err := c.tlsConfig()
	if err != nil {
		return err
	}
	// A transport of its own: a connection kept from a probe before would hide
	// that the service accepts no new ones, and no proxy may answer for it.
	transport := &http.Transport{
		DialContext:            dialer.DialContext,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxBody,
		TLSClientConfig:        trust,
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return err
	}
	req.Host = c.Host // "": that of the URL
	req.Header.Set("User-Agent", "plasmacloud-announcer")
	for words := c.Headers.Words(); len(words) >= 2; words = words[2:] {
		req.Header.Set(words[0], words[1])
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if len(via) > c.Redirects {
			return http.ErrUseLastResponse
		}
		if !strings.EqualFold(next.URL.Hostname(), via[0].URL.Hostname()) {
			return fmt.Errorf("leads to another host, %s", quote(next.URL.Hostname()))
		}
		return nil
	}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !c.Status.Has(resp.StatusCode) {
		return fmt.Errorf("answers %d, want %s", resp.StatusCode, c.Status)
	}
	if err := checkBody(c, io.LimitReader(resp.Body, maxBody)); err != nil {
		return fmt.Errorf("answers %d, and its body %w", resp.StatusCode, err)
	}
	return nil
}

func checkBody(c Check, body io.Reader) error {
	var read bytes.Buffer
	to := io.Discard
	if c.Body != "" || c.BodyRegex != "" {
		to = &read
	}
	if _, err := io.Copy(to, body); err != nil {
		return fmt.Errorf("breaks off: %w", err)
	}
	if !bytes.Contains(read.Bytes(), []byte(c.Body)) {
		return fmt.Errorf("does not have %s", quote(c.Body))
	}
	if c.BodyRegex == "" {
		return nil
	}
	wanted, err := regexp.Compile(c.BodyRegex)
	if err == nil && !wanted.Match(read.Bytes()) {
		err = fmt.Errorf("does not match %s", quote(c.BodyRegex))
	}
	return err
}
