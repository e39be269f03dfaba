package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/centra/plasmacloud/deployer/node"
)

// How much of an answer the client reads.
const (
	maxAnswerBytes  = 1 << 20   // about one node
	maxListBytes    = 256 << 20 // about all of them
	maxProblemBytes = 64 << 10
)

// Client talks to one deployer. Its zero value is not usable; see NewClient.
type Client struct {
	base  *url.URL
	http  *http.Client
	token string // an operator's
}

// NewClient is a client for the deployer at baseURL, for example
// "http://deployer:8080". timeout bounds each request and its answer; 0 leaves
// that to the context. transport nil is that of TLSFiles without files.
func NewClient(baseURL string, timeout time.Duration, transport http.RoundTripper) (*Client, error) {
	base, err := ParseBaseURL(baseURL)
	if err != nil {
		return nil, err
	}
	if transport == nil {
		transport = shared
	}
	if own, ok := transport.(*http.Transport); ok && own.TLSClientConfig != nil && own.TLSClientConfig.RootCAs != nil && base.Scheme == "http" {
		return nil, fmt.Errorf("deployer URL %q: plain HTTP beside a CA's file, which nothing would be held to; make it https://", baseURL)
	}
	return &Client{base: base, http: &http.Client{
		Transport: transport,
		Timeout:   timeout,
		// The deployer never redirects; following one would carry a node's report elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// WithToken is c for the operator that token belongs to, "" for nobody.
func (c *Client) WithToken(token string) *Client {
	with := *c
	with.token = token
	return &with
}

// ParseBaseURL checks the base URL of a deployer: http or https, a host, and
// neither user, query nor fragment.
func ParseBaseURL(raw string) (*url.URL, error) {
	base, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("deployer URL: %w", err)
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Hostname() == "" ||
		base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("deployer URL %q: want a base URL like http://deployer:8080", base.Redacted())
	}
	return base, nil
}

// PhoneHome reports to the deployer. An answer that is no success is a *Error.
func (c *Client) PhoneHome(ctx context.Context, request PhoneHomeRequest) (PhoneHomeResponse, error) {
	var response PhoneHomeResponse
	body, err := json.Marshal(request)
	if err != nil {
		return response, fmt.Errorf("encode the report: %w", err)
	}
	headers := http.Header{}
	if request.Secret != "" {
		headers.Set(node.SecretHeader, request.Secret)
	}
	if request.JoinToken != "" {
		headers.Set("Authorization", "Bearer "+request.JoinToken)
	}
	err = c.do(ctx, http.MethodPost, PathPhoneHome, nil, headers, body, maxAnswerBytes, &response)
	if err == nil && response.NodeID != request.NodeID {
		// Anything that answers {} to all: an installer must not take that for a yes.
		return PhoneHomeResponse{}, &Error{Problem: Problem{
			Status: http.StatusOK, Code: "not_a_deployer", Title: "No answer to this report",
			Detail: fmt.Sprintf("the answer of %s is about the node %q; check the URL and any proxy on the way", c.base.Host, printable(response.NodeID)),
		}}
	}
	return response, err
}

// List returns all nodes by ascending id, without their history. With an error it returns
// those that came before it.
func (c *Client) List(ctx context.Context) ([]Node, error) {
	all := []Node{}
	for after := ""; ; {
		var list NodeList
		if err := c.do(ctx, http.MethodGet, PathNodes, page(after), c.bearer(), nil, maxListBytes, &list); err != nil {
			return all, err
		}
		all = append(all, list.Nodes...)
		if list.Next <= after { // at the end, or no deployer's
			return all, nil
		}
		after = list.Next
	}
}

// Get returns one node with its history.
func (c *Client) Get(ctx context.Context, id string) (Node, error) {
	var n Node
	err := c.do(ctx, http.MethodGet, PathNodes+"/"+url.PathEscape(id), nil, c.bearer(), nil, maxAnswerBytes, &n)
	return n, err
}

// Status returns the fleet at a glance.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodGet, PathStatus, nil, c.bearer(), nil, maxAnswerBytes, &s)
	return s, err
}

// Operate does one of node.Verbs to a node, and returns the node as it is then.
func (c *Client) Operate(ctx context.Context, id string, verb node.Event, order OperateRequest) (Node, error) {
	var n Node
	body, err := json.Marshal(order)
	if err != nil {
		return n, fmt.Errorf("encode the order: %w", err)
	}
	path := PathNodes + "/" + url.PathEscape(id) + "/" + string(verb)
	err = c.do(ctx, http.MethodPost, path, nil, c.bearer(), body, maxAnswerBytes, &n)
	return n, err
}

// Tokens returns the join tokens by ascending name.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	var list TokenList
	err := c.do(ctx, http.MethodGet, PathTokens, nil, c.bearer(), nil, maxListBytes, &list)
	return list.Tokens, err
}

