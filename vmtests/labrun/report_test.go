package labrun

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/labcluster"
	"github.com/centra/plasmacloud/vmtests/scenario"
)

func TestReport(t *testing.T) {
	r := &Report{Cluster: "it", Checks: []labcluster.Check{{Where: "router1", What: "no other route", OK: true}}}
	for run := 1; run <= 20; run++ {
		r.Scenarios = append(r.Scenarios, &scenario.Result{Name: "it", Run: run, Steps: []scenario.StepResult{
			{Line: 1, Text: "cluster start"},
			{Line: 2, Text: "router lacks x", Waits: true, After: time.Duration(run) * time.Second},
		}})
	}
	r.Measure()
	require.Len(t, r.Times, 1)
	assert.Equal(t, Times{"it", "router lacks x (line 2)", 20, 10 * time.Second, 19 * time.Second, 20 * time.Second}, r.Times[0])
	assert.True(t, r.OK())

	// One that failed, one that does not apply.
	r.Scenarios = append(r.Scenarios,
		&scenario.Result{Name: "bad", Run: 1, Error: "line 1: x", Steps: []scenario.StepResult{{Line: 1, Text: "x", Error: "a & b"}}},
		&scenario.Result{Name: "none", Run: 1, Skipped: "it needs a VIP"})
	r.Measure()
	assert.Len(t, r.Times, 1)
	assert.False(t, r.OK())
	text, err := json.Marshal(r)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"ok":false`)

	var out bytes.Buffer
	require.NoError(t, r.WriteJUnit(&out))
	var suites junitSuites
	require.NoError(t, xml.Unmarshal(out.Bytes(), &suites))
	assert.Equal(t, 1+20*2+1+1, suites.Tests)
	assert.Equal(t, 1, suites.Failures)
	checkJUnit(t, out.Bytes())
	last := suites.Suites[len(suites.Suites)-1]
	assert.Equal(t, 1, last.Skipped)
	assert.Equal(t, "it needs a VIP", last.Cases[0].Skipped.Message)
}

// checkJUnit looks for what the readers of CI systems insist on: of each suite its name,
// its counts and a time without a zone, of each case its names and seconds, and of each
// failure a message, a type and a text.
func checkJUnit(t *testing.T, text []byte) {
	t.Helper()
	type attributes = map[string]string
	number, seconds := regexp.MustCompile(`^\d+$`), regexp.MustCompile(`^\d+\.\d{3}$`)
	is := map[string]map[string]*regexp.Regexp{
		"testsuites": {"tests": number, "failures": number, "errors": number, "time": seconds},
		"testsuite": {"name": regexp.MustCompile(`.`), "tests": number, "failures": number, "errors": number, "skipped": number, "time": seconds,
			"timestamp": regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$`)},
		"testcase": {"name": regexp.MustCompile(`.`), "classname": regexp.MustCompile(`.`), "time": seconds},
		"failure":  {"message": regexp.MustCompile(`.`), "type": regexp.MustCompile(`.`)},
		"skipped":  {"message": regexp.MustCompile(`.`)},
	}
	inside := map[string]string{"": "testsuites", "testsuites": "testsuite", "testsuite": "testcase", "testcase": "failure skipped"}
	path, seen := []string{""}, map[string]int{}
	decoder := xml.NewDecoder(bytes.NewReader(text))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		switch token := token.(type) {
		case xml.StartElement:
			name := token.Name.Local
			require.Contains(t, strings.Fields(inside[path[len(path)-1]]), name)
			path, seen[name] = append(path, name), seen[name]+1
			got := attributes{}
			for _, a := range token.Attr {
				got[a.Name.Local] = a.Value
			}
			for key, pattern := range is[name] {
				assert.Regexp(t, pattern, got[key], "%s of %s", key, name)
			}
			assert.Len(t, got, len(is[name]), name)
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			if path[len(path)-1] == "failure" {
				assert.NotEmpty(t, strings.TrimSpace(string(token)))
			}
		}
	}
	for name := range is {
		assert.NotZero(t, seen[name], name)
	}
}

func TestNameFor(t *testing.T) {
	for cluster, name := range map[string]string{"three-nodes": "three-nodes", "My Cluster_1": "my-cluster-1", "ü": "lab",
		"a-name-of-twenty-three-and-more": "a-name-of-twenty-three-a"} {
		assert.Equal(t, name, nameFor(cluster))
	}
}
