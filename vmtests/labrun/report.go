package labrun

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/labcluster"
	"github.com/centra/plasmacloud/vmtests/scenario"
)

// Report is how a cluster did in the lab.
type Report struct {
	Cluster   string             `json:"cluster"`
	Nodes     int                `json:"nodes"`
	VIPs      int                `json:"vips"`
	Routers   map[string]string  `json:"routers"` // their kinds
	Speaker   string             `json:"speaker,omitempty"`
	Nix       string             `json:"nix"`
	Lib       nixeval.Lib        `json:"lib"`
	Begin     time.Time          `json:"begin"`
	Evaluated time.Duration      `json:"evaluated_ns"`
	Up        time.Duration      `json:"up_ns"`      // until every daemon was started
	Settled   time.Duration      `json:"settled_ns"` // until all was as declared, or was given up
	Instead   []string           `json:"instead"`    // what is not as in the data centre
	Checks    []labcluster.Check `json:"checks"`
	Files     []labcluster.Check `json:"-"` // those of Checks that daemons made of their own configuration
	Scenarios []*scenario.Result `json:"scenarios,omitempty"`
	Times     []Times            `json:"times,omitempty"`
	Artifacts []string           `json:"artifacts,omitempty"` // the folders with what failures left
}

// Times are how long one step took in all runs.
type Times struct {
	Scenario string        `json:"scenario"`
	What     string        `json:"what"`
	Runs     int           `json:"runs"`
	P50      time.Duration `json:"p50_ns"`
	P95      time.Duration `json:"p95_ns"`
	Worst    time.Duration `json:"worst_ns"`
}

func (r *Runner) newReport() *Report {
	m := r.evaluated.Manifest
	return &Report{
		Begin: time.Now(), Cluster: m.Cluster.Name, Nodes: len(m.Nodes), VIPs: len(m.VIPs), Speaker: r.speaker,
		Nix: r.evaluated.Nix, Lib: r.evaluated.Lib, Evaluated: r.evaluated.Took, Routers: map[string]string{},
	}
}

func (r *Report) routers(c *labcluster.Cluster) {
	for name, router := range c.Routers {
		r.Routers[name] = router.Kind
	}
}

// left notes the folder with what a failure left; "" is none.
func (r *Report) left(dir string) {
	if dir != "" {
		r.Artifacts = append(r.Artifacts, dir)
	}
}

// OK is the verdict.
func (r *Report) OK() bool {
	return len(labcluster.Failed(r.Checks)) == 0 && !slices.ContainsFunc(r.Scenarios, func(s *scenario.Result) bool { return !s.OK() })
}

// MarshalJSON adds the verdict.
func (r *Report) MarshalJSON() ([]byte, error) {
	type bare Report
	return json.Marshal(struct {
		OK bool `json:"ok"`
		*bare
	}{r.OK(), (*bare)(r)})
}

// Measure fills in the times of all steps that wait, over all runs.
func (r *Report) Measure() {
	r.Times = nil
	taken := map[[2]string][]time.Duration{}
	var order [][2]string
	add := func(scenario, what string, took time.Duration) {
		key := [2]string{scenario, what}
		if taken[key] == nil {
			order = append(order, key)
		}
		taken[key] = append(taken[key], took)
	}
	for _, s := range r.Scenarios {
		if !s.OK() || s.Skipped != "" {
			continue
		}
		for _, step := range s.Steps {
			if step.Timed() {
				add(s.Name, fmt.Sprintf("%s (line %d)", step.Text, step.Line), step.After)
			}
		}
		for _, v := range s.Clients {
			add(s.Name, fmt.Sprintf("requests for %s by %s are lost no more", v.VIP, v.Router), v.Tally.Outage)
		}
	}
	for _, key := range order {
		list := taken[key]
		slices.Sort(list)
		r.Times = append(r.Times, Times{key[0], key[1], len(list), at(list, 0.5), at(list, 0.95), list[len(list)-1]})
	}
}

// at is a quantile of a sorted list, by the nearest rank.
func at(list []time.Duration, quantile float64) time.Duration {
	return list[min(len(list)-1, max(0, int(float64(len(list))*quantile+0.999999)-1))]
}

// count is a number of things.
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// PrintHead writes what was evaluated and built.
func (r *Report) PrintHead(w io.Writer) {
	lib := "nixpkgs' lib"
	if r.Lib == nixeval.LibOffline {
		lib = "the stand-in for nixpkgs' lib"
	}
	evaluated := "evaluated before"
	if r.Nix != "" {
		evaluated = fmt.Sprintf("evaluated in %.2f s by Nix %s with %s", r.Evaluated.Seconds(), r.Nix, lib)
	}
	fmt.Fprintf(w, "cluster %s: %s, %s, %s; %s\n", r.Cluster, count(r.Nodes, "node"), count(len(r.Routers), "router"), count(r.VIPs, "VIP"), evaluated)
	var kinds []string
	for _, kind := range labcluster.Kinds {
		for _, k := range r.Routers {
			if k == kind {
				kinds = append(kinds, map[string]string{"bird": "BIRD", "frr": "FRR", "gobgp": "GoBGP"}[kind])
				break
			}
		}
	}
	speaker := ""
	if r.Speaker != "" {
		speaker = r.Speaker + " on the nodes, "
	}
	if len(kinds) > 0 {
		speaker += strings.Join(kinds, " and ") + " as routers; "
	}
	fmt.Fprintf(w, "lab: %sup in %.2f s\n", speaker, r.Up.Seconds())
	for _, what := range r.Instead {
		fmt.Fprintf(w, "instead: %s\n", what)
	}
}

