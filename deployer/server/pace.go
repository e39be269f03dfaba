package server

import (
	"context"
	"time"
)

const (
	streamPoll = 500 * time.Millisecond
	streamLife = 15 * time.Minute // then a watcher comes again, and shows its token again
)

// pace is when a stream looks for news, tells its watcher that it lives, and ends.
type pace struct {
	ctx           context.Context // of the watcher
	stopped       <-chan struct{} // the deployer stops
	end           *time.Timer
	poll, silence *time.Ticker
}

func (s *server) newPace(ctx context.Context) *pace {
	return &pace{ctx, s.cfg.Stop, time.NewTimer(streamLife), time.NewTicker(streamPoll), time.NewTicker(s.cfg.Heartbeat)}
}

func (p *pace) stop() {
	p.end.Stop()
	p.poll.Stop()
	p.silence.Stop()
}

// wait returns when it is time to look again, after a heartbeat where one is due. It
// returns false where the stream ends: beat says so, or its time is over.
func (p *pace) wait(beat func() bool) bool {
	select {
	case <-p.poll.C:
		return true
	case <-p.silence.C:
		return beat()
	case <-p.end.C:
	case <-p.ctx.Done():
	case <-p.stopped:
	}
	return false
}
