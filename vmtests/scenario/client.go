package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// pullEvery is how often a client asks for a VIP unless told otherwise.
const pullEvery = 10 * time.Millisecond

func (p *play) clientCommand(ctx context.Context, args []string) (waits bool, err error) {
	switch {
	case len(args) >= 2 && args[0] == "pulls":
		return false, p.pull(ctx, args[1:])
	case match(args, "stops"):
		p.endClients()
		return false, nil
	case match(args, "lost", "none"), match(args, "lost", "at", "most", "*"):
		limit := 0
		if len(args) == 4 {
			if limit, err = strconv.Atoi(args[3]); err != nil || limit < 0 {
				return true, fmt.Errorf("%q is no number of requests", args[3])
			}
		}
		return true, p.eachClient(func(v ClientView) error {
			if v.Tally.Lost > limit {
				return fmt.Errorf("%d of %d requests were lost, first: %s", v.Tally.Lost, v.Tally.Requests, v.Tally.First)
			}
			return nil
		})
	case match(args, "outage", "at", "most", "*"):
		limit, err := time.ParseDuration(args[3])
		if err != nil {
			return true, fmt.Errorf("%q is no duration", args[3])
		}
		return true, p.eachClient(func(v ClientView) error {
			if v.Tally.Outage > limit {
				return fmt.Errorf("requests were lost for %s, and %s is the bound", v.Tally.Outage.Round(time.Millisecond), limit)
			}
			return nil
		})
	}
	return false, errUsage
}

// pull begins to ask for a VIP, by one router or by each that is told of it, and
// waits for the first answers.
func (p *play) pull(ctx context.Context, args []string) error {
	if p.c.Client == nil || len(p.c.Client.Via) == 0 {
		return errSkip{"it needs a router that forwards, BIRD or FRR, on a link with the nodes"}
	}
	vip, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	routers, every := []string(nil), cmp.Or(p.stage.Pull, pullEvery)
	for rest := args[1:]; len(rest) > 0; rest = rest[2:] {
		switch {
		case len(rest) > 1 && rest[0] == "via":
			routers = []string{rest[1]}
		case len(rest) > 1 && rest[0] == "every":
			if every, err = time.ParseDuration(rest[1]); err != nil || every < time.Millisecond {
				return fmt.Errorf("%q is no duration from 1ms on", rest[1])
			}
		default:
			return errUsage
		}
	}
	if len(routers) == 1 && !slices.Contains(p.c.Client.Via, routers[0]) {
		return fmt.Errorf("no client is behind router %s; there is one behind: %s", routers[0], strings.Join(p.c.Client.Via, ", "))
	}
	if routers == nil {
		for _, name := range p.c.Client.Via {
			hops, err := p.c.Routers[name].Lookup(netip.PrefixFrom(vip, vip.BitLen()))
			if err == nil && len(hops) > 0 {
				routers = append(routers, name)
			}
		}
	}
	if len(routers) == 0 {
		return fmt.Errorf("no router with a client behind it has %s", vip)
	}
	var pulls []*labcluster.Pull
	for _, name := range routers {
		if err := p.eventually(ctx, func() error { return p.c.Client.Try(vip, name) }); err != nil {
			return err
		}
		pull, err := p.c.Client.Pull(vip, name, every)
		if err != nil {
			return err
		}
		pulls = append(pulls, pull)
	}
	p.pulls = append(p.pulls, pulls...)
	return p.eventually(ctx, func() error {
		for _, pull := range pulls {
			if len(pull.Requests()) < 5 {
				return errors.New("no answers yet")
			}
		}
		return nil
	})
}

// endClients stops all pulls and keeps what they saw.
func (p *play) endClients() {
	for _, pull := range p.pulls {
		requests := pull.Stop()
		p.result.Clients = append(p.result.Clients, ClientView{pull.VIP.String(), pull.Router, labcluster.Count(requests), requests})
	}
	p.pulls = nil
}

// eachClient looks at what every client saw, those included that still ask.
func (p *play) eachClient(check func(ClientView) error) error {
	views := slices.Clone(p.result.Clients)
	for _, pull := range p.pulls {
		views = append(views, ClientView{pull.VIP.String(), pull.Router, labcluster.Count(pull.Requests()), nil})
	}
	if len(views) == 0 {
		return errors.New("no client has pulled")
	}
	var errs []error
	for _, v := range views {
		if err := check(v); err != nil {
			errs = append(errs, fmt.Errorf("client of %s behind %s: %w", v.VIP, v.Router, err))
		}
	}
	return errors.Join(errs...)
}
