// Package phonehome is the node's side of joining a cluster: it reports to the
// deployer until it is heard, and keeps saying that it is alive when asked to.
package phonehome

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/secretfile"
)

// DefaultConfigPath is where a node and the ISO keep their cluster-config.json.
const DefaultConfigPath = "/etc/nixos/secrets/cluster-config.json"

// Config says what to report and how hard to try.
type Config struct {
	ConfigPath  string     // cluster-config.json; "" is DefaultConfigPath
	DeployerURL string     // "" is the one in cluster-config.json
	Phase       node.Phase // "" is ready
	Error       string     // why, with phase failed
	MachineID   string     // "" is what the machine says
	VIPs        []string   // addresses that the node announces

	AnnouncerSocket string   // where the node's announcer says what it announces; "" is no announcer
	Services        []string // units whose state is reported

	JoinTokenFile string // what vouches for the node until its secret is known; "" is none
	SecretFile    string // the node's own secret, made when there is a token; "" is DefaultSecretFile

	Attempts   int           // of the first report; 0 goes on without end
	Timeout    time.Duration // of one attempt; 0 is 10s
	Heartbeat  bool          // stay and report at the interval that the deployer tells
	UntilRetry bool          // with phase failed, in place of Heartbeat: stay until an operator has the node retried

	Given     *Given                             // nil: read from the files and the machine
	Root      string                             // where /sys, /proc and /etc are; "" is "/"
	Transport http.RoundTripper                  // nil is that of api.NewClient
	Logger    *slog.Logger                       // nil is slog.Default()
	Accepted  func(answer api.PhoneHomeResponse) // called at the first accepted report; may be nil
}

// Given is a node that is made up, by whoever tries a deployer out: what its files and
// its machine would say. ConfigPath, MachineID, JoinTokenFile, SecretFile and Root are
// not looked at then.
type Given struct {
	Cluster   ClusterConfig
	Machine   Machine
	JoinToken string
	Secret    string
}

// How long to wait. Waits are random within their bounds (full jitter), so that
// nodes which lost the deployer together do not come back together.
const (
	backoffBase = 500 * time.Millisecond
	backoffMax  = 30 * time.Second

	minInterval     = time.Second // of heartbeats, whatever the deployer says
	maxInterval     = time.Hour
	refusedInterval = time.Minute // between heartbeats while they are refused

	maxRetryAfter = 5 * time.Minute // a server that asks for more is not believed
)

// ErrGaveUp is wrapped by the error of a Run that used up its attempts.
var ErrGaveUp = errors.New("the deployer was not reached")

// Run reports until the deployer accepts, refuses (*api.Error, final), the
// attempts are used up (ErrGaveUp) or ctx ends. With Heartbeat it then stays until
// ctx ends, which is no error: it outlives restarts of the deployer, and a refusal
// of a node that was accepted before is logged and asked again once a minute. With
// UntilRetry it stays until the deployer calls the node no longer Failed, and the end of
// ctx before that is an error.
func Run(ctx context.Context, cfg Config) error {
	a, err := newAgent(cfg)
	if err != nil {
		return err
	}
	answer, err := a.join(ctx)
	if err != nil {
		if cfg.Heartbeat && ctx.Err() != nil {
			return nil
		}
		return err
	}
	if a.cfg.Accepted != nil {
		a.cfg.Accepted(answer)
	}
	if !cfg.Heartbeat && !cfg.UntilRetry {
		return nil
	}
	if retried := a.beat(ctx, answer); cfg.UntilRetry && !retried {
		return fmt.Errorf("interrupted before an operator had it retried: %w", context.Cause(ctx))
	}
	return nil
}

type agent struct {
	cfg     Config
	log     *slog.Logger
	client  *api.Client
	machine Machine
	cluster ClusterConfig
	token   string // "" when there is none
	secret  string // the node's own, "" when there is none
	said    string // the last state of affairs with the deployer that was logged
	unread  string // the last error of reload that was logged, "" while it works

	watch    watch
	reported observation // in the last accepted report

	acknowledged bool // that the node is decommissioned
}

