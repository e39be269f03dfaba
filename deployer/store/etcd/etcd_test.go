package etcd_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/etcd"
	"github.com/centra/plasmacloud/deployer/store/etcdtest"
	"github.com/centra/plasmacloud/deployer/store/storetest"
)

var prefixes atomic.Int64

// fresh is a prefix that no other test uses.
func fresh() string { return fmt.Sprintf("/test/%d/", prefixes.Add(1)) }

func open(t testing.TB, server *etcdtest.Server, prefix string) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(context.Background(), etcd.Config{Endpoints: []string{server.URL}, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	for _, version := range etcdtest.Versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			server := etcdtest.Start(t, version)
			server.Client()
			storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
				prefix := fresh()
				s := open(t, server, prefix)
				return s, func() store.Store {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					return open(t, server, prefix)
				}
			})
		})
	}
}
