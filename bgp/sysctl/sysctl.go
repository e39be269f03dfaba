// Package sysctl sets the kernel's settings that VIPs of a network of the host itself
// need (direct server return), and puts them back to what they were.
package sysctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netns"

	"github.com/centra/plasmacloud/bgp/control"
)

// QuietARP are the settings by which a host leaves ARP requests for a VIP unanswered that
// come in over another interface than the one that has it, and never names a VIP as the
// sender of one (ip-sysctl of the kernel's documentation). Of "all" and an interface the
// greater value counts, so "all" is enough for each.
var QuietARP = map[string]string{
	"net/ipv4/conf/all/arp_ignore":   "1",
	"net/ipv4/conf/all/arp_announce": "2",
}

// kept is what was there before in one network namespace, since the machine booted. The file
// has one after the other.
type kept struct {
	Boot   string            `json:"boot"`
	NetNS  string            `json:"netns"`
	Before map[string]string `json:"before"`
}

// Set sets QuietARP in the network namespace, "" for our own, where less is set, and keeps
// in file what was there before; what an announcer has kept that was killed stays as it
// is, also of another namespace. So a restart finds everything set, and changes nothing.
func Set(file, ns string) error {
	unlock, err := control.Lock(file)
	if err != nil {
		return err
	}
	defer unlock()
	return in(ns, func() error {
		all, err := load(file)
		if err != nil {
			return err
		}
		if of(all, ns) < 0 {
			k := kept{Boot: bootID(), NetNS: ns, Before: map[string]string{}}
			for key := range QuietARP {
				if k.Before[key], err = read(key); err != nil {
					return err
				}
			}
			if err := save(file, append(all, k)); err != nil {
				return err
			}
		}
		for key, value := range QuietARP {
			now, err := read(key)
			if err == nil && now < value { // both are one digit
				err = os.WriteFile(path(key), []byte(value), 0)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Restore puts back what Set has changed in the network namespace, where it still is what
// Set made it, and forgets it. Without a file there is nothing to do.
func Restore(file, ns string) error {
	unlock, err := control.LockThere(file)
	if unlock == nil {
		return err
	}
	defer unlock()
	all, err := load(file)
	i := of(all, ns)
	if err != nil || i < 0 {
		return err
	}
	err = in(ns, func() error {
		var errs []error
		for key, before := range all[i].Before {
			now, err := read(key)
			if err == nil && now == QuietARP[key] && before < now {
				err = os.WriteFile(path(key), []byte(before), 0)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // else the namespace is gone
		return err
	}
	return save(file, slices.Delete(all, i, i+1))
}

// load reads what file has of this boot.
func load(file string) ([]kept, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove it, and the settings stay as they are now", file, err)
	}
	return slices.DeleteFunc(all, func(k kept) bool { return k.Boot != bootID() }), nil
}

func parse(data []byte) (all []kept, err error) {
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var k kept
		if err := d.Decode(&k); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		for key, value := range k.Before {
			if QuietARP[key] == "" || len(value) != 1 || value < "0" || value > "9" {
				return nil, fmt.Errorf("%.60q as %.60q is none of our settings", key, value)
			}
		}
		all = append(all, k)
	}
}

// of is where all has the network namespace; -1: nowhere.
func of(all []kept, ns string) int {
	return slices.IndexFunc(all, func(k kept) bool { return filepath.Clean(k.NetNS) == filepath.Clean(ns) })
}

// save replaces the file, and removes one that has nothing to keep.
func save(file string, all []kept) error {
	if len(all) == 0 {
		return os.Remove(file)
	}
	var data bytes.Buffer
	e := json.NewEncoder(&data)
	e.SetIndent("", "  ")
	for _, k := range all {
		if err := e.Encode(k); err != nil {
			return err
		}
	}
	return control.Replace(file, data.Bytes())
}

func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

func path(key string) string { return filepath.Join("/proc/sys", key) }

func read(key string) (string, error) {
	data, err := os.ReadFile(path(key))
	return strings.TrimSpace(string(data)), err
}

// in runs f in a network namespace.
func in(path string, f func() error) error {
	if path == "" {
		return f()
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer ns.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("network namespace %s: %w", path, err)
			return
		}
		done <- f()
	}()
	return <-done
}
