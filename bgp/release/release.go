package release

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/centra/plasmacloud/bgp"
)

// All takes down what announcers left at places, one after the other, each in the order of
// a stop. Where speakers share a network namespace, addresses and routes stay held until
// the last of them is done, and stay at all if one failed. Where nothing is left to do at a
// place, it calls done while no announcer can start there; heldNoMore says that nothing is
// held in its network namespace either. errs are those of places, nil where all went well.
func All(places []*bgp.Config, logger *slog.Logger, done func(cfg *bgp.Config, logger *slog.Logger, heldNoMore bool)) (errs []error) {
	failed := map[string]bool{} // by network namespace
	for i, cfg := range places {
		ns := cfg.Place().NetNS
		last := !slices.ContainsFunc(places[i+1:], func(c *bgp.Config) bool { return c.Place().NetNS == ns })
		logger := logger.With("node", cfg.NodeID, "speaker", cfg.Speaker.Address)
		keep := failed[ns] || !last
		if keep {
			logger = logger.With("host", "keeps all")
			logger.Info("another speaker may still announce what is held here", "netns", ns)
		}
		err := at(cfg, keep, logger, func() {
			if !failed[ns] {
				done(cfg, logger, last)
			}
		})
		failed[ns] = failed[ns] || err != nil
		errs = append(errs, err)
	}
	return errs
}

// at takes down what an announcer with cfg left, and calls done where that went well.
func at(cfg *bgp.Config, keep bool, logger *slog.Logger, done func()) error {
	announcer, err := bgp.OpenLeft(cfg, keep, logger)
	if err != nil {
		return err
	}
	stopped, stop := context.WithCancel(context.Background())
	stop()
	if err = announcer.Run(stopped); err == nil {
		done()
	}
	return errors.Join(err, announcer.Close())
}
