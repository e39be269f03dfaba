package lab

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestKillAllSparesItself: a host is killed while the first thread of this process is in it.
func TestKillAllSparesItself(t *testing.T) {
	l, err := New("spare")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	host, err := l.Host("only")
	require.NoError(t, err)
	// Which thread a goroutine gets is chance, so they get in until the first one is.
	in, leave := make(chan bool), make(chan struct{})
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			assert.NoError(t, host.Inside(func() error {
				in <- syscall.Gettid() == os.Getpid()
				<-leave
				return nil
			}))
		})
		if <-in {
			break
		}
	}
	pids, err := ip("netns", "pids", host.Namespace)
	require.NoError(t, err)
	require.Contains(t, strings.Fields(pids), strconv.Itoa(os.Getpid()), "the first thread is not in it, so this shows nothing")
	assert.NoError(t, host.KillAll())
	close(leave)
	all.Wait()
}
