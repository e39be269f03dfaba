package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/centra/plasmacloud/bgp/vip"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// benchHold measures how long the host takes to hold many VIPs and to let go of them, as
// addresses and as local routes, by one call of what the announcer uses for that, beside
// `ip -batch` doing the same. The announcer itself calls it in parts.
func benchHold(ctx context.Context, b *bench) ([]figure, error) {
	var figures []figure
	for _, vips := range b.vips {
		for _, how := range []vip.How{vip.Route, vip.Address} {
			if how == vip.Address && vips > 10_000 { // the kernel's time grows with their square
				continue
			}
			var took, byIP [2][]time.Duration
			for range b.runs {
				ours, err := holdByNetlink(ctx, how, vips)
				if err != nil {
					return nil, err
				}
				theirs, err := holdByIP(how, vips)
				if err != nil {
					return nil, err
				}
				for i := range took {
					took[i], byIP[i] = append(took[i], ours[i]), append(byIP[i], theirs[i])
				}
			}
			for i, do := range []string{"held", "released"} {
				half, theirs := percentile(took[i], 50), percentile(byIP[i], 50)
				figures = append(figures, figure{
					work:  fmt.Sprintf("%d VIPs %s as %s", vips, do, how),
					value: fmt.Sprintf("%.0f ms", float64(half)/1e6),
					peer:  fmt.Sprintf("the time of ip -batch (%.0f ms)", float64(theirs)/1e6),
					ratio: float64(half) / float64(theirs),
				})
			}
		}
	}
	return figures, nil
}

func inHost(f func(*lab.Host) error) (err error) {
	l, err := lab.New("bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	host, err := l.Host("node")
	if err != nil {
		return err
	}
	return f(host)
}

func holdByNetlink(ctx context.Context, how vip.How, vips int) (took [2]time.Duration, err error) {
	addrs := make([]netip.Addr, vips)
	for i := range addrs {
		addrs[i] = vipAddress(i)
	}
	err = inHost(func(host *lab.Host) error {
		holder, err := vip.Open(vip.Config{Interface: "lo", NetNS: host.Path()})
		if err != nil {
			return err
		}
		defer holder.Close()
		for i, do := range []func(context.Context, vip.How, []netip.Addr) error{holder.Bind, holder.Release} {
			began := time.Now()
			if err := do(ctx, how, addrs); err != nil {
				return err
			}
			took[i] = time.Since(began)
		}
		return nil
	})
	return took, err
}

func holdByIP(how vip.How, vips int) (took [2]time.Duration, err error) {
	err = inHost(func(host *lab.Host) error {
		for i, do := range []string{"add", "del"} {
			var batch strings.Builder
			for n := range vips {
				if how == vip.Route {
					fmt.Fprintf(&batch, "route %s local %s dev lo table local proto 86 metric 86\n", do, vipAddress(n))
				} else {
					fmt.Fprintf(&batch, "addr %s %s/32 dev lo\n", do, vipAddress(n))
				}
			}
			file := filepath.Join(host.Dir, do)
			if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
				return err
			}
			began := time.Now()
			if out, err := command("ip", "-n", host.Namespace, "-batch", file).CombinedOutput(); err != nil {
				return fmt.Errorf("ip -batch: %w: %.200s", err, out)
			}
			took[i] = time.Since(began)
		}
		return nil
	})
	return took, err
}
