package main

import (
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

const checkURL = "http://127.0.0.1:8080/"

// checked is a service on a node, whose health checks fail as told.
type checked struct {
	failing, told atomic.Bool
	asked         chan time.Time // when the check got its first bad, or good, answer
}

func newChecked(node *lab.Host) (*checked, error) {
	listener, err := node.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		return nil, err
	}
	c := &checked{asked: make(chan time.Time, 1)}
	c.told.Store(true)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: c}
	go func() { _ = server.Serve(listener) }() // as long as the bench runs
	return c, nil
}

func (c *checked) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if c.told.CompareAndSwap(false, true) {
		c.asked <- time.Now()
	}
	if c.failing.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// flip has the answers change, and returns when the first such was given.
func (c *checked) flip(up bool) (time.Time, error) {
	c.failing.Store(!up)
	c.told.Store(false)
	select {
	case at := <-c.asked:
		return at, nil
	case <-time.After(10 * time.Second):
		return time.Time{}, errors.New("nobody asks the check")
	}
}
