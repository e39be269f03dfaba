package page

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// Fleet is all nodes and VIPs at one moment. It is shared and does not change.
type Fleet struct {
	At         time.Time
	Nodes      []Node // by id
	VIPs       []deployer.VIP
	Unreadable []string // ids of the nodes whose records cannot be read
	Usable     bool     // the store is
	Heartbeat  time.Duration

	roles []string
}

// Node is a line of the list of nodes.
type Node struct {
	ID, Role, IP, Hostname string
	State                  node.State
	Reachability           node.Reachability
	Config                 node.Config
	LastSeen               time.Time
	Labels                 map[string]string
	Declared               bool
	Waiting                bool
	Held                   bool
	Error                  string
	Down                   []string // services that are not active
	text                   string   // what a search looks at
}

// NewFleet takes what lists show from the views.
func NewFleet(views []deployer.View, vips []deployer.VIP, at time.Time) *Fleet {
	f := &Fleet{At: at, VIPs: vips, Nodes: make([]Node, len(views))}
	for i, v := range views {
		n := Node{
			ID: v.ID, Role: v.Role, Hostname: v.Hostname, State: v.State, Reachability: v.Reachability, Config: v.Node.Config(),
			LastSeen: v.LastSeen, Labels: v.Labels, Declared: v.Declared, Waiting: v.Waiting, Held: v.Held != nil,
		}
		if v.IP.IsValid() {
			n.IP = v.IP.String()
		} else if v.ReportedIP.IsValid() {
			n.IP = v.ReportedIP.String()
		}
		if v.LastError != nil {
			n.Error = v.LastError.Message
		}
		for _, s := range v.Services {
			if !s.Active() {
				n.Down = append(n.Down, s.Name)
			}
		}
		n.text = strings.ToLower(strings.Join([]string{n.ID, n.Hostname, n.IP, v.MachineID, v.Serial}, "\n"))
		f.Nodes[i] = n
		if at, found := slices.BinarySearch(f.roles, n.Role); !found && n.Role != "" && len(f.roles) < 100 {
			f.roles = slices.Insert(f.roles, at, n.Role)
		}
	}
	return f
}

// Note says what is worth knowing of the node, in a few words.
func (n Node) Note() string {
	var notes []string
	add := func(is bool, note string) {
		if is {
			notes = append(notes, note)
		}
	}
	add(n.Waiting, "waits for approval")
	add(n.Held, "held")
	add(!n.Declared, "not in the manifest")
	add(n.Error != "", n.Error)
	add(len(n.Down) > 0, "not active: "+strings.Join(n.Down, ", "))
	text := strings.Join(notes, "; ")
	if cut := []rune(text); len(cut) > 160 {
		text = string(cut[:159]) + "…"
	}
	return text
}

// attention is a line of what somebody should look at.
type attention struct {
	Tone, Text, Link string
}

// part is one of the numbers that make up a whole.
type part struct {
	Name   string // as the API has it
	Count  int
	Link   string
	X, Len float64 // in a bar that is 100 long
}

func parts[S ~string](link func(S) string, counts map[S]int, order []S) []part {
	all, at := 0, 0.0
	for _, n := range counts {
		all += n
	}
	list := make([]part, len(order))
	for i, name := range order {
		length := 0.0
		if all > 0 {
			length = 100 * float64(counts[name]) / float64(all)
		}
		list[i] = part{string(name), counts[name], link(name), at, length}
		at += length
	}
	return list
}

func query(path string, pairs ...string) string {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		values.Set(pairs[i], pairs[i+1])
	}
	return path + "?" + values.Encode()
}

// shownVIPs is how many VIPs the first page names.
const shownVIPs = 10

