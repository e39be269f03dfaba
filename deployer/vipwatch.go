package deployer

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// How the declared VIPs are watched. A status counts once it has lasted for vipSettle,
// so that a check that goes up and down, or an announcer that is started anew, is no
// storm of events.
const (
	vipSettle = 5 * time.Second
	vipLook   = 2 * time.Second // at most so often, and a twentieth of the time

	vipEventWindow = time.Minute
	vipEventBudget = 100 // events in a window; one more stands for all others
)

// vipWatch is what is known of the declared VIPs.
type vipWatch struct {
	mu       sync.Mutex
	declared []VIPDeclaration
	watched  map[string]*watchedVIP
	census   VIPCensus
	stirred  bool // something of it may have changed
	recalled bool // the log's last words are known
	window   time.Time
	events   int // in the window
	next     time.Time
}

// watchedVIP is a VIP over time.
type watchedVIP struct {
	status node.VIPStatus // settled; "" none yet
	first  bool           // and status is the first one
	since  time.Time
	other  node.VIPStatus // what it seems to be becoming; "" nothing else
	came   time.Time      // when other came
	told   node.VIPStatus // by the last event; "" none is known
	toldAt time.Time
}

// VIPCensus is how many declared VIPs there are of each status, and how many nodes
// announce each.
type VIPCensus struct {
	Statuses  map[node.VIPStatus]int
	Announced map[string]int // by VIP
}

// VIPCensus is the last one; ok is false before the first, and while the store cannot
// be read. Asking for it reads nothing.
func (r *Registry) VIPCensus() (c VIPCensus, ok bool) {
	r.vips.mu.Lock()
	defer r.vips.mu.Unlock()
	return r.vips.census, r.vips.census.Statuses != nil && !r.deaf.Load()
}

func (w *vipWatch) declare(vips []VIPDeclaration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.declared, w.stirred, w.recalled = slices.Clone(vips), true, false
	keep := make(map[string]*watchedVIP, len(vips))
	for _, d := range vips {
		if keep[d.VIP] = w.watched[d.VIP]; keep[d.VIP] == nil {
			keep[d.VIP] = &watchedVIP{}
		}
	}
	w.watched = keep
}

func (w *vipWatch) declaredNow() []VIPDeclaration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.declared // replaced and never changed
}

// since is when the VIP got the status, the zero time where that is not settled.
func (w *vipWatch) since(vip string, status node.VIPStatus) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known := w.watched[vip]; known != nil && known.status == status {
		return known.since.UTC().Truncate(time.Millisecond)
	}
	return time.Time{}
}

// stir makes the next look come soon.
func (w *vipWatch) stir() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stirred = len(w.declared) > 0
}

// due says whether it is time to look, and counts as one that does.
func (w *vipWatch) due(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stirred || now.Before(w.next) && w.next.Sub(now) < time.Minute {
		return false
	}
	w.stirred, w.next = false, now.Add(vipLook)
	return true
}

// lookAtVIPs reads all nodes where something about VIPs may have changed.
func (r *Registry) lookAtVIPs(ctx context.Context) error {
	if !r.vips.due(r.cfg.Now()) {
		return nil
	}
	begin := time.Now()
	nodes, err := r.list(ctx)
	if err != nil {
		return err
	}
	err = r.watchVIPs(ctx, nodes)
	r.vips.mu.Lock()
	r.vips.next = r.cfg.Now().Add(max(vipLook, 20*time.Since(begin)))
	r.vips.mu.Unlock()
	return err
}

// watchVIPs compares what the nodes say with what was known of the declared VIPs, and
// makes events of what has settled. Where several registries share the store, the
// leader does that.
func (r *Registry) watchVIPs(ctx context.Context, nodes []node.Node) error {
	if len(r.vips.declaredNow()) == 0 {
		return nil
	}
	if err := r.recallVIPs(ctx); err != nil {
		return err
	}
	views := make([]View, len(nodes))
	for i, n := range nodes {
		views[i] = r.view(r.refresh(n))
	}
	vips := r.VIPsOf(views)
	events, untell := r.vips.look(vips, r.cfg.Now(), r.Leading())
	if len(events) == 0 {
		return nil
	}
	if err := r.write(r.cfg.Store.Append(ctx, events...)); err != nil {
		untell()
		return fmt.Errorf("write the events of VIPs: %w", err)
	}
	for _, e := range events {
		level := slog.LevelInfo
		if e.Event == store.EventVIPUnannounced {
			level = slog.LevelWarn
		}
		r.cfg.Logger.Log(ctx, level, "vip event", "vip", e.VIP, "event", e.Event, "reason", e.Reason)
	}
	return nil
}

// recallVIPs finds out, at the start of leading, which VIPs the events say are
// announced, so that none is told twice and none is missed between two leaders.
func (r *Registry) recallVIPs(ctx context.Context) error {
	leading := r.Leading()
	r.vips.mu.Lock()
	recalled := r.vips.recalled
	r.vips.recalled = recalled && leading // another leads meanwhile
	r.vips.mu.Unlock()
	if recalled || !leading {
		return nil
	}
	told := map[string]store.Event{}
	for after := ""; ; {
		page, err := r.cfg.Store.Events(ctx, after, 1000)
		if err != nil {
			return fmt.Errorf("read the events of VIPs: %w", err)
		}
		for _, e := range page.Events {
			if e.VIP != "" {
				told[e.VIP] = e
			}
		}
		if after = page.Next; !page.More {
			break
		}
	}
	r.vips.mu.Lock()
	defer r.vips.mu.Unlock()
	for vip, w := range r.vips.watched {
		switch e := told[vip]; e.Event {
		case store.EventVIPAnnounced:
			w.told, w.toldAt = node.Announced, e.At
		case store.EventVIPUnannounced:
			w.told, w.toldAt = node.Unannounced, e.At
		}
	}
	r.vips.recalled = true
	return nil
}

