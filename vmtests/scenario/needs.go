package scenario

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Has is how much of it a site has, by the words that `needs` knows.
type Has map[string]int

// The words of `needs`.
const (
	Nodes      = "nodes"
	Routers    = "routers"
	Links      = "links"      // of a node, which can be cut, and lose packets
	Power      = "power"      // of a node, which can be cut
	Evaluation = "evaluation" // of the cluster, anew or with a change
)

var needWords = []string{Nodes, Routers, Links, Power, Evaluation}

// need reads the words behind `needs`: a number and what is counted, or the latter alone.
func (s *Scenario) need(words []string) error {
	count := 1
	if len(words) == 2 {
		var err error
		if count, err = strconv.Atoi(words[0]); err != nil || count < 1 {
			return fmt.Errorf("%q is no number from 1 on", words[0])
		}
		words = words[1:]
	}
	if len(words) != 1 || !slices.Contains(needWords, words[0]) {
		return fmt.Errorf("a scenario needs, with a number before it or not, one of %s", strings.Join(needWords, ", "))
	}
	s.Needs[words[0]] = max(s.Needs[words[0]], count)
	return nil
}

// Lacks is what the scenario needs and the site has not, in words; "" is nothing.
func (s *Scenario) Lacks(has Has) string {
	var lacks []string
	for _, word := range needWords {
		needs := s.Needs[word]
		if word == Evaluation && s.Files[ClusterFile] != "" {
			needs = 1
		}
		if (word == Nodes || word == Routers) && s.Files[ClusterFile] != "" {
			continue // they are its own
		}
		if needs <= has[word] {
			continue
		}
		amount := ""
		if needs > 1 {
			amount = fmt.Sprint(needs, " ")
		}
		had := "none"
		if has[word] > 0 {
			had = fmt.Sprint(has[word])
		}
		lacks = append(lacks, fmt.Sprintf("needs %s%s, has %s", amount, word, had))
	}
	return strings.Join(lacks, "; ")
}

//go:embed sites.json
var sitesFile []byte

// Sites are where each scenario of the catalogue is played, by sites.json.
func Sites() map[string][]string {
	var sites map[string][]string
	if err := json.Unmarshal(sitesFile, &sites); err != nil {
		panic(err) // it is in the program
	}
	return sites
}

// At is the scenarios of the catalogue that are played at a site, in the order of their names.
func At(site string) (list []*Scenario, err error) {
	sites := Sites()
	for _, name := range slices.Sorted(maps.Keys(sites)) {
		if !slices.Contains(sites[name], site) {
			continue
		}
		s, err := Find(name)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
