package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/centra/plasmacloud/docs"
)

func labCommandsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "commands",
		Short: "List the commands that scenarios are made of",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, text, _ := strings.Cut(docs.Lab, "\n## Scenarios\n")
			text, _, _ = strings.Cut(text, "\nThe catalogue")
			printPage(cmd.OutOrStdout(), text)
			return nil
		},
	}
}

var link = regexp.MustCompile(`\[([^]]*)]\([^)]*\)`)

// header is that of a table, with the line below it.
var header = regexp.MustCompile(`(?m)^\|.*\|\n\| ---.*\n`)

// printPage writes Markdown for a terminal: of a table, the second column below the first.
func printPage(w io.Writer, markdown string) {
	markdown = header.ReplaceAllString(strings.ReplaceAll(link.ReplaceAllString(markdown, "$1"), "`", ""), "")
	for line := range strings.Lines(strings.TrimSpace(markdown)) {
		line = strings.TrimSpace(line)
		if first, second, is := strings.Cut(strings.Trim(line, "| "), " | "); is {
			line = first + "\n        " + second
		}
		fmt.Fprintln(w, line)
	}
}
