package scenario

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// at is what a router should have of a prefix: by which next hops of these nodes.
func (p *play) everyRouter(ctx context.Context, only string, check func(*labcluster.Router) error) error {
	if only != "" {
		if _, err := p.router(only); err != nil {
			return err
		}
	}
	return p.eventually(ctx, func() error {
		for _, name := range p.c.RouterNames() {
			if only != "" && name != only {
				continue
			}
			if err := check(p.c.Routers[name]); err != nil {
				return fmt.Errorf("router %s: %w", name, err)
			}
		}
		return nil
	})
}

// atRouter takes `at ROUTER` off the end of words.
func atRouter(args []string) (rest []string, router string) {
	if n := len(args); n > 2 && args[n-2] == "at" {
		return args[:n-2], args[n-1]
	}
	return args, ""
}

func (p *play) routerCommand(ctx context.Context, args []string) (waits bool, err error) {
	rest, at := atRouter(args)
	switch {
	case match(rest, "has", "*", "via", "*"), match(rest, "has", "*"):
		vip, err := netip.ParseAddr(rest[1])
		if err != nil {
			return true, err
		}
		prefix := netip.PrefixFrom(vip, vip.BitLen())
		var via []*labcluster.Node
		if len(rest) == 4 {
			if via, err = p.every(rest[3]); err != nil {
				return true, err
			}
		}
		told := func(router string) bool {
			return slices.ContainsFunc(p.c.Wanted(router, nil), func(route lab.Route) bool { return route.Prefix == prefix })
		}
		if at == "" && !slices.ContainsFunc(p.c.RouterNames(), told) {
			return true, fmt.Errorf("no router is ever told of %s", vip)
		}
		return true, p.everyRouter(ctx, at, func(r *labcluster.Router) error {
			if !told(r.Host.Name) {
				if at != "" {
					return fmt.Errorf("is never told of %s", vip)
				}
				return nil // none of the nodes that have it peers with this one
			}
			var want []netip.Addr
			for _, n := range via {
				if slices.Contains(r.Neighbors(), n.ID) {
					want = append(want, n.NextHop(vip))
				}
			}
			slices.SortFunc(want, netip.Addr.Compare)
			hops, err := r.Lookup(prefix)
			slices.SortFunc(hops, netip.Addr.Compare)
			if err == nil && (len(hops) == 0 && (via == nil || len(want) > 0) || via != nil && !slices.Equal(hops, want)) {
				err = fmt.Errorf("has %s via %v, not %v", vip, hops, want)
			}
			return err
		})
	case match(rest, "lacks", "*"):
		vip, err := netip.ParseAddr(rest[1])
		if err != nil {
			return true, err
		}
		return true, p.everyRouter(ctx, at, func(r *labcluster.Router) error {
			hops, err := r.Lookup(netip.PrefixFrom(vip, vip.BitLen()))
			if err == nil && len(hops) > 0 {
				err = fmt.Errorf("has %s via %v", vip, hops)
			}
			return err
		})
	case match(args, "mark"):
		p.updates = map[string]int{}
		for name, r := range p.c.Routers {
			count, err := r.Updates()
			if err != nil {
				return false, err
			}
			p.updates[name] = count
		}
		return false, nil
	case match(args, "quiet"):
		for name, r := range p.c.Routers {
			count, err := r.Updates()
			if err != nil {
				return true, err
			}
			if count != p.updates[name] {
				return true, fmt.Errorf("router %s has heard %d updates since the mark", name, count-p.updates[name])
			}
		}
		return true, nil
	case match(rest, "sessions", "*"):
		return true, p.everyRouter(ctx, at, func(r *labcluster.Router) error {
			up, err := r.Established()
			if err == nil && fmt.Sprint(up) != rest[1] {
				err = fmt.Errorf("has %d sessions", up)
			}
			return err
		})
	case match(args, "kill", "*"), match(args, "start", "*"):
		r, err := p.router(args[1])
		if err != nil {
			return false, err
		}
		if args[0] == "kill" {
			return false, r.Kill()
		}
		return false, r.Start()
	}
	return false, errUsage
}
