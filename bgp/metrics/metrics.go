// Package metrics serves what an announcer does over HTTP: metrics for Prometheus,
// the status of every VIP as JSON, and whether the announcer is alive.
package metrics

import (
	"errors"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/health"
)

// Announcer is what is served; *bgp.Announcer is one.
type Announcer interface {
	Status() bgp.Status
	Events() *bgp.Events
	Checks() map[health.Status]int
	SpeakerGeneration() int
	RenewalsFailed() uint64
	OnPass(func(bgp.Status))
	OnProbe(func(health.Check, time.Duration, error))
}

const prefix = "plasmacloud_announcer_"

// sessionStates are those of RFC 4271, section 8.2.2.
var sessionStates = []string{"idle", "connect", "active", "opensent", "openconfirm", "established"}

func registry(a Announcer, version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()}})
	build.Set(1)
	passes := prometheus.NewHistogram(prometheus.HistogramOpts{Name: prefix + "pass_duration_seconds", Help: "How long a pass of the reconcile loop took.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)})
	failed := prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "passes_failed_total", Help: "Passes in which something failed."})
	renewals := prometheus.NewCounterFunc(prometheus.CounterOpts{Name: prefix + "renewals_failed_total", Help: "Tries to renew addresses with a lifetime of which some or all failed."},
		func() float64 { return float64(a.RenewalsFailed()) })
	steps := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "steps_total", Help: "What was done to VIPs, and for what cause."}, []string{"step", "cause"})
	checks := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "check_duration_seconds", Help: "How long health checks took to be answered.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}, []string{"type", "result"})
	r.MustRegister(build, passes, failed, renewals, steps, checks, newLive(a), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.OnPass(func(s bgp.Status) {
		passes.Observe(s.Took.Seconds())
		if s.Error != "" {
			failed.Inc()
		}
		for _, step := range s.Steps {
			steps.WithLabelValues(step.Do, string(step.Cause)).Add(float64(step.Count))
		}
	})
	a.OnProbe(func(c health.Check, took time.Duration, err error) {
		result := "good"
		switch {
		case errors.Is(err, health.ErrNotAsked):
			result = "not_asked"
		case err != nil:
			result = "bad"
		}
		checks.WithLabelValues(string(c.Kind), result).Observe(took.Seconds())
	})
	return r
}

// live are the metrics that the last pass found, read when they are asked for. What
// could not be read in it is left out: a gap tells more than an old number.
type live struct {
	announcer                                   Announcer
	pass, ready, generation, session, checks    *prometheus.Desc
	refused                                     *prometheus.Desc
	desired, announced, missing, held, draining *prometheus.Desc
	notOffered, foreign, suppressed, penalty    *prometheus.Desc
}

func newLive(a Announcer) *live {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prefix+name, help, labels, nil)
	}
	return &live{
		announcer:  a,
		pass:       desc("last_pass_timestamp_seconds", "When the last pass ended, in seconds since 1970."),
		ready:      desc("speaker_ready", "1 if the BGP daemon answers, with the right ASN."),
		refused:    desc("reload_refused", "1 if the last reload was refused, so that an older configuration is in force."),
		generation: desc("speaker_generation", "Generation of the BGP daemon's API: 3 or 4; 0 before its first answer."),
		session:    desc("session", "1 for the state that the session with a peer is in, 0 for the others.", "peer", "asn", "state"),
		checks:     desc("checks", "Health checks by what they found.", "status"),
		desired:    desc("vips_desired", "VIPs that should be announced."),
		announced:  desc("vips_announced", "VIPs that have a path of ours in the BGP daemon's table."),
		missing:    desc("vips_missing", "VIPs that should be announced, and have no such path."),
		notOffered: desc("vips_not_offered", "VIPs that are announced as they should be, and offered to no peer, as far as that is known."),
		held:       desc("vips_held", "VIPs that the announcer holds on the host."),
		draining:   desc("vips_draining", "VIPs that are withdrawn, and held until the drain is over."),
		foreign:    desc("vips_foreign", "VIPs with an address or a path that is somebody else's."),
		suppressed: desc("vips_suppressed", "VIPs that damping keeps from being announced."),
		penalty:    desc("vip_penalty", "What a VIP has of damping's penalties; left out at 0.", "vip"),
	}
}

func (l *live) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(l, to) }

func (l *live) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, n float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
	}
	for _, status := range []health.Status{health.Up, health.Down, health.Unknown} {
		gauge(l.checks, float64(l.announcer.Checks()[status]), status.String())
	}
	gauge(l.generation, float64(l.announcer.SpeakerGeneration()))
	s := l.announcer.Status()
	gauge(l.ready, number(s.Speaker == bgp.Ready))
	gauge(l.refused, number(s.Refused != ""))
	if s.At.IsZero() {
		return
	}
	gauge(l.pass, float64(s.At.UnixMilli())/1000)
	for _, p := range s.Peers {
		for _, state := range sessionStates {
			gauge(l.session, number(p.State == state), p.Address.String(), strconv.FormatUint(uint64(p.ASN), 10), state)
		}
	}
	var desired, announced, missing, held, draining, foreign, suppressed int
	for _, v := range s.VIPs {
		desired += count(v.Want == bgp.Announce)
		announced += count(v.Announced)
		missing += count(v.Want == bgp.Announce && !v.Announced)
		held += count(v.As != 0)
		draining += count(v.Draining)
		foreign += count(v.Foreign != "")
		suppressed += count(v.Damping.Suppressed)
		if v.Damping.Penalty > 0 {
			gauge(l.penalty, v.Damping.Penalty, v.Address.String())
		}
	}
	gauge(l.desired, float64(desired))
	gauge(l.suppressed, float64(suppressed))
	if s.TableRead {
		gauge(l.announced, float64(announced))
		gauge(l.missing, float64(missing))
		gauge(l.notOffered, float64(s.NotOffered))
	}
	if s.HostRead {
		gauge(l.held, float64(held))
		gauge(l.draining, float64(draining))
	}
	if s.TableRead && s.HostRead {
		gauge(l.foreign, float64(foreign))
	}
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

func number(is bool) float64 { return float64(count(is)) }
