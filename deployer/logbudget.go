package deployer

import (
	"sync"
	"time"
)

// LogBudget bounds how many lines of a kind are logged, and counts the others: what a
// stranger, or thousands of nodes at once, can bring about must not fill the disk. Its
// zero value is ready.
type LogBudget struct {
	mu     sync.Mutex
	window time.Time // start of the current one
	count  int
}

const (
	logWindow = 10 * time.Second
	logBudget = 50 // lines a window
)

// Take says whether a line may be logged at now. The first call of a window also says
// how many lines of the one before it were not logged.
func (b *LogBudget) Take(now time.Time) (ok bool, unlogged int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if age := now.Sub(b.window); age >= logWindow || age < 0 { // or the clock was set back
		unlogged = max(0, b.count-logBudget)
		b.window, b.count = now, 0
	}
	b.count++
	return b.count <= logBudget, unlogged
}