func newAgent(cfg Config) (*agent, error) {
	cfg.ConfigPath = cmp.Or(cfg.ConfigPath, DefaultConfigPath)
	cfg.Phase = cmp.Or(cfg.Phase, node.PhaseReady)
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.Root = cmp.Or(cfg.Root, "/")
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	a := &agent{cfg: cfg, log: cfg.Logger, watch: watch{
		announcer: newAnnouncer(cfg.AnnouncerSocket), units: unitNames(cfg.Services), bus: systemBus, given: canonicalVIPs(cfg.VIPs),
	}}
	var err error
	if given := cfg.Given; given != nil {
		a.cluster, a.machine, a.token, a.secret = given.Cluster, given.Machine, given.JoinToken, given.Secret
	} else if a.cluster, err = ReadClusterConfig(cfg.ConfigPath); err != nil {
		return nil, &ConfigError{err}
	}
	url := cmp.Or(cfg.DeployerURL, a.cluster.DeployerURL)
	if url == "" {
		return nil, &ConfigError{fmt.Errorf("cluster config %s has no deployer_url; set it, or pass --deployer-url", cfg.ConfigPath)}
	}
	if a.client, err = api.NewClient(url, cfg.Timeout, cfg.Transport); err != nil {
		return nil, &ConfigError{err}
	}
	a.log = a.log.With("node", a.cluster.NodeID, "deployer", url)
	if cfg.Given != nil {
		return a, nil
	}
	if err := a.identify(); err != nil {
		return nil, err
	}
	if err := a.prove(); err != nil {
		return nil, err
	}
	if a.secret != "" && !strings.HasPrefix(url, "https:") {
		a.log.Warn("the node's secret goes over plain HTTP, and can be read by anybody on the way")
	}
	return a, nil
}

// prove reads what makes the deployer believe that this is the node. A secret is
// made before the deployer hears of it, so that no answer is needed to know it: one
// that is lost on the way locks nobody out.
func (a *agent) prove() error {
	path := cmp.Or(a.cfg.SecretFile, DefaultSecretFile)
	var err error
	if a.secret, err = readSecret(path); err != nil || a.cfg.JoinTokenFile == "" {
		return err
	}
	a.token, err = secretfile.Token(a.cfg.JoinTokenFile)
	switch {
	case err != nil && a.secret != "":
		a.log.Warn("join token not read; the node's secret has to do", "error", err)
		return nil
	case err != nil:
		return &ConfigError{fmt.Errorf("join token: %w", err)}
	case a.secret == "":
		a.secret, err = makeSecret(path)
	}
	return err
}

// ConfigError is a mistake in the configuration: trying again does not mend it.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

// identify settles what this machine is.
func (a *agent) identify() error {
	if a.cfg.MachineID != "" {
		id, ok := node.CanonicalMachineID(a.cfg.MachineID)
		if !ok {
			return &ConfigError{fmt.Errorf("machine id %q cannot tell this machine from others; want a UUID or a serial number", a.cfg.MachineID)}
		}
		a.cfg.MachineID = id
	}
	var err error
	a.machine, err = ReadMachine(a.cfg.Root)
	switch {
	case a.cfg.MachineID != "":
		a.machine.ID, a.machine.IDSource = a.cfg.MachineID, "given"
	case err != nil:
		return err
	case a.machine.ID == "" && len(a.machine.MACs) == 0 && a.machine.Serial == "":
		a.log.Warn("this machine has no usable id, MAC address or serial number; the deployer cannot tell it from another that claims its node")
	}
	return nil
}

// report tells the deployer how the node is now. To the answer that the node is
// decommissioned it says that it has heard, so that its operator knows.
func (a *agent) report(ctx context.Context) (api.PhoneHomeResponse, error) {
	a.watch.look(ctx)
	seen := a.watch.last
	answer, err := a.client.PhoneHome(ctx, a.request(seen))
	var refused *api.Error
	switch {
	case err == nil:
		a.reported, a.acknowledged = seen, false
	case errors.As(err, &refused) && refused.Code == node.CodeDecommissioned && !a.acknowledged:
		heard := a.request(seen)
		heard.Acknowledges = api.AckDecommissioned
		if _, err := a.client.PhoneHome(ctx, heard); err == nil {
			a.acknowledged = true
			a.log.Warn("this node is decommissioned, and the deployer knows that it has heard")
		}
	}
	return answer, err
}

func (a *agent) request(seen observation) api.PhoneHomeRequest {
	vips, states, leftOut := seen.fit()
	return api.PhoneHomeRequest{
		NodeID:     a.cluster.NodeID,
		MachineID:  a.machine.ID,
		BootID:     a.machine.BootID,
		IP:         a.cluster.NodeIP,
		Role:       a.cluster.NodeRole,
		Hostname:   a.machine.Hostname,
		ConfigHash: a.cluster.Hash,
		Phase:      a.cfg.Phase,
		Error:      a.cfg.Error,
		Facts:      a.machine.Facts,
		VIPs:       vips,

		VIPStates:   states,
		VIPsLeftOut: leftOut,
		Services:    seen.services,

		JoinToken: a.token,
		Secret:    a.secret,
	}
}

