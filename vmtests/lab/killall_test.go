package lab

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
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
	// Which thread a goroutine gets is chance, so all there are get in.
	in, leave := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	threads := 2 * runtime.GOMAXPROCS(0)
	for range threads {
		all.Go(func() {
			assert.NoError(t, host.Inside(func() error {
				in <- struct{}{}
				<-leave
				return nil
			}))
		})
	}
	for range threads {
		<-in
	}
	pids, err := ip("netns", "pids", host.Namespace)
	require.NoError(t, err)
	require.Contains(t, strings.Fields(pids), strconv.Itoa(os.Getpid()), "the first thread is not in it, so this shows nothing")
	assert.NoError(t, host.KillAll())
	close(leave)
	all.Wait()
}
