package lab

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
)

// first runs functions on the first thread of this process.
var first = make(chan func())

// The first thread is that of init and, locked there, of TestMain.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	code := make(chan int)
	go func() { code <- m.Run() }()
	for {
		select {
		case f := <-first:
			f()
		case status := <-code:
			os.Exit(status)
		}
	}
}

// TestKillAllSparesItself: a host is killed while the first thread of this process is in it.
func TestKillAllSparesItself(t *testing.T) {
	l, err := New("spare")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	host, err := l.Host("only")
	require.NoError(t, err)
	done := make(chan struct{})
	first <- func() {
		defer close(done)
		home, err := netns.Get()
		if !assert.NoError(t, err) {
			return
		}
		defer home.Close()
		assert.NoError(t, host.enter())
		pids, err := ip("netns", "pids", host.Namespace)
		assert.NoError(t, err)
		assert.Contains(t, strings.Fields(pids), strconv.Itoa(os.Getpid()))
		assert.NoError(t, host.KillAll())
		assert.NoError(t, netns.Set(home))
	}
	<-done
}