// join reports until there is an answer that counts.
func (a *agent) join(ctx context.Context) (api.PhoneHomeResponse, error) {
	for attempt := 1; ; attempt++ {
		answer, err := a.report(ctx)
		if err == nil {
			a.log.Info("accepted", "phase", a.cfg.Phase, "state", answer.State, "message", answer.Message,
				"machine_id", a.machine.ID, "machine_id_source", a.machine.IDSource)
			if answer.Hold != "" && a.cfg.Phase == node.PhaseBooted {
				a.log.Warn("do not install", "reason", answer.Hold)
			}
			return answer, nil
		}
		if ctx.Err() != nil {
			return answer, fmt.Errorf("interrupted at attempt %d: %w", attempt, context.Cause(ctx))
		}
		var refused *api.Error
		if errors.As(err, &refused) && !refused.Temporary() {
			return answer, err
		}
		if a.cfg.Attempts > 0 && attempt >= a.cfg.Attempts {
			return answer, fmt.Errorf("%w in %d attempts: %w", ErrGaveUp, attempt, err)
		}
		wait := backoff(attempt, err)
		a.log.Warn("not reached, trying again", "attempt", attempt, "wait", wait.Round(time.Millisecond), "error", err)
		if !sleep(ctx, wait) {
			return answer, fmt.Errorf("interrupted at attempt %d: %w", attempt, context.Cause(ctx))
		}
	}
}

// beat reports until ctx ends, or with UntilRetry the node is retried. It logs when
// something becomes different and not each time.
func (a *agent) beat(ctx context.Context, answer api.PhoneHomeResponse) (retried bool) {
	a.said = state(answer)
	failed := answer.State == node.Failed
	failures := 0
	wait, listens := first(interval(answer)), true
	for a.rest(ctx, wait, listens) {
		a.reload()
		next, err := a.report(ctx)
		listens = err == nil
		var refused *api.Error
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil:
			failures = 0
			wait = interval(next)
			a.say(state(next), slog.LevelInfo, "heartbeat", "state", next.State, "message", next.Message)
			if a.cfg.UntilRetry && failed && next.State != node.Failed {
				return true
			}
			failed = next.State == node.Failed
		case errors.As(err, &refused) && !refused.Temporary():
			failures = 0
			wait = jitter(refusedInterval)
			a.say(refused.Code, slog.LevelError, "heartbeat refused", "code", refused.Code, "title", refused.Title, "reason", refused.Detail)
		default:
			failures++
			wait = backoff(failures, err)
			a.say("unreachable", slog.LevelWarn, "deployer not reached, trying again without end", "error", err)
		}
	}
	return false
}

// reload looks at the token and at cluster-config.json again, so that the deployer learns of a new
// configuration without a restart of this service. Who the node is does not change
// under way.
func (a *agent) reload() {
	if a.cfg.Given != nil {
		return
	}
	if token, err := secretfile.Token(a.cfg.JoinTokenFile); err == nil {
		a.token = token
	}
	fresh, err := ReadClusterConfig(a.cfg.ConfigPath)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return // the ISO may unmount it
	case err == nil && fresh.NodeID != a.cluster.NodeID:
		err = fmt.Errorf("cluster config %s is now that of node %s", a.cfg.ConfigPath, fresh.NodeID)
	}
	if err != nil {
		if a.unread != err.Error() {
			a.unread = err.Error()
			a.log.Error("cluster config not read again, reporting the old one", "error", err)
		}
		return
	}
	a.cluster, a.unread = fresh, ""
}

// say logs what is not what was logged last.
func (a *agent) say(what string, level slog.Level, message string, fields ...any) {
	if a.said != what {
		a.said = what
		a.log.Log(context.Background(), level, message, fields...)
	}
}

func state(answer api.PhoneHomeResponse) string {
	return string(answer.State) + " " + answer.Message
}

// backoff is a random time up to a bound that doubles with each failure, and not
// less than what the server asked for.
func backoff(failures int, err error) time.Duration {
	bound := backoffMax
	if failures < 10 {
		bound = min(bound, backoffBase<<failures)
	}
	wait := rand.N(bound)
	var answered *api.Error
	if errors.As(err, &answered) {
		wait += min(answered.RetryAfter, maxRetryAfter)
	}
	return wait
}

// interval is the time to the next heartbeat: what the deployer tells, within
// reason, give or take a tenth.
func interval(answer api.PhoneHomeResponse) time.Duration {
	seconds := min(max(answer.HeartbeatIntervalSeconds, int(minInterval/time.Second)), int(maxInterval/time.Second))
	return jitter(time.Duration(seconds) * time.Second)
}

// first is when the first heartbeat comes: nodes that joined at once, after a power
// failure, are spread over the whole interval from then on.
func first(interval time.Duration) time.Duration {
	return minInterval + rand.N(max(1, interval-minInterval))
}

func jitter(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5) }

// sleep waits for d and says whether ctx still runs.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
