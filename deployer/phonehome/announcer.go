package phonehome

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
)

// Limits on what is asked of the announcer, which is on this machine.
const (
	announcerTimeout  = 5 * time.Second
	maxAnnouncerBytes = 128 << 20 // about 100,000 VIPs have 30 MB
)

// announcer asks the announcer of this node how its VIPs stand; docs/announcer.md has
// what its control socket answers.
type announcer struct{ http *http.Client }

// newAnnouncer is nil for no socket.
func newAnnouncer(socket string) *announcer {
	if socket == "" {
		return nil
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &announcer{&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: announcerTimeout}}
}

// announcerState is what is of use here of GET /v1/state.
type announcerState struct {
	Status struct {
		At        *time.Time     `json:"at"` // null before the first pass has ended
		TableRead bool           `json:"table_read"`
		VIPs      []announcerVIP `json:"vips"`
	} `json:"status"`
}

type announcerVIP struct {
	Address   string `json:"address"`
	Want      string `json:"want"` // announce, withdraw or hold
	Cause     string `json:"cause"`
	Why       string `json:"why"`
	Announced bool   `json:"announced"`
	Lowered   bool   `json:"lowered"`
}

// errStarting is that of an announcer that has seen nothing yet.
var errStarting = errors.New("the announcer is starting")

func (a *announcer) state(ctx context.Context) (s announcerState, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://announcer/v1/state", nil)
	if err != nil {
		return s, err
	}
	response, err := a.http.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return s, errors.New("the announcer does not run")
	case errors.Is(err, fs.ErrPermission):
		return s, errors.New("the announcer's socket may not be opened")
	case err != nil:
		return s, errors.New("the announcer does not answer")
	}
	defer response.Body.Close()
	data, err := readAtMost(response.Body, maxAnnouncerBytes)
	switch {
	case err != nil:
		return s, errors.New("the announcer does not answer")
	case response.StatusCode != http.StatusOK:
		return s, fmt.Errorf("the announcer answers with status %d", response.StatusCode)
	}
	return readAnnouncerState(data)
}

func readAnnouncerState(data []byte) (s announcerState, err error) {
	if err := json.Unmarshal(data, &s); err != nil {
		return s, errors.New("the announcer answers with something else than its state")
	}
	if s.Status.At == nil {
		return s, errStarting
	}
	return s, nil
}

func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return data, err
}

// vip is what the deployer is told of v.
func (v announcerVIP) vip(tableRead bool) node.VIPState {
	s := node.VIPState{State: node.VIPWithdrawn, Reason: v.Why}
	switch {
	case !tableRead:
		s.State, s.Reason = node.VIPUnknown, "the announcer cannot read the speaker's table"
	case v.Announced && v.Lowered:
		s.State = node.VIPLowered
	case v.Announced:
		s.State, s.Reason = node.VIPAnnounced, ""
	case v.Cause == "drained":
		s.State = node.VIPDrained
	case v.Want == "announce":
		s.State = node.VIPMissing
	}
	return s
}
