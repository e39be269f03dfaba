package fleet

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// recorder is the transport of one node: it measures what the client does.
type recorder struct {
	fleet  *Fleet
	member *member
	base   http.RoundTripper
	phase  node.Phase
}

func (f *Fleet) recorder(m *member, phase node.Phase) http.RoundTripper {
	r := &recorder{fleet: f, member: m, base: f.shared, phase: phase}
	if m.own != nil {
		r.base = m.own
	}
	return r
}

// RoundTrip takes the answer whole, since that is when the node has it.
func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	play := r.fleet.playing.Load()
	begin := time.Now()
	response, err := r.base.RoundTrip(request)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(response.Body, 1<<20))
		response.Body.Close()
		response.Body = io.NopCloser(bytes.NewReader(body))
	}
	if err != nil {
		if !errors.Is(request.Context().Err(), context.Canceled) { // else it was switched off
			play.failed(r.member.slow, kind(err))
		}
		return nil, err
	}
	var answer struct {
		State node.State `json:"state"`
		Code  string     `json:"code"`
	}
	_ = json.Unmarshal(body, &answer) // what is no answer has no code
	if response.StatusCode != http.StatusOK && answer.Code == "" {
		answer.Code = fmt.Sprintf("status %d", response.StatusCode)
	}
	play.answered(r.member.slow, time.Since(begin), answer.Code)
	if answer.State != "" && r.fleet.cfg.Answered != nil {
		r.fleet.cfg.Answered(Answer{r.member.id, r.member.machine.ID, r.phase, answer.State})
	}
	if r.phase == node.PhaseReady && answer.State == node.Active {
		play.isActive(r.member)
	}
	return response, nil
}

// kind is what an error of the network is called in a result.
func kind(err error) string {
	var timeout net.Error
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown), errors.As(err, &invalid):
		return "certificate"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		strings.Contains(err.Error(), "server closed"):
		return "connection lost"
	default:
		return "other"
	}
}

// latencies counts durations in buckets a fiftieth apart, from a microsecond to an hour.
type latencies struct {
	buckets [1200]int
	count   int
	worst   time.Duration
}

var step = math.Log(1.02)

func (l *latencies) add(d time.Duration) {
	i := int(math.Log(float64(max(d, time.Microsecond))/float64(time.Microsecond)) / step)
	l.buckets[min(i, len(l.buckets)-1)]++
	l.count++
	l.worst = max(l.worst, d)
}

// percentile is the duration that this part of all does not exceed.
func (l *latencies) percentile(p float64) time.Duration {
	rest := int(math.Ceil(p * float64(l.count)))
	for i, n := range l.buckets {
		if rest -= n; rest <= 0 && i < len(l.buckets)-1 {
			upper := time.Duration(math.Exp(float64(i+1)*step) * float64(time.Microsecond))
			return min(upper, l.worst)
		}
	}
	return l.worst
}

// tally is what was measured of some nodes.
type tally struct {
	latencies latencies
	refused   map[string]int
	errors    map[string]int
}

// play is an act at work.
type play struct {
	name  string
	begin time.Time

	mu         sync.Mutex
	all, slow  tally // slow: of nodes on a bad network, and not in all
	want       int   // nodes to become Active
	active     int
	gone       int           // nodes that gave up
	last       time.Time     // when the last one became Active
	whole      chan struct{} // closed once all nodes are Active or gave up
	over       bool
	refusal    string // the first final one
	unexpected []string
}

func newPlay(name string, want int) *play {
	fresh := func() tally { return tally{refused: map[string]int{}, errors: map[string]int{}} }
	return &play{name: name, begin: time.Now(), want: want, whole: make(chan struct{}), all: fresh(), slow: fresh()}
}

func (p *play) tally(slow bool) *tally {
	if slow {
		return &p.slow
	}
	return &p.all
}

func (p *play) answered(slow bool, took time.Duration, code string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tally(slow)
	t.latencies.add(took)
	if code != "" {
		t.refused[code]++
	}
}

func (p *play) failed(slow bool, kind string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tally(slow).errors[kind]++
}

// badCertificates is how many attempts the node's own clock made fail.
func (p *play) badCertificates() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slow.errors["certificate"]
}

func (p *play) isActive(m *member) {
	if !m.active.CompareAndSwap(false, true) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active++
	p.last = time.Now()
	p.complete()
}

// gaveUp is a node whose client ended.
func (p *play) gaveUp(m *member, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone++
	if p.refusal == "" {
		p.refusal = m.id + ": " + err.Error()
		var refused *api.Error
		if errors.As(err, &refused) {
			p.refusal = fmt.Sprintf("%s: %s: %s", m.id, refused.Code, refused.Detail)
		}
	}
	p.complete()
}

func (p *play) complete() {
	if p.active+p.gone >= p.want && !p.over {
		p.over = true
		close(p.whole)
	}
}

func (p *play) fault(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unexpected = append(p.unexpected, fmt.Sprintf(format, args...))
}
