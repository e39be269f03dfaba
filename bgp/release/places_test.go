package release

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/internal/netnstest"
)

func config(t *testing.T, speaker, ns string) *bgp.Config {
	t.Helper()
	cfg, err := bgp.ParseConfig(fmt.Appendf(nil, `{"schema_version": 1, "node_id": "n", "asn": 65001, "speaker": {"address": %q}, "hold": {"netns": %q}, "vips": [{"address": "203.0.113.10"}]}`, speaker, ns))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// text names places, such as "1/ 2/edge" for ports and network namespaces.
func text(places []*bgp.Config) string {
	var names []string
	for _, cfg := range places {
		names = append(names, strings.TrimPrefix(cfg.Speaker.Address, "127.0.0.1:")+"/"+strings.TrimPrefix(cfg.Hold.NetNS, "/run/netns/"))
	}
	return strings.Join(names, " ")
}

// A place stays noted until nothing is left there, whatever others come; the last one is
// looked at first.
func TestPlaces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "last.json")
	a, b, c := config(t, "127.0.0.1:1", ""), config(t, "127.0.0.1:1", "/run/netns/edge"), config(t, "127.0.0.1:2", "/run/netns/edge")
	expect := func(what string, cfg *bgp.Config, want string) {
		t.Helper()
		if got, err := Places(file, cfg); err != nil || text(got) != want {
			t.Errorf("%s: %q, %v, want %q", what, text(got), err, want)
		}
	}
	keep := func(cfg *bgp.Config, want string) {
		t.Helper()
		if others, err := Keep(file, cfg, true); err != nil || text(others) != want {
			t.Errorf("left elsewhere: %q, %v, want %q", text(others), err, want)
		}
	}
	if _, err := Places(file, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file, and no configuration: %v", err)
	}
	expect("no file", b, "1/edge")
	keep(a, "")
	keep(b, "1/")
	keep(b, "1/")
	expect("by the file", nil, "1/edge 1/")
	expect("as last", b, "1/edge 1/")
	expect("another", c, "2/edge 1/edge 1/")
	expect("the first again", a, "1/ 1/edge")
	keep(c, "1/ 1/edge")
	keep(config(t, "127.0.0.1:1", "/run/netns//edge/"), "1/ 2/edge")
	if err := Forget(file, b); err != nil {
		t.Error(err)
	}
	expect("one is released", nil, "2/edge 1/")
	if err := errors.Join(Forget(file, a), Forget(file, b), Forget(file, c)); err != nil {
		t.Error(err)
	}
	expect("all are released", nil, "")
	for i := range 2 * maxPlaces {
		if _, err := Keep(file, config(t, fmt.Sprintf("127.0.0.1:%d", i+1), ""), true); err != nil {
			t.Error(err)
		}
	}
	if got, err := Places(file, nil); err != nil || len(got) != maxPlaces || text(got[:1]) != "16/" {
		t.Errorf("of many: %q, %v", text(got), err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if Forget(file, a) == nil {
		t.Error("a broken file is taken")
	}
	if _, err := Places(file, a); err == nil {
		t.Error("a broken file is taken")
	}
	if others, err := Keep(file, a, true); err == nil || others != nil {
		t.Errorf("a broken file, and nothing said: %q", text(others))
	}
	expect("after a broken file", nil, "1/")
}

// A place whose speaker was never ready, such as one with a slip in its address, does not
// stay noted beside another in its network namespace; one whose speaker was ready once does.
func TestPlaceThatNeverWasReady(t *testing.T) {
	file := filepath.Join(t.TempDir(), "last.json")
	slip, right, elsewhere := config(t, "127.0.0.1:1", ""), config(t, "127.0.0.1:2", ""), config(t, "127.0.0.1:1", "/run/netns/edge")
	for i, step := range []struct {
		cfg   *bgp.Config
		ready bool
		want  string // as noted, the last first
	}{
		{slip, false, "1/"}, {elsewhere, false, "1/edge 1/"}, {right, false, "2/ 1/edge"}, {right, true, "2/ 1/edge"},
		{right, false, "2/ 1/edge"}, {slip, false, "1/ 2/ 1/edge"}, {elsewhere, true, "1/edge 1/ 2/"}, {right, false, "2/ 1/edge"},
	} {
		_, err := Keep(file, step.cfg, step.ready)
		if got, readErr := Places(file, nil); err != nil || readErr != nil || text(got) != step.want {
			t.Fatalf("step %d: %q, %v, %v, want %q", i, text(got), err, readErr, step.want)
		}
	}
}

// What a release before kept, configurations alone, may have paths.
func TestPlacesOfAReleaseBefore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "last.json")
	before, err := config(t, "127.0.0.1:1", "").ForRelease()
	if err == nil {
		err = os.WriteFile(file, append(before, before...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if others, err := Keep(file, config(t, "127.0.0.1:2", ""), true); err != nil || text(others) != "1/ 1/" {
		t.Errorf("%q, %v", text(others), err)
	}
}

// An announcer that starts and a release of another place do not undo each other's notes.
func TestKeepAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "last.json")
	var all sync.WaitGroup
	for i := range maxPlaces - 1 {
		cfg, gone := config(t, fmt.Sprintf("127.0.0.1:%d", i+1), ""), config(t, "127.0.0.1:9", "")
		all.Go(func() {
			if _, err := Keep(file, cfg, true); err != nil {
				t.Error(err)
			}
			if err := Forget(file, gone); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, err := Load(file); err != nil || len(got) != maxPlaces-1 {
		t.Errorf("%q, %v", text(got), err)
	}
}

// Whoever puts things back after a release does so before an announcer may start.
func TestDoneComesFirst(t *testing.T) {
	cfg := config(t, "unix://"+t.TempDir()+"/none", netnstest.New(t).Path)
	calls := 0
	errs := All([]*bgp.Config{cfg}, slog.New(slog.DiscardHandler), func(of *bgp.Config, _ *slog.Logger, heldNoMore bool) {
		calls++
		if of != cfg || !heldNoMore || !bgp.Runs(cfg) {
			t.Errorf("%s: an announcer may start: %v; nothing is held: %v", of.Speaker.Address, !bgp.Runs(cfg), heldNoMore)
		}
	})
	if calls != 1 || errors.Join(errs...) != nil || bgp.Runs(cfg) {
		t.Errorf("%d calls, %v", calls, errs)
	}
}

// Whatever is in the file, what is taken from it can be kept, and is the same then.
func FuzzParse(f *testing.F) {
	const one = `{"schema_version": 1, "node_id": "n", "asn": 65001, "vips": []}`
	for _, text := range []string{"", one, one + "\n" + one, "{", "[]", one + "}", `{"schema_version": 1, "node_id": "n", "asn": 65001, "drain_delay": "90s", "graceful_shutdown": {},
		"speaker": {"address": "unix:///run/gobgpd.sock", "tls": {"server_name": "s"}}, "hold": {"netns": "/run/netns/edge", "lifetime": "1h"}, "vips": [{"address": "203.0.113.10"}]}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		places, err := parse(data)
		if err != nil {
			return
		}
		again, err := format(places)
		if err != nil {
			t.Fatal(err)
		}
		kept, err := parse(again)
		if err != nil || text(configs(kept)) != text(configs(places)) || !slices.EqualFunc(kept, places, func(a, b place) bool { return a.ready == b.ready }) {
			t.Errorf("%v: %q became %q", err, text(configs(places)), text(configs(kept)))
		}
	})
}
