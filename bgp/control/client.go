package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// Client asks an announcer at its socket.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient prepares a client; it connects with each request.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: timeout}}
}

// State asks how the VIPs stand.
func (c *Client) State(ctx context.Context) (s State, err error) {
	return s, c.ask(ctx, http.MethodGet, "/v1/state", nil, &s)
}

// Offered asks which routers have a VIP's path on offer.
func (c *Client) Offered(ctx context.Context, vip string) (o Offered, err error) {
	return o, c.ask(ctx, http.MethodGet, "/v1/offered?vip="+url.QueryEscape(vip), nil, &o)
}

// Drain gives an order.
func (c *Client) Drain(ctx context.Context, o Order) (s State, err error) {
	return s, c.order(ctx, "/v1/drain", o, &s)
}

// Undrain takes one back.
func (c *Client) Undrain(ctx context.Context, o Order) (s State, err error) {
	return s, c.order(ctx, "/v1/undrain", o, &s)
}

// Plan asks what is to be done; with a candidate, an announcer.json, what would be.
func (c *Client) Plan(ctx context.Context, candidate []byte) (p Plan, err error) {
	if candidate == nil {
		return p, c.ask(ctx, http.MethodGet, "/v1/plan", nil, &p)
	}
	return p, c.ask(ctx, http.MethodPost, "/v1/plan", candidate, &p)
}

func (c *Client) order(ctx context.Context, path string, o Order, answer any) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return c.ask(ctx, http.MethodPost, path, body, answer)
}

func (c *Client) ask(ctx context.Context, method, path string, body []byte, answer any) error {
	response, err := c.open(ctx, c.http, method, path, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, answer)
}

// maxAnswer is how much of an answer is read, in bytes; 100,000 VIPs have tens of MiB.
const maxAnswer = 256 << 20

// open returns a good answer; any other is an error, a *Problem if the announcer said so.
func (c *Client) open(ctx context.Context, client *http.Client, method, path string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://announcer"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("no announcer listens at %s; start it, or name its socket", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s is not for you; be root", c.socket)
	case err != nil:
		return nil, err
	case response.StatusCode == http.StatusOK:
		return response, nil
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxLine))
	if err != nil {
		return nil, err
	}
	problem := &Problem{Status: response.StatusCode}
	if json.Unmarshal(data, problem) != nil || problem.Text == "" {
		problem.Text = response.Status
	}
	return nil, problem
}
