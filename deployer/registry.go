// Package deployer is the node registry without a transport: which nodes there
// are, what their reports do to them and what they are told. Servers of any kind
// are thin layers over [Registry]; what a node is, is in deployer/node.
package deployer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// Config is what a Registry works with. Zero durations and limits mean the
// defaults that stand beside them.
type Config struct {
	Store  store.Store
	Logger *slog.Logger     // nil: slog.Default()
	Now    func() time.Time // nil: time.Now

	ProvisioningTimeout time.Duration // from the first report to Failed; 30m
	HeartbeatInterval   time.Duration // what accepted nodes are told, at least; 10s
	HeartbeatRate       int           // heartbeats a second of all nodes, over which they are told a longer interval; 1000
	OfflineAfter        time.Duration // silence that makes a node offline, longer by as much as its interval; three heartbeats
	FlushInterval       time.Duration // how often liveness is stored; 10s

	// Lead says whether this registry is the one that looks after deadlines, where
	// several share a store. nil: the store is its own.
	Lead func() bool

	AllowUnknownNodes bool // let a node join that the manifest does not have
	MaxUnknownNodes   int  // how many of those; 100

	Approval node.Approval // which machines wait for an operator's word; "" for none
}

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	for _, d := range []struct {
		at    *time.Duration
		value time.Duration
	}{
		{&c.ProvisioningTimeout, 30 * time.Minute},
		{&c.HeartbeatInterval, 10 * time.Second},
		{&c.FlushInterval, 10 * time.Second},
	} {
		if *d.at == 0 {
			*d.at = d.value
		}
	}
	if c.OfflineAfter == 0 {
		c.OfflineAfter = 3 * c.HeartbeatInterval
	}
	if c.MaxUnknownNodes == 0 {
		c.MaxUnknownNodes = 100
	}
	if c.HeartbeatRate == 0 {
		c.HeartbeatRate = 1000
	}
}

// Registry is the deployer's core. Its methods may be called concurrently.
type Registry struct {
	cfg      Config
	refusals refusalLog
	notable  notable

	idleOrders notable // of operators, that changed nothing

	listeningSince atomic.Pointer[time.Time] // by the clock on the wall, as the times of nodes are
	awake          atomic.Pointer[time.Time] // when it last looked at that clock; nil while Run is not at work

	writeFailed atomic.Pointer[error] // of the last write, nil when it succeeded
	deaf        atomic.Bool           // the last read failed
	census      atomic.Pointer[Census]
	vips        vipWatch

	creating sync.Mutex // held to make a join token

	mu      sync.Mutex
	heard   map[string]time.Time // last_seen that the store does not have yet
	unknown map[string]bool      // ids of the undeclared nodes
	corrupt map[string]bool      // ids of the nodes that List could not read
}

// New is a Registry over the nodes that cfg.Store already has. From this moment
// on it counts as listening.
func New(ctx context.Context, cfg Config) (*Registry, error) {
	cfg.setDefaults()
	r := &Registry{
		cfg:      cfg,
		refusals: refusalLog{log: cfg.Logger},
		heard:    map[string]time.Time{},
		unknown:  map[string]bool{},
	}
	now := cfg.Now().Round(0)
	r.listeningSince.Store(&now)
	nodes, err := r.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the nodes: %w", err)
	}
	for _, n := range nodes {
		if !n.Declared {
			r.unknown[n.ID] = true
		}
	}
	return r, nil
}

// list is the nodes that can be read. One record that cannot is no reason to leave
// the others alone: it is logged once and shown by Unreadable.
func (r *Registry) list(ctx context.Context) ([]node.Node, error) {
	nodes, err := r.cfg.Store.List(ctx)
	records, err := store.Corrupt(err)
	if r.read(ctx, err) != nil {
		return nodes, err
	}
	r.count(nodes, len(records))
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.corrupt
	r.corrupt = map[string]bool{}
	for _, record := range records {
		r.corrupt[record.ID] = true
		if !before[record.ID] {
			r.cfg.Logger.ErrorContext(ctx, "node left out, its record cannot be read", "node", record.ID, "error", record,
				"mend", "plasmactl node reset "+record.ID)
		}
	}
	return nodes, nil
}

// Unreadable is the ids of the nodes whose records cannot be read. Reset rewrites
// them.
func (r *Registry) Unreadable() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.corrupt))
}

// View is a node with what follows from its record at the time of asking.
type View struct {
	node.Node
	Reachability node.Reachability
	Config       node.Config
	Hold         string
	Waiting      bool // its machine waits for an operator's approval
}

// rules are those by which to judge now.
func (r *Registry) rules() node.Rules {
	r.noticeSleep(r.cfg.Now().Round(0))
	return node.Rules{
		ProvisioningTimeout: r.cfg.ProvisioningTimeout,
		OfflineAfter:        r.cfg.OfflineAfter,
		HeartbeatInterval:   r.cfg.HeartbeatInterval,
		Told:                r.HeartbeatInterval(),
		ListeningSince:      *r.listeningSince.Load(),
		Approval:            r.cfg.Approval,
	}
}

