package qemu

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Phase is a part of a boot. It is over once the console has a match, or where
// there is a Check, once that returns nil.
type Phase struct {
	Name    string
	Pattern string
	Check   func() error
	Limit   time.Duration // 0: [Limit]
}

// Phases are those of the small ISO. From a kernel without a boot loader the first is none.
func Phases(loader bool, last ...Phase) []Phase {
	list := []Phase{{Name: "kernel", Pattern: userspaceMark}, {Name: "userspace", Pattern: networkMark}}
	if loader {
		list = append([]Phase{{Name: "firmware", Pattern: loaderMark}}, list...)
	}
	return append(list, last...)
}

// Took is how long each phase took.
type Took []struct {
	Phase string
	Took  time.Duration
}

// Total is the time of all phases.
func (t Took) Total() (all time.Duration) {
	for _, p := range t {
		all += p.Took
	}
	return all
}

func (t Took) String() string {
	var list []string
	for _, p := range t {
		list = append(list, fmt.Sprintf("%s %.2f s", p.Phase, p.Took.Seconds()))
	}
	return strings.Join(append(list, fmt.Sprintf("in all %.2f s", t.Total().Seconds())), ", ")
}

// Follow waits for the phases in their order, each for as long as it may take. Its
// error names the phase that did not end, and has the end of the console. A second
// call goes on where the first one ended.
func (m *Machine) Follow(phases ...Phase) (Took, error) {
	var took Took
	for _, p := range phases {
		limit := p.Limit
		if limit == 0 {
			limit = Limit
		}
		var until time.Duration
		var err error
		if p.Check != nil {
			until, err = m.Await(limit, p.Check)
		} else {
			until, err = m.WaitFor(limit, p.Pattern)
		}
		if err != nil {
			return took, fmt.Errorf("%s: the phase %q has not ended (before it: %s): %w", m.Name, p.Name, took, err)
		}
		took = append(took, struct {
			Phase string
			Took  time.Duration
		}{p.Name, until - m.reached})
		m.reached = until
	}
	return took, nil
}

var kernelTime = regexp.MustCompile(userspaceMark + `(\d+\.\d+) s`)

// KernelTime is what the kernel of the small ISO says it took to its first process.
func (m *Machine) KernelTime() (time.Duration, error) {
	found := kernelTime.FindStringSubmatch(m.Console())
	if found == nil {
		return 0, errors.New("the machine has no userspace yet")
	}
	seconds, err := strconv.ParseFloat(found[1], 64)
	return time.Duration(seconds * float64(time.Second)), err
}
