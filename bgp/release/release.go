package release

import (
	"context"
	"errors"
	"log/slog"

	"github.com/centra/plasmacloud/bgp"
)

// At takes down what an announcer with cfg left, in the order of a stop.
func At(cfg *bgp.Config, logger *slog.Logger) error {
	announcer, err := bgp.OpenLeft(cfg, logger)
	if err != nil {
		return err
	}
	stopped, stop := context.WithCancel(context.Background())
	stop()
	return errors.Join(announcer.Run(stopped), announcer.Close())
}
