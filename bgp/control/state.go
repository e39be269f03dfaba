package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/centra/plasmacloud/bgp"
)

// Load reads the orders that stand. No file is no orders; one that cannot be read is
// an error, since what is drained must not be announced for want of a file.
func Load(file string) (bgp.DrainOrders, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return bgp.DrainOrders{}, nil
	}
	if err != nil {
		return bgp.DrainOrders{}, err
	}
	var orders bgp.DrainOrders
	if err := decode(bytes.NewReader(data), &orders); err != nil {
		return bgp.DrainOrders{}, fmt.Errorf("%s: %w; remove it, if nothing is to be drained", file, err)
	}
	return orders, nil
}

// decode reads one value of JSON, with no key that is not known and nothing behind it.
func decode(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); err == nil {
			err = errors.New("there is more behind its end")
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	return err
}

func save(file string, orders bgp.DrainOrders) error {
	data, err := json.MarshalIndent(orders, "", "  ")
	if err != nil {
		return err
	}
	return Replace(file, append(data, '\n'))
}

// ErrNotSynced is in an error of Replace after which the file is replaced, and may be the
// one before again after a crash of the machine.
var ErrNotSynced = errors.New("is written, and may be lost if the machine crashes")

// Replace replaces the file as a whole, or not at all, also when the machine stops; see
// ErrNotSynced.
func Replace(file string, data []byte) error {
	dir := filepath.Dir(file)
	temporary, err := os.CreateTemp(dir, "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temporary.Name()) }() // after the rename there is none
	_, err = temporary.Write(data)
	if err == nil {
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary.Name(), file); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("%s %w: %w", file, ErrNotSynced, err)
	}
	return nil
}

var syncDir = func(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