// PrintLines writes a line for each check, and the reason of each that failed.
func (r *Report) PrintLines(w io.Writer) {
	wide := 0
	for _, c := range r.Checks {
		wide = max(wide, len(c.Where))
	}
	for _, c := range r.Checks {
		word := "ok  "
		if !c.OK {
			word = "FAIL"
		}
		fmt.Fprintf(w, "%s  %-*s  %s\n", word, wide, c.Where, c.What)
		if !c.OK {
			for line := range strings.SplitSeq(c.Reason, "\n") {
				fmt.Fprintf(w, "      %-*s  %s\n", wide, "", line)
			}
		}
	}
}

// PrintChecks writes the checks, and how many failed after how long.
func (r *Report) PrintChecks(w io.Writer) {
	r.PrintLines(w)
	failed := len(labcluster.Failed(r.Checks))
	if failed == 0 {
		fmt.Fprintf(w, "All %d checks are ok, %.2f s after the start of the lab.\n", len(r.Checks), r.Settled.Seconds())
		return
	}
	fmt.Fprintf(w, "%d of %d checks failed, and %.2f s were not enough.\n", failed, len(r.Checks), r.Settled.Seconds())
}

// oneLine is a scenario's result, under the name of its run.
func oneLine(s *scenario.Result, name string) string {
	switch {
	case s.Skipped != "":
		return fmt.Sprintf("skip  %s: %s", name, s.Skipped)
	case !s.OK():
		return fmt.Sprintf("FAIL  %s: %s", name, s.Error)
	}
	line := fmt.Sprintf("ok    %s: %.2f s", name, s.Took.Seconds())
	for _, v := range s.Clients {
		line += fmt.Sprintf("\n        %s by %s: %d requests, %d lost", v.VIP, v.Router, v.Tally.Requests, v.Tally.Lost)
		if v.Tally.Outage > 0 {
			line += fmt.Sprintf(" within %.2f s", v.Tally.Outage.Seconds())
		}
		if v.Tally.Silence > 0 {
			line += fmt.Sprintf(", none answered for %.2f s", v.Tally.Silence.Seconds())
		}
		if v.Tally.Moved > 0 {
			line += fmt.Sprintf(", %d asked again after a reset", v.Tally.Moved)
		}
	}
	return line
}

// Rows are the times as cells of a table, under TimesHeader.
func (r *Report) Rows() (rows [][]any) {
	for _, t := range r.Times {
		rows = append(rows, []any{t.Scenario, t.What, t.Runs, inSeconds(t.P50), inSeconds(t.P95), inSeconds(t.Worst)})
	}
	return rows
}

// TimesHeader is the header of Rows, with tabs.
const TimesHeader = "SCENARIO\tUNTIL\tRUNS\tP50\tP95\tWORST"

func inSeconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

// JUnit's format, as far as CI systems agree on it.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Begin    string      `xml:"timestamp,attr"`
		Cases    []junitCase `xml:"testcase"`
		took     time.Duration
	}
	junitCase struct {
		Class   string     `xml:"classname,attr"`
		Name    string     `xml:"name,attr"`
		Time    string     `xml:"time,attr"`
		Failure *junitText `xml:"failure,omitempty"`
		Skipped *junitText `xml:"skipped,omitempty"`
	}
	junitText struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

func (s *junitSuite) add(c junitCase) {
	s.Tests++
	if c.Failure != nil {
		s.Failures++
	}
	if c.Skipped != nil {
		s.Skipped++
	}
	s.Cases = append(s.Cases, c)
}

// failure is one that every reader of JUnit's XML shows: some the message, some the text.
func failure(kind, reason string) *junitText {
	first, _, _ := strings.Cut(reason, "\n")
	return &junitText{Message: first, Type: kind, Text: reason}
}

// WriteJUnit writes the report as JUnit's XML: a suite of all checks, and one of each scenario.
func (r *Report) WriteJUnit(w io.Writer) error {
	suite := func(name string, took time.Duration, begin time.Time) junitSuite {
		return junitSuite{Name: name, Time: seconds(took), Begin: begin.UTC().Format("2006-01-02T15:04:05"), took: took}
	}
	checks := suite("lab "+r.Cluster, r.Settled, r.Begin)
	for _, c := range r.Checks {
		// They are all looked at together, until all are so: none has a time of its own.
		test := junitCase{Class: c.Where, Name: c.What, Time: seconds(0)}
		if !c.OK {
			test.Failure = failure("check", c.Reason)
		}
		checks.add(test)
	}
	all := junitSuites{Suites: []junitSuite{checks}}
	for _, s := range r.Scenarios {
		played := suite(fmt.Sprintf("scenario %s, run %d", s.Name, s.Run), s.Took, s.Begin)
		for _, step := range s.Steps {
			test := junitCase{Class: s.Name, Name: fmt.Sprintf("line %d: %s", step.Line, step.Text), Time: seconds(step.Took)}
			if step.Error != "" {
				test.Failure = failure("scenario", step.Error)
			}
			played.add(test)
		}
		switch {
		case s.Skipped != "":
			played.add(junitCase{Class: s.Name, Name: "applies to the cluster", Time: seconds(0), Skipped: &junitText{Message: s.Skipped}})
		case !s.OK() && played.Failures == 0: // at the very end
			played.add(junitCase{Class: s.Name, Name: "the end", Time: seconds(0), Failure: failure("scenario", s.Error)})
		}
		all.Suites = append(all.Suites, played)
	}
	var whole time.Duration
	for _, suite := range all.Suites {
		all.Tests += suite.Tests
		all.Failures += suite.Failures
		whole += suite.took
	}
	all.Time = seconds(whole)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
