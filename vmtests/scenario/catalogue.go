package scenario

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:embed catalogue/*.txtar
var catalogue embed.FS

const suffix = ".txtar"

// Names are those of the scenarios that ship with the program, in order.
func Names() (names []string) {
	entries, err := catalogue.ReadDir("catalogue")
	if err != nil {
		panic(err) // it is in the program
	}
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), suffix))
	}
	return names
}

// Text is a scenario of the catalogue as it is written.
func Text(name string) ([]byte, error) {
	text, err := catalogue.ReadFile("catalogue/" + name + suffix)
	if err != nil {
		return nil, fmt.Errorf("there is no scenario %q; there are %s", name, strings.Join(Names(), ", "))
	}
	return text, nil
}

// Catalogue is all scenarios that ship with the program.
func Catalogue() (list []*Scenario, err error) {
	for _, name := range Names() {
		s, err := Find(name)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// Find reads a scenario by its name in the catalogue, or a file: what has a slash
// in it, or ends in .txtar.
func Find(name string) (*Scenario, error) {
	if !strings.Contains(name, "/") && !strings.HasSuffix(name, suffix) {
		text, err := Text(name)
		if err != nil {
			return nil, err
		}
		return Parse(name, text)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return Parse(strings.TrimSuffix(filepath.Base(name), suffix), text)
}
