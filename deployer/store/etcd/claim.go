package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Claim says that the prefix holds the nodes of cluster. It is an error when it holds
// those of another one: to declare a manifest over them would take them out of theirs.
func (s *Store) Claim(ctx context.Context, cluster string) error {
	mine, cancel, err := s.within(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	key := s.key("meta", "cluster")
	answer, err := s.client.Txn(mine).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, cluster)).
		Else(clientv3.OpGet(key)).
		Commit()
	if err != nil {
		return s.failedFor(ctx, err)
	}
	if answer.Succeeded {
		return nil
	}
	if holder := string(answer.Responses[0].GetResponseRange().Kvs[0].Value); holder != cluster {
		return failuref("%s in etcd belongs to the cluster %s, and the manifest is of %s: set store.prefix to one of its own, or, where the cluster has a new name, delete the key %s",
			s.cfg.Prefix, holder, cluster, key)
	}
	return nil
}
