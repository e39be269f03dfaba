package metrics

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
)

// nodes are the metrics of the last census. Without one, since the store cannot be
// read, they are left out: a gap tells more than an old number.
type nodes struct {
	registry                                                                                *deployer.Registry
	leader, usable                                                                          *prometheus.Desc
	states, reachability, config, held, waiting, undeclared, unreadable, counted, heartbeat *prometheus.Desc

	vips, vipNodes *prometheus.Desc
}

func newNodes(r *deployer.Registry) *nodes {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prefix+name, help, labels, nil)
	}
	return &nodes{
		registry:     r,
		leader:       desc("leader", "1 if this deployer looks after the deadlines; with bbolt it always does."),
		usable:       desc("store_usable", "1 if the last read of the store and the last write to it succeeded."),
		states:       desc("nodes", "Nodes by state.", "state"),
		reachability: desc("nodes_reachability", "Nodes by reachability.", "reachability"),
		config:       desc("nodes_config", "Nodes by whether they run the expected configuration.", "config"),
		held:         desc("nodes_held", "Nodes that an operator holds."),
		waiting:      desc("nodes_waiting", "Nodes whose machine waits for an operator's approval."),
		undeclared:   desc("nodes_undeclared", "Nodes that the manifest does not have."),
		unreadable:   desc("nodes_unreadable", "Nodes whose record cannot be read; no other number counts them."),
		heartbeat:    desc("heartbeat_interval_seconds", "How often nodes are told to report."),
		vips:         desc("vips", "Declared VIPs by whether any node announces them.", "status"),
		vipNodes:     desc("vip_announced_nodes", "Nodes that announce a declared VIP, and are online.", "vip"),
		counted:      desc("nodes_counted_timestamp_seconds", "When the nodes were counted, in seconds since 1970."),
	}
}

func (n *nodes) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(n, to) }

func (n *nodes) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	flag := func(d *prometheus.Desc, is bool) {
		if is {
			gauge(d, 1)
		} else {
			gauge(d, 0)
		}
	}
	flag(n.leader, n.registry.Leading())
	flag(n.usable, n.registry.StoreUsable())
	n.collectVIPs(gauge)
	census, ok := n.registry.Census()
	if !ok {
		return
	}
	for _, state := range node.States {
		gauge(n.states, float64(census.States[state]), string(state))
	}
	for _, r := range []node.Reachability{node.Online, node.Offline, node.Unknown} {
		gauge(n.reachability, float64(census.Reachability[r]), string(r))
	}
	for _, c := range []node.Config{node.InSync, node.Drifted, node.ConfigUnknown} {
		gauge(n.config, float64(census.Config[c]), string(c))
	}
	gauge(n.held, float64(census.Held))
	gauge(n.waiting, float64(census.Waiting))
	gauge(n.undeclared, float64(census.Undeclared))
	gauge(n.unreadable, float64(census.Unreadable))
	gauge(n.heartbeat, n.registry.HeartbeatInterval().Seconds())
	gauge(n.counted, float64(census.At.UnixMilli())/1000)
}

// maxVIPMetrics is how many VIPs have a metric of their own: the first ones by name.
const maxVIPMetrics = 1000

func (n *nodes) collectVIPs(gauge func(*prometheus.Desc, float64, ...string)) {
	census, ok := n.registry.VIPCensus()
	if !ok {
		return
	}
	for _, status := range node.VIPStatuses {
		gauge(n.vips, float64(census.Statuses[status]), string(status))
	}
	for i, vip := range slices.Sorted(maps.Keys(census.Announced)) {
		if i == maxVIPMetrics {
			return
		}
		gauge(n.vipNodes, float64(census.Announced[vip]), vip)
	}
}
