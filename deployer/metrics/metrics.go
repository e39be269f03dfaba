// Package metrics counts what a deployer does, for Prometheus.
package metrics

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// ContentType is the media type of Text.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

const prefix = "plasmacloud_deployer_"

// Metrics are those of one deployer. Its methods may be called concurrently.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	reports  *prometheus.CounterVec
	writes   *prometheus.HistogramVec
	watchers prometheus.Gauge
}

// New is the metrics of a deployer of the version.
func New(version string) *Metrics {
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()}})
	build.Set(1)
	buckets := prometheus.ExponentialBuckets(0.001, 4, 8) // to 16s
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "request_duration_seconds", Buckets: buckets,
			Help: "How long answers took to be made, with the wait for a turn and without the way to the peer."}, []string{"path", "status"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "phone_homes_total",
			Help: "Phone-homes by phase, and ok or the code of the problem that they were answered with."}, []string{"phase", "code"}),
		writes: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "store_write_duration_seconds", Buckets: buckets,
			Help: "How long the store took to make a write durable."}, []string{"operation", "result"}),
	}
	m.watchers = prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "event_watchers", Help: "Streams of events that are open."})
	m.registry.MustRegister(build, m.requests, m.reports, m.writes, m.watchers,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Request counts an answered request. path is one of few: no part of it may be what a
// stranger chose.
func (m *Metrics) Request(path string, status int, took time.Duration) {
	m.requests.WithLabelValues(path, strconv.Itoa(status)).Observe(took.Seconds())
}

// PhoneHome counts a report. phase is "" where it could not be read, code where the
// report was accepted.
func (m *Metrics) PhoneHome(phase node.Phase, code string) {
	if !phase.Valid() {
		phase = "unknown"
	}
	if code == "" {
		code = "ok"
	}
	m.reports.WithLabelValues(string(phase), code).Inc()
}

// Watchers says how many streams of events are open.
func (m *Metrics) Watchers(n int) { m.watchers.Set(float64(n)) }

// Watch adds what r knows of the nodes. Call it once.
func (m *Metrics) Watch(r *deployer.Registry) { m.registry.MustRegister(newNodes(r)) }

// Text is all of it in Prometheus' text format.
func (m *Metrics) Text() ([]byte, error) {
	families, err := m.registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather the metrics: %w", err)
	}
	var text bytes.Buffer
	enc := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, family := range families {
		if err := enc.Encode(family); err != nil {
			return nil, fmt.Errorf("write the metrics: %w", err)
		}
	}
	return text.Bytes(), nil
}

// Store is s with its writes timed.
func (m *Metrics) Store(s store.Store) store.Store { return &timed{s, m.writes} }

type timed struct {
	store.Store
	writes *prometheus.HistogramVec
}

func (t *timed) observe(operation string, begin time.Time, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	t.writes.WithLabelValues(operation, result).Observe(time.Since(begin).Seconds())
}

// Update times those alone that got as far as writing: a refusal is no write.
func (t *timed) Update(ctx context.Context, id string, change store.Change) error {
	begin := time.Now()
	var wrote atomic.Bool // a store may run the change when its caller has gone
	err := t.Store.Update(ctx, id, func(old node.Node, found bool) (node.Node, error) {
		changed, err := change(old, found)
		wrote.Store(err == nil)
		return changed, err
	})
	if wrote.Load() {
		t.observe("update", begin, err)
	}
	return err
}

// Join is an update like any other.
func (t *timed) Join(ctx context.Context, id, token string, change store.JoinChange) error {
	begin := time.Now()
	var wrote atomic.Bool
	err := t.Store.Join(ctx, id, token, func(old node.Node, found bool, u node.Token) (node.Node, node.Token, error) {
		changed, used, err := change(old, found, u)
		wrote.Store(err == nil)
		return changed, used, err
	})
	if wrote.Load() {
		t.observe("update", begin, err)
	}
	return err
}

func (t *timed) Mend(ctx context.Context, n node.Node) error {
	begin := time.Now()
	err := t.Store.Mend(ctx, n)
	t.observe("mend", begin, err)
	return err
}

func (t *timed) Append(ctx context.Context, events ...store.Event) error {
	begin := time.Now()
	err := t.Store.Append(ctx, events...)
	t.observe("append", begin, err)
	return err
}

func (t *timed) Seen(ctx context.Context, heard map[string]time.Time) error {
	begin := time.Now()
	err := t.Store.Seen(ctx, heard)
	t.observe("seen", begin, err)
	return err
}
