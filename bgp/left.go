package bgp

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"

	"github.com/centra/plasmacloud/bgp/vip"
)

// OpenLeft is Open to take down what an announcer left: an interface or a network namespace
// that is gone holds nothing. With keep, Run stops as ever, and each address and route
// stays that it would let go of then: another speaker may still announce it.
func OpenLeft(cfg *Config, keep bool, logger *slog.Logger) (*Announcer, error) {
	a, err := open(cfg, logger, true)
	if err == nil && keep {
		a.holder = &keeper{a.holder, map[netip.Addr]bool{}}
	}
	return a, err
}

// keeper is a Holder that lets go of nothing, and lists what it was to let go of no more.
type keeper struct {
	vip.Holder
	gone map[netip.Addr]bool
}

func (k *keeper) List(ctx context.Context) (vip.Held, error) {
	held, err := k.Holder.List(ctx)
	maps.DeleteFunc(held.Own, func(addr netip.Addr, _ vip.How) bool { return k.gone[addr] })
	return held, err
}

func (k *keeper) Release(_ context.Context, _ vip.How, addrs []netip.Addr) error {
	for _, addr := range addrs {
		k.gone[addr] = true
	}
	return nil
}
