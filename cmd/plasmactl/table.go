package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/centra/plasmacloud/deployer/node"
)

// screen is what a command writes to.
type screen struct {
	width, height int // 0: no terminal, so nothing is cut
	colours       bool
}

// screenOf says what w is. Colours are for a terminal alone, and not with NO_COLOR
// (no-color.org).
func screenOf(w io.Writer) screen {
	switch w := w.(type) {
	case *view:
		return w.screen
	case *consoleWriter:
		return w.on
	}
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return screen{}
	}
	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil || width < 20 {
		width, height = 80, 24
	}
	return screen{width: width, height: height, colours: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// Styles of cells (ECMA-48, SGR).
const (
	plain  = ""
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// styled is a cell with a colour, where there are colours.
type styled struct {
	text  any
	style string
}

func (s styled) String() string { return fmt.Sprint(s.text) }

// coloured is a value of an axis of a node as a cell.
func coloured[T node.State | node.Reachability | node.Config](value T) styled {
	style := plain
	switch string(value) {
	case string(node.Active):
		style = green
	case string(node.Failed), string(node.Offline):
		style = red
	case string(node.Provisioning), string(node.Drifted):
		style = yellow
	}
	return styled{value, style}
}

func serviceState(s node.Service) styled {
	switch {
	case s.Active():
		return styled{s.State, plain}
	case s.State == "failed":
		return styled{s.State, red}
	default:
		return styled{s.State, yellow}
	}
}

// vipState is what a node says of a VIP as a cell.
func vipState(state string) styled {
	switch state {
	case node.VIPAnnounced:
		return styled{state, plain}
	case node.VIPMissing:
		return styled{state, red}
	default:
		return styled{state, yellow}
	}
}

// vipStatus is whether a VIP is announced as a cell.
func vipStatus(status node.VIPStatus) styled {
	switch status {
	case node.Announced:
		return styled{status, green}
	case node.Unannounced:
		return styled{status, red}
	default:
		return styled{status, yellow}
	}
}

const gap = 2 // blanks between columns

// printTable writes rows of cells under a header, "" for none, columns aligned. A cell is
// one line whatever is in it: what a node says of itself must not look like a row
// of another, nor drive the terminal. On a terminal the widest columns are cut so that
// a row is one line there too.
func printTable(w io.Writer, header string, rows [][]any) error {
	on := screenOf(w)
	var lines [][]string
	if header != "" {
		lines = append(lines, strings.Split(header, "\t"))
	}
	for _, row := range rows {
		var cells []string
		for _, cell := range row {
			cells = append(cells, strings.Map(printable, fmt.Sprint(cell)))
		}
		lines = append(lines, cells)
	}
	widths := columns(lines, on.width)
	var b strings.Builder
	for i, cells := range lines {
		var line strings.Builder
		for j, cell := range cells {
			cell = cut(cell, widths[j])
			pad := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell)+gap)
			style := plain
			switch {
			case !on.colours:
			case header != "" && i == 0:
				style = bold
			default:
				row := rows[i-(len(lines)-len(rows))]
				if s, ok := row[j].(styled); ok {
					style = s.style
				}
			}
			if style != plain && cell != "" {
				cell = "\x1b[" + style + "m" + cell + "\x1b[0m"
			}
			line.WriteString(cell + pad)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printSection is printTable behind an empty line, and nothing where there are no rows.
func printSection(w io.Writer, header string, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return printTable(w, header, rows)
}

// columns is how wide each column is, together at most width; 0 is any.
func columns(lines [][]string, width int) (widths []int) {
	for _, cells := range lines {
		for j, cell := range cells {
			if j == len(widths) {
				widths = append(widths, 0)
			}
			widths[j] = max(widths[j], utf8.RuneCountInString(cell))
		}
	}
	if width == 0 || len(widths) == 0 {
		return widths
	}
	over := gap*(len(widths)-1) - width
	for _, w := range widths {
		over += w
	}
	const least = 4 // there is something to see in it
	for ; over > 0; over-- {
		widest := 0
		for j := range widths {
			if widths[j] >= widths[widest] { // the last of them, which is where the long texts are
				widest = j
			}
		}
		if widths[widest] <= least {
			break // not on this screen
		}
		widths[widest]--
	}
	return widths
}

// cut is s in at most width runes, with a mark where some are missing.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	runes := []rune(s)
	return string(runes[:max(0, width-1)]) + "…"
}

func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return '\u00b7' // a middle dot
}
