package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
)

// How often what is watched is looked at: at most that often when something happens, and
// that often when nothing does, since time alone makes a node offline.
const (
	watchLeast = 500 * time.Millisecond
	watchMost  = 5 * time.Second
)

// view is what is drawn at once. It has the screen that it is for.
type view struct {
	bytes.Buffer
	screen screen
}

// watch draws again and again until ctx ends, which is no error: on a terminal over what
// was there, elsewhere one below the other, and only when what draw returns is another:
// that says what there is to see, without what changes by the second. That draw fails is
// an error at the beginning; later on it is shown, on errs where w is no terminal.
func watch(ctx context.Context, w, errs io.Writer, c *api.Client, draw func(ctx context.Context, w io.Writer) (seen string, err error)) error {
	events := make(chan struct{}, 1)
	go follow(ctx, c, events)
	var last string
	for first := true; ; first = false {
		v := &view{screen: screenOf(w)}
		seen, err := draw(ctx, v)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err != nil:
			v.Reset()
			seen = strings.Map(printable, err.Error())
			fmt.Fprintln(v, seen)
		}
		if first || seen != last || v.screen.width > 0 {
			last = seen
			if err != nil && v.screen.width == 0 { // what is on w may be JSON
				fmt.Fprintln(errs, seen)
			} else if err := show(w, v, first); err != nil {
				return err
			}
		}
		least, most := time.After(watchLeast), time.After(watchMost)
		select {
		case <-least:
		case <-ctx.Done():
			return nil
		}
		select {
		case <-events:
		case <-most:
		case <-ctx.Done():
			return nil
		}
	}
}

// follow tells of events, as long as they can be followed; else time has to do.
func follow(ctx context.Context, c *api.Client, events chan<- struct{}) {
	after := ""
	for ctx.Err() == nil {
		list, err := c.Events(ctx, after)
		after = list.Next
		if err == nil && list.More {
			continue
		}
		if err == nil {
			err = c.Follow(ctx, after, func(api.Event) error {
				select {
				case events <- struct{}{}:
				default:
				}
				return nil
			})
		}
		var refused *api.Error
		if errors.As(err, &refused) && refused.Code == api.CodeCursorGone {
			after = ""
		}
		select {
		case <-time.After(watchMost):
		case <-ctx.Done():
		}
	}
}

// show writes v, on a terminal from its top on, and no more than fits.
func show(w io.Writer, v *view, first bool) error {
	if v.screen.width == 0 {
		text := v.String()
		if !first {
			text = "\n" + text
		}
		_, err := io.WriteString(w, text)
		return err
	}
	lines := strings.Split(strings.TrimRight(v.String(), "\n"), "\n")
	if most := v.screen.height - 1; len(lines) > most && most > 1 {
		more := len(lines) - most + 1
		lines = append(lines[:most-1], fmt.Sprintf("… and %d more", more))
	}
	text := "\x1b[H" + strings.Join(lines, "\x1b[K\r\n") + "\x1b[K\x1b[J\r\n" // erase what was there
	if first {
		text = "\x1b[2J" + text
	}
	_, err := io.WriteString(w, text)
	return err
}