// look takes in how the VIPs stand at now, and returns the events that are to be told;
// untell is for when they could not be.
func (w *vipWatch) look(vips []VIP, now time.Time, leading bool) (events []store.Event, untell func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.census = VIPCensus{Statuses: map[node.VIPStatus]int{}, Announced: map[string]int{}}
	more := map[node.VIPStatus]int{}
	before := map[*watchedVIP]node.VIPStatus{}
	for _, v := range vips {
		known := w.watched[v.VIP]
		if known == nil || !v.Declared {
			continue
		}
		w.census.Statuses[v.Status]++
		w.census.Announced[v.VIP] = v.Announced
		if !known.settles(v.Status, now) {
			w.stirred = true
		}
		if !leading || !known.news() {
			continue
		}
		// Of what was there when this began, or never came, nothing is to be told.
		silent := known.told == "" && (known.first || known.status == node.Unannounced)
		before[known] = known.told
		known.told = known.status
		switch {
		case silent:
			delete(before, known)
		case w.spend(now):
			events = append(events, vipEvent(v, known.status, now))
		default:
			more[known.status]++
		}
	}
	for _, status := range slices.Sorted(maps.Keys(more)) {
		e := vipEvent(VIP{}, status, now)
		e.Reason = fmt.Sprintf("%d more VIPs within a minute; the list of VIPs has them", more[status])
		events = append(events, e)
	}
	return events, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stirred, w.events = true, max(0, w.events-len(before))
		for known, told := range before {
			known.told = told
		}
	}
}

// settles says whether the VIP is as it was known to be, or has been as it is now for
// long enough.
func (k *watchedVIP) settles(status node.VIPStatus, now time.Time) bool {
	switch {
	case status == k.status:
		k.other = ""
		return true
	case status != k.other || now.Before(k.came):
		k.other, k.came = status, now
		return false
	case now.Sub(k.came) < vipSettle:
		return false
	}
	k.first = k.status == ""
	k.status, k.since, k.other = status, k.came, ""
	if k.first && status == k.told {
		k.since = k.toldAt // as it was before a restart
	}
	return true
}

// news says whether what has settled is not what was told last. That nothing is known
// is no news.
func (k *watchedVIP) news() bool {
	return k.status != k.told && (k.status == node.Announced || k.status == node.Unannounced)
}

func (w *vipWatch) spend(now time.Time) bool {
	if age := now.Sub(w.window); age >= vipEventWindow || age < 0 {
		w.window, w.events = now, 0
	}
	w.events++
	return w.events <= vipEventBudget
}

func vipEvent(v VIP, status node.VIPStatus, now time.Time) store.Event {
	e := store.Event{At: now.UTC().Truncate(time.Millisecond), VIP: v.VIP, Event: store.EventVIPUnannounced, Reason: v.whyNot()}
	if status == node.Announced {
		e.Event, e.Reason = store.EventVIPAnnounced, v.announcers()
	}
	return e
}

// How many nodes and reasons, and bytes of one, the reason of an event has at most.
const (
	reasonNodes = 4
	reasonBytes = 120 // of one node's own reason
)

// announcers names the nodes that announce v.
func (v VIP) announcers() string {
	var ids []string
	for _, n := range v.Nodes {
		if n.Announces() {
			ids = append(ids, n.ID)
		}
	}
	return "announced by " + cutList(ids)
}

// whyNot says why none of its nodes announces v.
func (v VIP) whyNot() string {
	var reasons []string
	by := map[string][]string{} // the nodes of a reason
	for _, n := range v.Nodes {
		if !n.Declared && n.State == "" {
			continue
		}
		why := n.Why()
		if by[why] == nil {
			reasons = append(reasons, why)
		}
		by[why] = append(by[why], n.ID)
	}
	if len(reasons) == 0 {
		return "no node announces it, and none may"
	}
	for i, why := range reasons {
		reasons[i] = cutList(by[why]) + " " + why
	}
	return "no node announces it: " + cutList(reasons)
}

// Why says in a few words how the VIP stands on the node.
func (n VIPNode) Why() string {
	reason := n.Reason
	if len(reason) > reasonBytes {
		reason = strings.ToValidUTF8(reason[:reasonBytes], "") + "…"
	}
	switch {
	case n.Reachability == node.Offline:
		return "is offline"
	case n.State == "" && n.Reachability == node.Unknown:
		return "has not been heard"
	case n.State == "" && reason == "":
		return "says nothing of it"
	case n.State == "":
		return reason
	case reason == "":
		return n.State
	default:
		return n.State + " (" + reason + ")"
	}
}

func cutList(words []string) string {
	if more := len(words) - reasonNodes; more > 0 {
		return fmt.Sprintf("%s, and %d more", strings.Join(words[:reasonNodes], ", "), more)
	}
	return strings.Join(words, ", ")
}
