// Package help lays out the texts of --help, none of whose lines has more than Width columns.
package help

import (
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

// Width is how many columns there are: what every terminal has.
const Width = 80

// Flags describes flags, one below the other, with their defaults unless these are empty.
func Flags(flags *pflag.FlagSet) string {
	shown := pflag.NewFlagSet("", pflag.ContinueOnError)
	shown.SortFlags = flags.SortFlags
	flags.VisitAll(func(f *pflag.Flag) {
		like := *f
		if like.Value.Type() == "bool" {
			like.Value = plain{like.Value}
		}
		if like.DefValue == "[]" && like.Value.Type() == "stringToString" { // of lists pflag knows that they are empty
			like.DefValue = ""
		}
		shown.AddFlag(&like)
	})
	return shown.FlagUsagesWrapped(Width)
}

// plain is a boolean that is shown as --name, where pflag since 1.1 shows
// --name[=true|false]. That is true, and nobody writes it.
type plain struct{ pflag.Value }

func (plain) Type() string { return "boolfunc" }

// Wrap fills paragraphs, which are lines that begin at the margin. Of other lines,
// which are lists and tables, those too long go on below their last column.
func Wrap(text string) string {
	var lines, paragraph []string
	end := func() {
		if len(paragraph) > 0 {
			lines = append(lines, fill(strings.Join(paragraph, " "), "", ""))
			paragraph = nil
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line != "" && line[0] != ' ' {
			paragraph = append(paragraph, line)
			continue
		}
		end()
		text := strings.TrimLeft(line, " ")
		indent := len(line) - len(text)
		if gap := strings.LastIndex(text, "  "); gap > 0 {
			indent += gap + len("  ")
		}
		if utf8.RuneCountInString(line) > Width {
			line = fill(line[indent:], line[:indent], strings.Repeat(" ", indent))
		}
		lines = append(lines, line)
	}
	end()
	return strings.Join(lines, "\n")
}

// Column wraps a text that begins at a column, and goes on below it.
func Column(column int, text string) string {
	return strings.TrimLeft(fill(text, strings.Repeat(" ", column), strings.Repeat(" ", column)), " ")
}

// fill puts words into lines that begin with indent, the first one with first.
func fill(text, first, indent string) string {
	var b strings.Builder
	line := first
	empty := true
	for word := range strings.FieldsSeq(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > Width {
			b.WriteString(line + "\n")
			line, empty = indent, true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	return b.String() + line
}
