package sysctl

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/centra/plasmacloud/bgp/internal/netnstest"
)

// values are those of a namespace: of arp_ignore, and of arp_announce.
func values(t *testing.T, ns string) (got [2]string) {
	t.Helper()
	err := in(ns, func() (err error) {
		for i, key := range []string{"net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/all/arp_announce"} {
			if got[i], err = read(key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func assign(t *testing.T, ns, key, value string) {
	t.Helper()
	if err := in(ns, func() error { return os.WriteFile(path(key), []byte(value), 0) }); err != nil {
		t.Fatal(err)
	}
}

// Settings are put back to what was there before the first announcer, through crashes and
// restarts, and what somebody else has set since stays.
func TestSetAndRestore(t *testing.T) {
	ns, file := netnstest.New(t).Path, filepath.Join(t.TempDir(), "sysctls.json")
	expect := func(what string, err error, want [2]string) {
		t.Helper()
		if got := values(t, ns); err != nil || got != want {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	assign(t, ns, "net/ipv4/conf/all/arp_ignore", "0")
	assign(t, ns, "net/ipv4/conf/all/arp_announce", "1")
	expect("nothing is kept", Restore(file, ns), [2]string{"0", "1"})
	for range 2 { // the second one is after a crash
		expect("set", Set(file, ns), [2]string{"1", "2"})
	}
	expect("restored", Restore(file, ns), [2]string{"0", "1"})
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file: %v", err)
	}
	expect("set again", Set(file, filepath.Dir(ns)+"//"+filepath.Base(ns)), [2]string{"1", "2"})
	assign(t, ns, "net/ipv4/conf/all/arp_ignore", "8")
	expect("stricter by hand", Set(file, ns), [2]string{"8", "2"})
	expect("restored but for what is not ours", Restore(file, ns), [2]string{"8", "1"})

	expect("set", Set(file, ns), [2]string{"8", "2"})
	other := netnstest.New(t).Path
	if err := Restore(file, other); err != nil || values(t, ns) != [2]string{"8", "2"} {
		t.Errorf("of another namespace, and restored: %v", err)
	}
	// The next announcer was told another namespace: each is put back by its own release.
	if err := errors.Join(Set(file, other), Set(file, ns)); err != nil || values(t, other) != [2]string{"1", "2"} {
		t.Errorf("of another namespace, and not set: %v", err)
	}
	expect("restored in its turn", Restore(file, ns), [2]string{"8", "1"})
	if got := values(t, other); got != [2]string{"1", "2"} {
		t.Errorf("restored with another namespace: %v", got)
	}
	if err := Restore(file, other); err != nil || values(t, other) != [2]string{"0", "0"} {
		t.Errorf("not restored in the other namespace: %v", err)
	}
	expect("set", Set(file, ns), [2]string{"8", "2"})
	if err := os.WriteFile(file, []byte(`{"boot": "another", "netns": "`+ns+`", "before": {"net/ipv4/conf/all/arp_announce": "0"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("of another boot", Restore(file, ns), [2]string{"8", "2"})
	for _, bad := range []string{"{", `{"before": {"kernel/core_pattern": "1"}}`, `{"before": {"net/ipv4/conf/all/arp_ignore": "10"}}`} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if Set(file, ns) == nil || Restore(file, ns) == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	expect("after broken files", nil, [2]string{"8", "2"})

	// What was in a namespace that is gone is gone with it.
	gone := "/run/netns/gone"
	if err := os.WriteFile(file, []byte(`{"boot": "`+bootID()+`", "netns": "`+gone+`", "before": {}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Restore(file, gone); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file: %v", err)
	}
}

// An announcer of one namespace and a release in another do not undo each other's notes.
func TestAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sysctls.json")
	var spaces []string
	for range 4 {
		spaces = append(spaces, netnstest.New(t).Path)
	}
	each := func(f func(file, ns string) error, want [2]string) {
		t.Helper()
		var all sync.WaitGroup
		for _, ns := range spaces {
			all.Go(func() {
				if err := f(file, ns); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for _, ns := range spaces {
			if got := values(t, ns); got != want {
				t.Errorf("%s has %v, want %v", ns, got, want)
			}
		}
	}
	was := values(t, spaces[0])
	each(Set, [2]string{"1", "2"})
	each(Restore, was)
}

// What the file has is decided on as a whole, and only what is ours is ever written back.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "{}", "{", "[]", `{"boot": "b", "netns": "/run/netns/edge", "before": {"net/ipv4/conf/all/arp_ignore": "0"}}
{"before": {"net/ipv4/conf/all/arp_announce": "2"}}`, `{"before": {"kernel/core_pattern": "1"}}`, `{"before": {"net/ipv4/conf/all/arp_ignore": "10"}}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parse(data)
		if err != nil && all != nil {
			t.Errorf("%v, and %v", err, all)
		}
		for _, k := range all {
			for key, value := range k.Before {
				if QuietARP[key] == "" || len(value) != 1 || value < "0" || value > "9" {
					t.Errorf("%q is %q", key, value)
				}
			}
		}
	})
}
