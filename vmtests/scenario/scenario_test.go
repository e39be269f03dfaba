package scenario

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/labcluster"
)

func TestParse(t *testing.T) {
	s, err := Parse("it", []byte("# What happens,\n# in two lines.\ncluster start\n\n# and then\nannouncer logs a 'two  words'\neach node off $EACH\n-- cluster.nix --\n{ }\n"))
	require.NoError(t, err)
	assert.Equal(t, "What happens, in two lines.", s.Title)
	assert.Equal(t, "{ }\n", s.Files[ClusterFile])
	require.Len(t, s.steps, 3)
	assert.Equal(t, step{6, "announcer logs a 'two  words'", []string{"announcer", "logs", "a", "two  words"}}, s.steps[1])

	for text, says := range map[string]string{
		"":                                "has no command",
		"# only a title\n":                "has no command",
		"cluster start\nrooter has x\n":   `line 2: there is no command "rooter"`,
		"each rooter has x\n":             `line 1: there is no command "rooter"`,
		"announcer logs a 'open\n":        "line 1: a quote is not closed",
		"cluster start\n-- a --\n-- a --": "has the file a twice",
	} {
		_, err := Parse("it", []byte(text))
		assert.ErrorContains(t, err, says, text)
	}
}

func TestFind(t *testing.T) {
	all, err := Catalogue()
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(all), 7)
	_, err = Find("vip-drain")
	assert.ErrorContains(t, err, `there is no scenario "vip-drain"; there are all-nodes-reboot, `)
	_, err = Find("./none.txtar")
	assert.ErrorContains(t, err, "none.txtar")
}

// Outages that are more than a second apart are several; a moved request is none.
func TestCount(t *testing.T) {
	begin := time.Now()
	at := func(ms int, err error) labcluster.Request {
		return labcluster.Request{At: begin.Add(time.Duration(ms) * time.Millisecond), Node: "a", Err: err}
	}
	lost := errors.New("lost")
	list := []labcluster.Request{at(0, nil), at(10, lost), at(500, nil), at(900, lost), at(1000, nil), at(3000, lost), at(3050, lost), at(3100, nil)}
	list[4].Moved = true
	tally := labcluster.Count(list)
	assert.Equal(t, 8, tally.Requests)
	assert.Equal(t, 4, tally.Lost)
	assert.Equal(t, 1, tally.Moved)
	assert.Equal(t, 891*time.Millisecond, tally.Outage)
	assert.Equal(t, 2100*time.Millisecond, tally.Silence)
	assert.Equal(t, map[string]int{"a": 4}, tally.Nodes)
	assert.Equal(t, "lost", tally.First)
	assert.Zero(t, labcluster.Count(nil).Outage)
}

func TestWriteSVG(t *testing.T) {
	results := []*Result{
		{Name: "skipped", Skipped: "no VIP"},
		{Name: "a<b", Title: `"quoted" & more`, Begin: time.Now(), Took: 3 * time.Second, Steps: []StepResult{
			{Line: 1, Text: "cluster start", Took: time.Second},
			{Line: 2, Text: "router has 203.0.113.1", Waits: true, At: time.Second, Took: 2 * time.Second, After: 2 * time.Second, Error: "<it> has not"},
		}},
	}
	var out bytes.Buffer
	require.NoError(t, WriteSVG(&out, results))
	assert.Contains(t, out.String(), "a&lt;b")
	assert.NotContains(t, out.String(), "skipped")
	decoder := xml.NewDecoder(&out)
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
}
