package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// outputFormat is the value of -o.
type outputFormat string

const (
	outputTable outputFormat = "table"
	outputJSON  outputFormat = "json"
)

var _ pflag.Value = (*outputFormat)(nil)

func (f *outputFormat) String() string { return string(*f) }
func (f *outputFormat) Type() string   { return "FORMAT" }
func (f *outputFormat) Set(s string) error {
	switch outputFormat(s) {
	case outputTable, outputJSON:
		*f = outputFormat(s)
		return nil
	}
	return fmt.Errorf("%q is no output format: want table or json", s)
}

func (f *outputFormat) register(cmd *cobra.Command) {
	*f = outputTable
	cmd.PersistentFlags().VarP(f, "output", "o", "print a `table` for people or json for programs")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{string(outputTable), string(outputJSON)}, cobra.ShellCompDirectiveNoFileComp))
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printTable writes rows of cells under a header, columns aligned. A cell is one
// line whatever is in it: what a node says of itself must not look like a row
// of another, nor drive the terminal.
func printTable(w io.Writer, header string, rows [][]any) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, header)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, strings.Map(printable, fmt.Sprint(cell)))
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return '\u00b7' // a middle dot
}
