package bolt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// filled is a file with some nodes, and with pages that are free.
func filled(t testing.TB, nodes int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := Open(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * nodes {
		n := node.New(fmt.Sprintf("node%03d", i%nodes), time.Now())
		n.Hostname = strings.Repeat("x", 200)
		if err := s.Update(t.Context(), n.ID, func(node.Node, bool) (node.Node, error) { return n, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestDamage: a file in which anything was overwritten, or that lost its end, is
// refused, or has its records as they were, or names those that cannot be read. No
// panic, no record lost in silence.
func TestDamage(t *testing.T) {
	t.Parallel()
	const nodes = 100
	whole := filled(t, nodes)
	if err := check(whole); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	path := filepath.Join(t.TempDir(), "state.db")
	var refused, named int
	for round := range 150 {
		data := append([]byte(nil), whole...)
		page := random.IntN(len(data)/4096) * 4096
		switch round % 10 {
		case 0:
			data = data[:page]
		case 1:
			copy(data[page:], make([]byte, 4096))
		default: // most of what steers is at the begin
			for range 1 + random.IntN(4) {
				data[page+random.IntN(96)] ^= byte(1 + random.IntN(255))
			}
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Config{Path: path})
		if err != nil {
			if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), path) {
				t.Errorf("round %d: %v", round, err)
			}
			if errors.Is(err, errDamaged) {
				refused++
			}
			continue
		}
		list, err := s.List(context.Background())
		broken, rest := store.Corrupt(err)
		// One that is cut off before its first page, or whose records hang on one of two
		// meta pages that are both whole, is another store's.
		if len(data) > 0 && (rest != nil || len(list)+len(broken) != nodes) && round%10 != 1 {
			t.Errorf("round %d: %d nodes and %d that cannot be read of %d, %v", round, len(list), len(broken), nodes, rest)
		}
		named += len(broken)
		if err := s.Close(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
	if refused < 50 || named == 0 {
		t.Errorf("%d damaged files were refused, and %d records named", refused, named)
	}
}

// TestDamageIsTold: what an operator reads.
func TestDamageIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	data := filled(t, 20)
	m, _ := readMeta(data, 0)
	order.PutUint64(data[m.root*m.pageSize:], 999)
	other, _ := readMeta(data, 4096)
	order.PutUint64(data[other.root*m.pageSize:], 999)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Config{Path: path})
	if err == nil || !strings.HasPrefix(err.Error(), "store: "+path+" cannot be used: the file is damaged: page ") ||
		!strings.HasSuffix(err.Error(), "it says that it is page 999; move it away, and restore a backup, or start anew without it") {
		t.Error(err)
	}
}

// FuzzCheck: whatever the file is, looking at it ends with a verdict.
func FuzzCheck(f *testing.F) {
	whole := filled(f, 20)
	f.Add(whole)
	f.Add(whole[:4096])
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, data []byte) { _ = check(data) })
}
