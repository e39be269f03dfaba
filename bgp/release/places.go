// Package release takes down what announcers left that run no more, and keeps what it
// needs to know for that.
package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/control"
)

// A file has one place for each where something of an announcer's may be left, that of the
// last announcer at the end. One without any says that nothing is.
const (
	maxPlaces = 8 // places before those are forgotten
	maxBytes  = 1 << 20
)

// place is one of them.
type place struct {
	*bgp.Config
	ready bool // its speaker was, so that it may have paths
}

// kept is how a place stands in the file. A release before had the configuration alone.
type kept struct {
	Config json.RawMessage `json:"config"`
	Ready  bool            `json:"speaker_was_ready"`
}

// Load reads what is kept in file; no file is an error.
func Load(file string) ([]*bgp.Config, error) {
	places, err := load(file)
	return configs(places), err
}

func configs(places []place) (all []*bgp.Config) {
	for _, p := range places {
		all = append(all, p.Config)
	}
	return all
}

func load(file string) ([]place, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, err
	}
	places, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return places, nil
}

func parse(data []byte) (places []place, err error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("is larger than %d bytes", maxBytes)
	}
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var one json.RawMessage
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return places, nil
		} else if err != nil {
			return nil, err
		}
		k := kept{}
		if json.Unmarshal(one, &k) != nil || k.Config == nil {
			k = kept{one, true}
		}
		cfg, err := bgp.ParseConfig(k.Config)
		if err != nil {
			return nil, err
		}
		places = append(places, place{cfg, k.Ready})
	}
}

// Keep notes in file that an announcer runs with cfg, and whether its speaker was ready. It
// returns what is noted of other places, where announcers have left something. One whose
// speaker was never ready, such as one with a slip in its address, has no paths; what it has
// held is of the announcer now that runs in the same network namespace, so it is forgotten.
// A file that cannot be read is written anew.
func Keep(file string, cfg *bgp.Config, ready bool) ([]*bgp.Config, error) {
	unlock, err := control.Lock(file)
	if err != nil {
		return nil, err
	}
	defer unlock()
	others, was, err := elsewhere(file, cfg)
	others = slices.DeleteFunc(others, func(p place) bool { return !p.ready && p.Place().NetNS == cfg.Place().NetNS })
	others = others[max(0, len(others)+1-maxPlaces):]
	return configs(others), errors.Join(err, write(file, append(slices.Clone(others), place{cfg, ready || was})))
}

// Forget notes in file that nothing is left where an announcer ran with cfg.
func Forget(file string, cfg *bgp.Config) error {
	unlock, err := control.LockThere(file)
	if unlock == nil {
		return err
	}
	defer unlock()
	others, _, err := elsewhere(file, cfg)
	if err != nil {
		return err
	}
	return write(file, others)
}

// elsewhere is what is noted of other places than that of cfg, and whether the speaker of
// that is noted as ready.
func elsewhere(file string, cfg *bgp.Config) (others []place, ready bool, err error) {
	places, err := load(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for _, p := range places {
		if p.Place() != cfg.Place() {
			others = append(others, p)
		} else if p.ready {
			ready = true
		}
	}
	return others, ready, err
}

func write(file string, places []place) error {
	data, err := format(places)
	if err != nil {
		return err
	}
	return control.Replace(file, data)
}

func format(places []place) (data []byte, err error) {
	for _, p := range places {
		cfg, err := p.ForRelease()
		if err != nil {
			return nil, err
		}
		one, err := json.MarshalIndent(kept{cfg, p.ready}, "", "  ")
		if err != nil {
			return nil, err
		}
		data = append(append(data, one...), '\n')
	}
	return data, nil
}

// Places are where to release, the last place first: that of cfg, which may be nil, and
// those that file has beside it.
func Places(file string, cfg *bgp.Config) ([]*bgp.Config, error) {
	if cfg == nil {
		places, err := Load(file)
		slices.Reverse(places)
		return places, err
	}
	others, _, err := elsewhere(file, cfg)
	places := append(configs(others), cfg)
	slices.Reverse(places)
	return places, err
}
