package server

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
)

// The list of all nodes is megabytes, and whoever asks may be slow to read it. So
// lists are made one at a time, and those who wait share what is made after they
// asked. While more than freshLists are being read, one that is up to staleList
// old does for the others, which bounds how many are in memory: one for each
// staleList of WriteTimeout, and freshLists.
const (
	freshLists = 8
	staleList  = time.Second
)

type lists struct {
	reading atomic.Int64 // answers on their way

	mu    sync.Mutex
	began time.Time // when last was begun
	last  json.RawMessage
}

// get is the list and what to call once it is written. encode makes a new one.
func (l *lists) get(ctx context.Context, encode func(context.Context) (json.RawMessage, error)) (list json.RawMessage, done func(), err error) {
	asked := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	fresh := l.began.After(asked) || l.reading.Load() >= freshLists && now.Sub(l.began) < staleList
	if l.last == nil || !fresh {
		made, err := encode(ctx)
		if err != nil {
			return nil, nil, err
		}
		l.began, l.last = now, made
	}
	l.reading.Add(1)
	return l.last, func() { l.reading.Add(-1) }, nil
}

func (s *server) encodeNodes(ctx context.Context) (json.RawMessage, error) {
	views, err := s.registry.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	list := api.NodeList{Nodes: make([]api.Node, len(views))}
	for i, v := range views {
		list.Nodes[i] = wireNode(v)
		list.Nodes[i].History = nil
	}
	return encode(list), nil
}
