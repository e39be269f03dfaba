package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// console is where a long command tells what it found: on a terminal with a line about
// what it is doing, which goes again, and with colours. Elsewhere it has neither.
type console struct {
	begin time.Time
	width int

	mu     sync.Mutex
	status io.Writer // a terminal, for the line; nil: none
	doing  string
	shown  bool
}

// newConsole takes over what the command writes, until it is closed.
func newConsole(cmd *cobra.Command) *console {
	c := &console{begin: time.Now()}
	out, errs := cmd.OutOrStdout(), cmd.ErrOrStderr()
	cmd.SetOut(&consoleWriter{c, out, screenOf(out)})
	cmd.SetErr(&consoleWriter{c, errs, screenOf(errs)})
	if on := screenOf(errs); on.width > 0 && os.Getenv("TERM") != "dumb" {
		c.status, c.width = errs, on.width
		go c.tick()
	}
	return c
}

// Doing says what is being done from now on.
func (c *console) Doing(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if what != c.doing {
		c.doing = what
		c.draw()
	}
}

// tick draws the line every second, for the time in it.
func (c *console) tick() {
	for open := true; open; {
		time.Sleep(time.Second)
		c.mu.Lock()
		c.draw()
		open = c.status != nil
		c.mu.Unlock()
	}
}

// Codes of ECMA-48: back to the beginning of the line, and erase what follows.
const eraseLine = "\r\x1b[K"

func (c *console) draw() {
	if c.status == nil || c.doing == "" {
		return
	}
	line := fmt.Sprintf("%.0f s: %s", time.Since(c.begin).Seconds(), c.doing)
	_, _ = io.WriteString(c.status, eraseLine+cut(line, c.width-1))
	c.shown = true
}

func (c *console) clear() {
	if c.shown {
		_, _ = io.WriteString(c.status, eraseLine)
		c.shown = false
	}
}

// Close ends the line. What is written later is written as it is.
func (c *console) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
	c.status = nil
}

// consoleWriter is a stream of a command with a console.
type consoleWriter struct {
	console *console
	to      io.Writer
	on      screen
}

// verdict is the word that a line of a result begins with.
var verdict = regexp.MustCompile(`(?m)^(?:ok|FAIL|skip)\b`)

var verdictStyle = map[string]string{"ok": green, "FAIL": red, "skip": yellow}

// Write writes lines in place of that about what is being done, which comes back below.
func (w *consoleWriter) Write(text []byte) (int, error) {
	w.console.mu.Lock()
	defer w.console.mu.Unlock()
	w.console.clear()
	coloured := text
	if w.on.colours {
		coloured = verdict.ReplaceAllFunc(text, func(word []byte) []byte {
			return fmt.Appendf(nil, "\x1b[%sm%s\x1b[0m", verdictStyle[string(word)], word)
		})
	}
	if _, err := w.to.Write(coloured); err != nil {
		return 0, err
	}
	return len(text), nil
}