// FleetPage is the fleet at a glance, with its last events.
func FleetPage(frame Frame, f *Fleet, events []store.Event) []byte {
	states, reach, config := map[node.State]int{}, map[node.Reachability]int{}, map[node.Config]int{}
	var offline, failed, drifted, waiting, held, undeclared, down int
	for _, n := range f.Nodes {
		states[n.State]++
		reach[n.Reachability]++
		config[n.Config]++
		in := n.State != node.Decommissioned
		for _, c := range []struct {
			is bool
			n  *int
		}{
			{n.State == node.Failed, &failed}, {in && n.Reachability == node.Offline, &offline}, {in && n.Config == node.Drifted, &drifted},
			{n.Waiting, &waiting}, {in && n.Held, &held}, {in && !n.Declared, &undeclared}, {in && n.Reachability == node.Online && len(n.Down) > 0, &down},
		} {
			if c.is {
				*c.n++
			}
		}
	}
	statuses := map[node.VIPStatus]int{}
	var alone []deployer.VIP
	strays := 0
	for _, v := range f.VIPs {
		if !v.Declared {
			strays++
			continue
		}
		statuses[v.Status]++
		if v.Status == node.Unannounced && len(alone) < shownVIPs {
			alone = append(alone, v)
		}
	}
	var look []attention
	add := func(n int, tone, text, link string) {
		if n > 0 {
			look = append(look, attention{tone, fmt.Sprintf(text, n), link})
		}
	}
	if !f.Usable {
		look = append(look, attention{"bad", "The store cannot be used: the deployer's log has the reason", ""})
	}
	add(statuses[node.Unannounced], "bad", "VIPs announced by no node: %d", query(PathVIPs, "status", string(node.Unannounced)))
	add(failed, "bad", "Nodes failed: %d", query(PathNodes, "state", string(node.Failed)))
	add(offline, "bad", "Nodes offline: %d", query(PathNodes, "reachability", string(node.Offline)))
	add(len(f.Unreadable), "bad", "Nodes whose record cannot be read: %d", "")
	add(down, "warn", "Nodes with a service not active: %d", query(PathNodes, "only", "services"))
	add(waiting, "warn", "Machines waiting for approval: %d", query(PathNodes, "only", "waiting"))
	add(drifted, "warn", "Nodes whose configuration drifted: %d", query(PathNodes, "config", string(node.Drifted)))
	add(held, "warn", "Nodes held by an operator: %d", query(PathNodes, "only", "held"))
	add(undeclared, "warn", "Nodes not in the manifest: %d", query(PathNodes, "only", "undeclared"))
	add(strays, "warn", "VIPs not in the manifest: %d", query(PathVIPs, "status", "undeclared"))
	return render("fleet", view{frame, "Fleet", "fleet", struct {
		*Fleet
		Attention                    []attention
		States, Reach, Config, Kinds []part
		Declared                     int
		Alone                        []deployer.VIP
		MoreAlone                    int
		Events                       []event
	}{
		f, look,
		parts(func(s node.State) string { return query(PathNodes, "state", string(s)) }, states, node.States),
		parts(func(r node.Reachability) string { return query(PathNodes, "reachability", string(r)) }, reach,
			[]node.Reachability{node.Online, node.Unknown, node.Offline}),
		parts(func(c node.Config) string { return query(PathNodes, "config", string(c)) }, config,
			[]node.Config{node.InSync, node.Drifted, node.ConfigUnknown}),
		parts(func(s node.VIPStatus) string { return query(PathVIPs, "status", string(s)) }, statuses, node.VIPStatuses),
		len(f.VIPs) - strays, alone, statuses[node.Unannounced] - len(alone), newest(events, 8, func(store.Event) bool { return true }),
	}})
}

// pager is where in a long list a page is.
type pager struct {
	From, To, All int // of the lines; from 1
	Prev, Next    string
}

// pageSize is how many lines a page of a list has.
const pageSize = 100

// paged cuts the lines of one page out of all, and says where they are.
func paged[T any](all []T, path string, values url.Values) ([]T, pager) {
	number := 1
	if _, err := fmt.Sscanf(values.Get("page"), "%d", &number); err != nil || number < 1 || number-1 > (len(all)-1)/pageSize {
		number = 1
	}
	from := (number - 1) * pageSize
	to := min(from+pageSize, len(all))
	p := pager{From: from + 1, To: to, All: len(all)}
	at := func(n int) string {
		with := url.Values{}
		for key, value := range values {
			with[key] = value
		}
		with.Set("page", fmt.Sprint(n))
		return path + "?" + with.Encode()
	}
	if number > 1 {
		p.Prev = at(number - 1)
	}
	if to < len(all) {
		p.Next = at(number + 1)
	}
	return all[from:to], p
}

// NodesFilter is what a list of nodes is narrowed to; "" is anything.
type NodesFilter struct {
	Search, State, Reachability, Config, Role, Label string
	Only                                             string // services, waiting, held or undeclared
}

// ReadNodesFilter takes the filter from a query.
func ReadNodesFilter(q url.Values) NodesFilter {
	get := func(key string) string { return cut(q.Get(key)) }
	return NodesFilter{get("q"), get("state"), get("reachability"), get("config"), get("role"), get("label"), get("only")}
}