func (r *Registry) view(n node.Node) View {
	rules := r.rules()
	return View{
		Node: n, Reachability: rules.Reachability(n, r.cfg.Now()), Config: n.Config(),
		Hold: rules.Hold(n), Waiting: rules.Waiting(n),
	}
}

// Answer is what an accepted report is told.
type Answer struct {
	View
	Message           string
	HeartbeatInterval time.Duration
}

// PhoneHome takes the report of the node id. A report that changes anything but
// when the node was last heard is durable when PhoneHome returns. A refusal is a
// *node.RefusedError and changes nothing, but that a machine that wants to be installed
// and may not before an operator's approval is known from then on.
func (r *Registry) PhoneHome(ctx context.Context, id string, report node.Report) (Answer, error) {
	n, err := r.phoneHome(ctx, id, report)
	if err == nil && report.Phase == node.PhaseInstalling && r.rules().Waiting(n) {
		err = node.NotApproved(n)
	}
	if err != nil {
		var refused *node.RefusedError
		if errors.As(err, &refused) {
			r.refused(ctx, id, refused)
		}
		return Answer{}, err
	}
	v := r.view(n)
	return Answer{View: v, Message: message(v), HeartbeatInterval: n.HeartbeatInterval()}, nil
}

func (r *Registry) phoneHome(ctx context.Context, id string, report node.Report) (node.Node, error) {
	now := r.cfg.Now()
	var token string
	old, err := r.cfg.Store.Get(ctx, id)
	switch err = r.read(ctx, err); {
	case errors.Is(err, store.ErrNotFound):
		// A stranger does not hear which nodes there are.
		old = node.New(id, now)
		if token, err = r.offered(ctx, old, &report); err != nil {
			return node.Node{}, err
		}
		if err := r.rules().Authenticate(old, report); err != nil {
			return node.Node{}, err
		}
		if err := r.admit(id); err != nil {
			return node.Node{}, err
		}
	case err != nil:
		return node.Node{}, fmt.Errorf("read node %s: %w", id, err)
	case !old.Declared && old.State == node.Pending && !r.cfg.AllowUnknownNodes:
		// Taken out of the manifest before it joined, or since a reset. One that runs goes on
		// being heard: its operator has to see it to take it down.
		if _, err := r.offered(ctx, old, &report); err != nil {
			return node.Node{}, err
		}
		if err := r.rules().Authenticate(old, report); err != nil {
			return node.Node{}, err
		}
		return node.Node{}, node.UnknownNode(id)
	default:
		if token, err = r.offered(ctx, old, &report); err != nil {
			return node.Node{}, err
		}
		next, made, err := r.rules().Apply(r.refresh(old), node.Reported(report), now)
		if err != nil {
			return node.Node{}, err
		}
		if len(made) == 0 && node.SameButHeard(&old, &next) { // a heartbeat: no write
			r.hear(id, next.LastSeen)
			return next, nil
		}
	}
	n, _, err := r.apply(ctx, id, token, node.Reported(report), now, true)
	if err != nil {
		r.unadmit(ctx, id)
	}
	return n, err
}

// errTokenNeeded: the record is not as it was read, and the join token counts after all.
var errTokenNeeded = errors.New("the join token is needed")

// apply makes one event durable, with the use of the join token by which a node speaks,
// "" for none, and logs what it moved.
func (r *Registry) apply(ctx context.Context, id, token string, in node.Input, now time.Time, create bool) (node.Node, []node.Transition, error) {
	var done struct { // by the last call of change
		node  node.Node
		made  []node.Transition
		stirs bool
	}
	change := func(old node.Node, found bool, token string, t node.Token) (node.Node, node.Token, error) {
		if !found {
			if !create {
				return old, t, store.ErrNotFound
			}
			old = node.New(id, now)
		}
		in := &in
		if c := in.Report.Credentials; old.Needs(c) {
			if token == "" {
				return old, t, errTokenNeeded
			}
			judged := *in
			judged.Report.Credentials = c.Judge(t, now)
			in = &judged
		}
		var err error
		done.node, done.made, err = r.rules().Apply(r.refresh(old), *in, now)
		done.stirs = !old.SameVIPs(done.node)
		if err == nil && found && len(done.made) == 0 && node.Same(&old, &done.node) {
			err = store.ErrUnchanged
		}
		return done.node, t.After(old, done.node), err
	}
	join := func(token string) error {
		return r.cfg.Store.Join(ctx, id, token, func(old node.Node, found bool, t node.Token) (node.Node, node.Token, error) {
			return change(old, found, token, t)
		})
	}
	var err error
	if token != "" {
		err = join(token)
	} else {
		err = r.cfg.Store.Update(ctx, id, func(old node.Node, found bool) (node.Node, error) {
			changed, _, err := change(old, found, "", node.Token{})
			return changed, err
		})
		if errors.Is(err, errTokenNeeded) {
			err = join(in.Report.Credentials.Offer.Name)
		}
	}
	if r.write(err) != nil {
		return node.Node{}, nil, failedWrite(id, err)
	}
	r.recorded(done.node)
	if done.stirs {
		r.vips.stir()
	}
	r.logMade(ctx, id, done.made)
	return done.node, done.made, nil
}

