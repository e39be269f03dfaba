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

// A file has one configuration for each place where something of an announcer's may be
// left, that of the last announcer at the end. One without any says that nothing is.
const (
	maxPlaces = 8 // places before those are forgotten
	maxBytes  = 1 << 20
)

// Load reads what is kept in file; no file is an error.
func Load(file string) ([]*bgp.Config, error) {
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

func parse(data []byte) (places []*bgp.Config, err error) {
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
		cfg, err := bgp.ParseConfig(one)
		if err != nil {
			return nil, err
		}
		places = append(places, cfg)
	}
}

// Keep notes in file that an announcer runs with cfg. It returns what is noted of other
// places, where announcers have left something. A file that cannot be read is written anew.
func Keep(file string, cfg *bgp.Config) (others []*bgp.Config, err error) {
	unlock, err := control.Lock(file)
	if err != nil {
		return nil, err
	}
	defer unlock()
	others, err = elsewhere(file, cfg)
	others = others[max(0, len(others)+1-maxPlaces):]
	return others, errors.Join(err, write(file, append(slices.Clone(others), cfg)))
}

// Forget notes in file that nothing is left where an announcer ran with cfg.
func Forget(file string, cfg *bgp.Config) error {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := control.Lock(file)
	if err != nil {
		return err
	}
	defer unlock()
	others, err := elsewhere(file, cfg)
	if err != nil {
		return err
	}
	return write(file, others)
}

// elsewhere is what is noted of other places than that of cfg.
func elsewhere(file string, cfg *bgp.Config) ([]*bgp.Config, error) {
	places, err := Load(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return slices.DeleteFunc(places, func(c *bgp.Config) bool { return c.Place() == cfg.Place() }), err
}

func write(file string, places []*bgp.Config) error {
	var data []byte
	for _, cfg := range places {
		one, err := cfg.ForRelease()
		if err != nil {
			return err
		}
		data = append(data, one...)
	}
	return control.Replace(file, data)
}

// Places are where to release, the last place first: that of cfg, which may be nil, and
// those that file has beside it.
func Places(file string, cfg *bgp.Config) ([]*bgp.Config, error) {
	var places []*bgp.Config
	var err error
	if cfg == nil {
		places, err = Load(file)
	} else {
		places, err = elsewhere(file, cfg)
		places = append(places, cfg)
	}
	slices.Reverse(places)
	return places, err
}
