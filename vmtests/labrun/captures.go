package labrun

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"

	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// captures is what every router sends and receives of BGP, in files of the lab.
type captures struct {
	running map[string]*lab.Capture
	files   map[string]*os.File
	buffers []*bufio.Writer
}

func captureRouters(c *labcluster.Cluster) (*captures, error) {
	all := &captures{running: map[string]*lab.Capture{}, files: map[string]*os.File{}}
	for _, name := range c.RouterNames() {
		host := c.Routers[name].Host
		file, err := os.Create(filepath.Join(host.Dir, "bgp.pcap"))
		if err != nil {
			return all, err
		}
		buffer := bufio.NewWriter(file)
		capture, err := host.CaptureBGP(buffer)
		if err != nil {
			file.Close()
			return all, err
		}
		all.running[name], all.files[name] = capture, file
		all.buffers = append(all.buffers, buffer)
	}
	return all, nil
}

// save ends the captures and puts them beside what else is kept of the routers.
func (all *captures) save(dir string) error {
	if all == nil {
		return nil
	}
	files := all.files
	err := all.close()
	for name, file := range files {
		text, readErr := os.ReadFile(file.Name())
		err = errors.Join(err, readErr, os.MkdirAll(filepath.Join(dir, name), 0o755),
			os.WriteFile(filepath.Join(dir, name, "bgp.pcap"), text, 0o644))
	}
	return err
}

// close ends the captures.
func (r *Runner) close(all *captures) {
	if err := all.close(); err != nil {
		r.cfg.Say("warning: the captures are not whole: %v", err)
	}
}

func (all *captures) close() error {
	if all == nil {
		return nil
	}
	var errs []error
	for _, c := range all.running {
		errs = append(errs, c.Close())
	}
	for _, b := range all.buffers {
		errs = append(errs, b.Flush())
	}
	for _, f := range all.files {
		errs = append(errs, f.Close())
	}
	all.running, all.buffers, all.files = nil, nil, nil
	return errors.Join(errs...)
}
