package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
	var orders bgp.DrainOrders
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		if err = d.Decode(&orders); err != nil {
			err = fmt.Errorf("%s: %w; remove it, if nothing is to be drained", file, err)
		}
	}
	return orders, err
}

// save replaces the file as a whole, or not at all, also when the machine stops.
func save(file string, orders bgp.DrainOrders) error {
	data, err := json.MarshalIndent(orders, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(file)
	temporary, err := os.CreateTemp(dir, ".drains-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temporary.Name()) }() // after the rename there is none
	_, err = temporary.Write(append(data, '\n'))
	if err == nil {
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary.Name(), file); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
