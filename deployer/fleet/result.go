package fleet

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// Result is what was measured of an act. Latencies are as nodes see them: the wait for
// a connection, the way there and back, and the answer read.
type Result struct {
	Act       string         `json:"act"`
	Nodes     int            `json:"nodes"`
	Seconds   float64        `json:"seconds"`
	Reports   int            `json:"reports"`            // answered ones
	Rate      float64        `json:"reports_per_second"` // until all were Active, where the act has such an end
	P50       float64        `json:"p50_ms"`
	P99       float64        `json:"p99_ms"`
	Worst     float64        `json:"worst_ms"`
	AllActive float64        `json:"all_active_seconds,omitempty"` // until the last node was Active
	Dropped   float64        `json:"dropped_seconds,omitempty"`    // until the last connection that hangs was dropped
	Refused   map[string]int `json:"refused,omitempty"`            // by code
	Errors    map[string]int `json:"errors,omitempty"`             // attempts without an answer, by kind
	Faults    []string       `json:"faults,omitempty"`             // what must not be; none is a pass
}

// OK says whether everything was as it has to be.
func (r Result) OK() bool { return len(r.Faults) == 0 }

func seconds(d time.Duration) float64      { return float64(d.Milliseconds()) / 1000 }
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (p *play) progress() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Progress{Act: p.name, Active: p.active, Nodes: p.want, Reports: p.all.latencies.count + p.slow.latencies.count}
}

func (p *play) result(name string, t *tally, nodes int) Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	took := time.Since(p.begin)
	r := Result{
		Act: name, Nodes: nodes, Reports: t.latencies.count,
		P50: milliseconds(t.latencies.percentile(0.5)), P99: milliseconds(t.latencies.percentile(0.99)), Worst: milliseconds(t.latencies.worst),
		Refused: maps.Clone(t.refused), Errors: maps.Clone(t.errors), Faults: p.unexpected,
	}
	if p.want > 0 {
		if p.active == p.want {
			took = p.last.Sub(p.begin)
			r.AllActive = seconds(took)
		} else {
			fault := fmt.Sprintf("%d of %d nodes were not Active after %s", p.want-p.active, p.want, took.Round(time.Second))
			if p.refusal != "" {
				fault += "; " + p.refusal
			}
			r.Faults = append(r.Faults, fault)
		}
	}
	r.Seconds = seconds(took)
	r.Rate = float64(r.Reports) / max(took.Seconds(), 1e-9)
	return r
}

// Check compares what the deployer says of the nodes with what it told them.
func (f *Fleet) Check(ctx context.Context, client *api.Client) (Result, error) {
	begin := time.Now()
	nodes, err := client.List(ctx)
	if err != nil {
		return Result{}, err
	}
	took := time.Since(begin)
	r := Result{Act: "check", Nodes: len(f.members), Seconds: seconds(took), Reports: 1, Rate: 1 / took.Seconds(),
		P50: milliseconds(took), P99: milliseconds(took), Worst: milliseconds(took)}
	known := make(map[string]api.Node, len(nodes))
	for _, n := range nodes {
		known[n.ID] = n
	}
	wrong := 0
	for _, m := range f.members {
		n, there := known[m.id]
		var fault string
		switch {
		case !there:
			fault = "is not there"
		case n.State != node.Active:
			fault = fmt.Sprintf("is %s", n.State)
		case n.MachineID != m.machine.ID:
			fault = "is another machine's"
		case n.Reachability != node.Online:
			fault = fmt.Sprintf("is %s", n.Reachability)
		default:
			continue
		}
		if wrong++; wrong <= 3 {
			r.Faults = append(r.Faults, "the deployer says that "+m.id+" "+fault)
		}
	}
	if wrong > 3 {
		r.Faults = append(r.Faults, fmt.Sprintf("and so on, of %d nodes", wrong))
	}
	return r, nil
}
