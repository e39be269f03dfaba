// Package sysctl sets the kernel's settings that VIPs of a network of the host itself
// need (direct server return), and puts them back to what they were.
package sysctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
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

// kept is the file: what was there before, of this boot of the machine.
type kept struct {
	Boot   string            `json:"boot"`
	NetNS  string            `json:"netns"`
	Before map[string]string `json:"before"`
}

// Set sets QuietARP in the network namespace, "" for our own, where less is set, and keeps
// in file what was there before; what an announcer has kept that was killed stays as it
// is. So a restart finds everything set, and changes nothing.
func Set(file, ns string) error {
	return in(ns, func() error {
		k, err := load(file, ns)
		if err != nil {
			return err
		}
		if k == nil {
			k = &kept{Boot: bootID(), NetNS: ns, Before: map[string]string{}}
			for key := range QuietARP {
				if k.Before[key], err = read(key); err != nil {
					return err
				}
			}
			data, err := json.MarshalIndent(k, "", "  ")
			if err != nil {
				return err
			}
			if err := control.Replace(file, append(data, '\n')); err != nil {
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

// Restore puts back what Set has changed, where it still is what Set made it, and forgets
// it. Without a file there is nothing to do.
func Restore(file, ns string) error {
	return in(ns, func() error {
		k, err := load(file, ns)
		if err != nil || k == nil {
			return err
		}
		var errs []error
		for key, before := range k.Before {
			now, err := read(key)
			if err == nil && now == QuietARP[key] && before < now {
				err = os.WriteFile(path(key), []byte(before), 0)
			}
			errs = append(errs, err)
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		return os.Remove(file)
	})
}

// load reads the file; nil: there is none, or it is of another boot or namespace.
func load(file, ns string) (*kept, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	k := &kept{}
	if err := json.Unmarshal(data, k); err != nil {
		return nil, fmt.Errorf("%s: %w; remove it, and the settings stay as they are now", file, err)
	}
	for key, value := range k.Before {
		if QuietARP[key] == "" || len(value) != 1 || value < "0" || value > "9" {
			return nil, fmt.Errorf("%s: %.60q as %.60q is none of our settings; remove it, and they stay as they are now", file, key, value)
		}
	}
	if k.Boot != bootID() || k.NetNS != ns {
		return nil, nil
	}
	return k, nil
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
