package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// leaseSeconds is how long a leader that died or is cut off stays the leader: three
// timeouts, in whole seconds, which is what a lease has.
func (s *Store) leaseSeconds() int64 { return int64((3*s.cfg.Timeout + time.Second - 1) / time.Second) }

// Lead takes part in the choice of one leader among the deployers of the prefix, under
// name, until ctx ends or the store closes; then another one takes over at once.
// While it leads, and compact is not 0, it drops the history of etcd that is older
// than compact: etcd keeps each version of each key until somebody does.
//
// Two may believe to lead for a moment, when a process was stopped for so long that
// its lease ran out. What a leader writes is written like everything else, where the
// record is still as it was read, so that does no harm.
func (s *Store) Lead(ctx context.Context, name string, compact time.Duration) {
	s.working.Add(1)
	defer s.working.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()

	ask := time.NewTicker(time.Second)
	defer ask.Stop()
	other := ""
	for ctx.Err() == nil {
		holder, lease, err := s.candidate(ctx, name)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.cfg.Logger.DebugContext(ctx, "no answer to who leads", "error", s.failed(err))
		case lease != 0:
			other = ""
			s.cfg.Logger.InfoContext(ctx, "leading", "name", name)
			s.leading.Store(true)
			s.term(ctx, lease, compact)
			s.leading.Store(false)
			s.cfg.Logger.InfoContext(ctx, "no longer leading", "name", name)
		case holder != "" && holder != other: // "" is nobody yet
			other = holder
			s.cfg.Logger.InfoContext(ctx, "another deployer leads", "name", other)
		}
		select {
		case <-ask.C:
		case <-ctx.Done():
		}
	}
}

// Leading says whether this deployer is the leader.
func (s *Store) Leading() bool { return s.leading.Load() }

// candidate is who leads, or the lease with which we do from now on.
func (s *Store) candidate(ctx context.Context, name string) (holder string, lease clientv3.LeaseID, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	key := s.key("leader")
	answer, err := s.client.Get(ctx, key)
	if err != nil {
		return "", 0, err
	}
	if len(answer.Kvs) > 0 {
		return string(answer.Kvs[0].Value), 0, nil
	}
	granted, err := s.client.Grant(ctx, s.leaseSeconds())
	if err != nil {
		return "", 0, err
	}
	put, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, name, clientv3.WithLease(granted.ID))).
		Commit()
	if err == nil && put.Succeeded {
		return name, granted.ID, nil
	}
	s.resign(ctx, granted.ID)
	return "", 0, err // the next round tells who was faster
}

// resign gives up a lease. Where that fails, it runs out.
func (s *Store) resign(ctx context.Context, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
	defer cancel()
	_, _ = s.client.Revoke(ctx, lease)
}

// term leads until the lease is lost or ctx ends.
func (s *Store) term(ctx context.Context, lease clientv3.LeaseID, compact time.Duration) {
	defer s.resign(ctx, lease)
	kept, err := s.client.KeepAlive(ctx, lease) // closes when the lease must have run out
	if err != nil {
		return
	}
	var due <-chan time.Time
	if compact > 0 {
		ticker := time.NewTicker(compact)
		defer ticker.Stop()
		due = ticker.C
	}
	var old int64 // the revision of one interval ago
	for {
		select {
		case _, ok := <-kept:
			if !ok {
				return
			}
		case <-ctx.Done():
			return
		case <-due:
			if old, err = s.compact(ctx, old); err != nil && ctx.Err() == nil {
				s.cfg.Logger.WarnContext(ctx, "history of etcd not compacted", "error", s.failed(err))
			}
		}
	}
}

// compact drops the history before old and returns the revision of now.
func (s *Store) compact(ctx context.Context, old int64) (now int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if old > 0 {
		// That somebody else compacted further is no error of ours.
		_, err := s.client.Compact(ctx, old)
		switch {
		case errors.Is(err, rpctypes.ErrPermissionDenied):
			return old, failuref("this etcd lets only root compact: run it with --auto-compaction-retention=5m, and set store.compact_interval to 0s")
		case err != nil && !errors.Is(err, rpctypes.ErrCompacted):
			return old, err
		}
	}
	answer, err := s.client.Get(ctx, s.schemaKey(), clientv3.WithCountOnly())
	if err != nil {
		return old, err
	}
	return answer.Header.Revision, nil
}