// cut keeps a word of a query short: it comes back in the page.
func cut(s string) string {
	s = strings.TrimSpace(strings.ToValidUTF8(s, ""))
	if runes := []rune(s); len(runes) > 128 {
		s = string(runes[:128])
	}
	return s
}

// values are the query that gives the filter.
func (f NodesFilter) values() url.Values {
	values := url.Values{}
	for key, value := range map[string]string{
		"q": f.Search, "state": f.State, "reachability": f.Reachability, "config": f.Config, "role": f.Role, "label": f.Label, "only": f.Only,
	} {
		if value != "" {
			values.Set(key, value)
		}
	}
	return values
}

func (f NodesFilter) takes(n Node) bool {
	key, value, exact := strings.Cut(f.Label, "=")
	label, has := n.Labels[strings.TrimSpace(key)]
	switch {
	case f.Search != "" && !strings.Contains(n.text, strings.ToLower(f.Search)),
		f.State != "" && f.State != string(n.State),
		f.Reachability != "" && f.Reachability != string(n.Reachability),
		f.Config != "" && f.Config != string(n.Config),
		f.Role != "" && f.Role != n.Role,
		f.Label != "" && (!has || exact && label != strings.TrimSpace(value)),
		f.Only == "services" && (len(n.Down) == 0 || n.Reachability != node.Online),
		f.Only == "waiting" && !n.Waiting,
		f.Only == "held" && !n.Held,
		f.Only == "undeclared" && n.Declared:
		return false
	}
	return true
}

// NodesPage is the list of nodes.
func NodesPage(frame Frame, f *Fleet, q url.Values) []byte {
	filter := ReadNodesFilter(q)
	var nodes []Node
	for _, n := range f.Nodes {
		if filter.takes(n) {
			nodes = append(nodes, n)
		}
	}
	values := filter.values()
	narrowed := len(values) > 0
	values.Set("page", q.Get("page"))
	lines, at := paged(nodes, PathNodes, values)
	return render("nodes", view{frame, "Nodes", "nodes", struct {
		Nodes    []Node
		Pager    pager
		Filter   NodesFilter
		Narrowed bool
		States   []node.State
		Reach    []node.Reachability
		Config   []node.Config
		Roles    []string
		Only     [][2]string
	}{
		lines, at, filter, narrowed, node.States,
		[]node.Reachability{node.Online, node.Offline, node.Unknown}, []node.Config{node.InSync, node.Drifted, node.ConfigUnknown},
		f.roles, [][2]string{{"services", "services not active"}, {"waiting", "waiting for approval"}, {"held", "held"}, {"undeclared", "not in the manifest"}},
	}})
}

// pair is a key with its value.
type pair struct{ Key, Value string }

func pairs(m map[string]string) []pair {
	list := make([]pair, 0, len(m))
	for key, value := range m {
		list = append(list, pair{key, value})
	}
	slices.SortFunc(list, func(a, b pair) int { return cmp.Compare(a.Key, b.Key) })
	return list
}

// nodeVIPs is how many VIPs the page of a node has.
const nodeVIPs = 500

// NodePage is one node with its history.
func NodePage(frame Frame, v deployer.View) []byte {
	history := slices.Clone(v.History)
	slices.Reverse(history)
	vips := slices.Clone(v.VIPStates)
	for _, vip := range v.VIPs {
		if !slices.ContainsFunc(vips, func(s node.VIPState) bool { return s.VIP == vip }) {
			vips = append(vips, node.VIPState{VIP: vip, State: node.VIPAnnounced})
		}
	}
	slices.SortFunc(vips, func(a, b node.VIPState) int { return node.CompareVIPs(a.VIP, b.VIP) })
	more := max(0, len(vips)-nodeVIPs) + v.VIPsLeftOut
	reported := ""
	if v.ReportedIP.IsValid() && v.ReportedIP != v.IP {
		reported = v.ReportedIP.String()
	}
	return render("node", view{frame, v.ID, "nodes", struct {
		deployer.View
		Config        node.Config
		Reported      string
		Labels, Facts []pair
		VIPs          []node.VIPState
		MoreVIPs      int
		History       []node.Transition
		Verbs         []node.Event
	}{v, v.Node.Config(), reported, pairs(v.Labels), pairs(v.Facts), vips[:min(len(vips), nodeVIPs)], more, history, verbsFor(v)}})
}