// CreateToken makes a join token, and is the one chance to read it.
func (c *Client) CreateToken(ctx context.Context, wanted TokenRequest) (NewToken, error) {
	var made NewToken
	body, err := json.Marshal(wanted)
	if err != nil {
		return made, fmt.Errorf("encode the token: %w", err)
	}
	err = c.do(ctx, http.MethodPost, PathTokens, nil, c.bearer(), body, maxAnswerBytes, &made)
	return made, err
}

// RevokeToken takes a join token away.
func (c *Client) RevokeToken(ctx context.Context, name string) error {
	var none struct{}
	return c.do(ctx, http.MethodDelete, PathTokens+"/"+url.PathEscape(name), nil, c.bearer(), nil, maxAnswerBytes, &none)
}

// Audit returns the entries of the audit log after the cursor, oldest first; "" is from
// the oldest on that is kept.
func (c *Client) Audit(ctx context.Context, after string) (AuditLog, error) {
	var log AuditLog
	err := c.do(ctx, http.MethodGet, PathAudit, cursor(after), c.bearer(), nil, maxListBytes, &log)
	return log, err
}

// Health asks whether the deployer can do its work. A deployer that says that it
// cannot is a Health with its reason and no error.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	err := c.do(ctx, http.MethodGet, PathHealth, nil, nil, nil, maxAnswerBytes, &h)
	return h, err
}

func (c *Client) bearer() http.Header {
	if c.token == "" {
		return nil
	}
	return http.Header{"Authorization": {"Bearer " + c.token}}
}

func (c *Client) request(ctx context.Context, method, path string, query url.Values, headers http.Header, body []byte) (*http.Request, error) {
	at := c.base.JoinPath(path)
	at.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for key, values := range headers {
		request.Header[key] = values
	}
	request.Header.Set("Accept", "application/json, "+ProblemContentType)
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/json")
	}
	return request, nil
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, headers http.Header, body []byte, limit int64, into any) error {
	request, err := c.request(ctx, method, path, query, headers, body)
	if err != nil {
		return err
	}
	response, err := send(c.http, request)
	if err != nil {
		return err // names the method and the URL
	}
	defer response.Body.Close()
	_, health := into.(*Health)
	answered := response.StatusCode == http.StatusOK || health && response.StatusCode == http.StatusServiceUnavailable
	if !answered || mediaType(response) != "application/json" {
		return problem(response)
	}
	data, err := readLimited(response.Body, limit)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, request.URL, err)
	}
	return nil
}

func send(client *http.Client, request *http.Request) (*http.Response, error) {
	response, err := client.Do(request)
	if errors.Is(err, http.ErrSchemeMismatch) {
		err = fmt.Errorf("%w; a deployer that has no tls is at http://%s", err, request.URL.Host)
	}
	return response, believed(err)
}

// problem turns an answer that is not what was asked for into an *Error. One that
// is not a problem of the deployer, a proxy's page for instance, still says its status.
func problem(response *http.Response) error {
	e := &Error{RetryAfter: retryAfter(response.Header.Get("Retry-After"))}
	if mediaType(response) == ProblemContentType {
		data, err := readLimited(response.Body, maxProblemBytes)
		if err == nil {
			err = json.Unmarshal(data, &e.Problem)
		}
		if err != nil {
			e.Problem = Problem{}
		}
		e.Title, e.Detail, e.Code = printable(e.Title), printable(e.Detail), printable(e.Code)
	}
	e.Status = response.StatusCode
	if e.Title == "" {
		e.Title = http.StatusText(response.StatusCode)
	}
	if e.Code == "" {
		e.Code = "not_a_deployer"
		e.Detail = fmt.Sprintf("the answer of %s is not a deployer's: status %d, %q; check the URL and any proxy on the way",
			response.Request.URL.Host, response.StatusCode, response.Header.Get("Content-Type"))
		if e.Status == http.StatusBadRequest && response.Request.URL.Scheme == "http" {
			e.Detail += "; one that serves https answers http so, and is at https://" + response.Request.URL.Host
		}
	}
	return e
}

// printable keeps a server's words from driving the terminal that shows them.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
}

func mediaType(response *http.Response) string {
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	return media
}

// retryAfter reads the header's seconds or date (RFC 9110 section 10.2.3).
func retryAfter(value string) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

func readLimited(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, errors.New("it is larger than " + strconv.FormatInt(limit, 10) + " bytes")
	}
	return data, nil
}