// failedWrite says of err which node it is about, and the mend where there is one.
func failedWrite(id string, err error) error {
	var refused *node.RefusedError
	if !errors.As(err, &refused) {
		err = fmt.Errorf("write node %s: %w", id, err)
	}
	var corrupt *store.CorruptError
	if errors.As(err, &corrupt) && corrupt.Token == "" {
		err = fmt.Errorf("%w; plasmactl node reset %s rewrites it", err, id)
	}
	return err
}

func (r *Registry) logMade(ctx context.Context, id string, made []node.Transition) {
	for _, t := range made {
		level := slog.LevelInfo
		switch {
		case t.To == node.Failed:
			level = slog.LevelWarn
		case t.Event == node.EventDeclared: // Declare's caller has the count of thousands
			level = slog.LevelDebug
		}
		if !r.cfg.Logger.Enabled(ctx, level) {
			continue
		}
		fields := []any{"node", id, "event", t.Event, "from", t.From, "to", t.To, "reason", t.Reason}
		if t.By != "" {
			fields = append(fields, "by", t.By)
		}
		r.cfg.Logger.Log(ctx, level, "node event", fields...)
	}
}

// admit lets an undeclared node in, or says why not.
func (r *Registry) admit(id string) error {
	if !r.cfg.AllowUnknownNodes {
		return node.UnknownNode(id)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.unknown[id] && len(r.unknown) >= r.cfg.MaxUnknownNodes {
		return node.TooManyUnknown(id, r.cfg.MaxUnknownNodes)
	}
	r.unknown[id] = true
	return nil
}

// unadmit gives back the place of a node whose record was not written, be it that its
// client left.
func (r *Registry) unadmit(ctx context.Context, id string) {
	if r.cfg.Lead != nil && ctx.Err() != nil { // a shared store may write it yet; recount will know
		return
	}
	if _, err := r.cfg.Store.Get(context.WithoutCancel(ctx), id); errors.Is(err, store.ErrNotFound) {
		r.mu.Lock()
		delete(r.unknown, id)
		r.mu.Unlock()
	}
}

// Node returns one node, or store.ErrNotFound.
func (r *Registry) Node(ctx context.Context, id string) (View, error) {
	n, err := r.cfg.Store.Get(ctx, id)
	if err != nil {
		return View{}, err
	}
	return r.view(r.refresh(n)), nil
}

// Nodes returns all nodes by ascending id.
func (r *Registry) Nodes(ctx context.Context) ([]View, error) {
	nodes, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	views := make([]View, len(nodes))
	for i, n := range nodes {
		views[i] = r.view(r.refresh(n))
	}
	return views, nil
}

// Health is an error when the registry cannot do its work.
func (r *Registry) Health(ctx context.Context) error {
	if failed := r.writeFailed.Load(); failed != nil {
		return fmt.Errorf("the last write to the store failed: %w", *failed)
	}
	_, err := r.cfg.Store.Get(ctx, "health")
	if err := r.read(ctx, err); err != nil && !errors.Is(err, store.ErrNotFound) && !isCorrupt(err) {
		return fmt.Errorf("the store does not answer: %w", err)
	}
	return nil
}

// read remembers whether the store can be read. While it cannot, nobody is heard, so
// silence counts only from the moment on when it can.
func (r *Registry) read(ctx context.Context, err error) error {
	switch {
	case err == nil, errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrNoToken), isCorrupt(err):
		if r.deaf.Load() && r.deaf.CompareAndSwap(true, false) {
			now := r.cfg.Now().Round(0)
			r.listeningSince.Store(&now)
		}
	case ctx.Err() == nil:
		r.deaf.Store(true)
	}
	return err
}

// write remembers for Health whether the store takes writes.
func (r *Registry) write(err error) error {
	if err == nil {
		r.writeFailed.Store(nil)
		return nil
	}
	var refused *node.RefusedError
	switch {
	case errors.As(err, &refused), isCorrupt(err), errors.Is(err, context.Canceled),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, store.ErrNotFound),
		errors.Is(err, store.ErrNoToken), errors.Is(err, store.ErrTokenExists), errors.Is(err, store.ErrTooLarge):
	default:
		r.writeFailed.Store(&err)
	}
	return err
}

// isCorrupt says whether err is about single records; the others can be read and written.
func isCorrupt(err error) bool {
	var corrupt *store.CorruptError
	return errors.As(err, &corrupt)
}
