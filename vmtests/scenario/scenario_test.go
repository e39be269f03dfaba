package scenario

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

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
		"needs 2 wings\ncluster start\n":  "line 1: a scenario needs, with a number before it or not, one of nodes, routers, links, power, evaluation",
		"needs no nodes\ncluster start\n": `line 1: "no" is no number from 1 on`,
		"cluster start\nneeds links\n":    "line 2: what it needs comes before the first command",
	} {
		_, err := Parse("it", []byte(text))
		assert.ErrorContains(t, err, says, text)
	}
}

// What a scenario needs is looked at before anything starts.
func TestNeeds(t *testing.T) {
	s, err := Parse("it", []byte("# A title.\nneeds 2 nodes\n# no title\nneeds links\ncluster start\n"))
	require.NoError(t, err)
	assert.Equal(t, "A title.", s.Title)
	assert.Equal(t, Has{Nodes: 2, Links: 1}, s.Needs)
	assert.Equal(t, "needs 2 nodes, has 1; needs links, has none", s.Lacks(Has{Nodes: 1}))
	assert.Equal(t, "needs 2 nodes, has 1; needs links, has none", s.Play(t.Context(), Stage{Has: Has{Nodes: 1}}).Skipped)
	assert.Empty(t, s.Lacks(Has{Nodes: 10, Links: 1}))

	s, err = Parse("it", []byte("needs 2 nodes\ncluster start\n-- cluster.nix --\n{ }\n"))
	require.NoError(t, err)
	assert.Equal(t, "needs evaluation, has none", s.Lacks(Has{}), "its nodes are its own")
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

// An outage goes on until all requests were answered for two seconds, however seldom they
// were made; a moved request is none.
func TestCount(t *testing.T) {
	begin := time.Now()
	at := func(ms int, err error) labcluster.Request {
		return labcluster.Request{At: begin.Add(time.Duration(ms) * time.Millisecond), Node: "a", Err: err}
	}
	lost := errors.New("lost")
	list := []labcluster.Request{at(0, nil), at(10, lost), at(500, nil), at(900, lost), at(1000, nil), at(3100, lost), at(3150, lost), at(3200, nil)}
	list[4].Moved = true
	tally := labcluster.Count(list)
	assert.Equal(t, 8, tally.Requests)
	assert.Equal(t, 4, tally.Lost)
	assert.Equal(t, 1, tally.Moved)
	assert.Equal(t, 990*time.Millisecond, tally.Outage)
	assert.Equal(t, 2200*time.Millisecond, tally.Silence)
	assert.Equal(t, map[string]int{"a": 4}, tally.Nodes)
	assert.Equal(t, "lost", tally.First)
	assert.Zero(t, labcluster.Count(nil).Outage)

	// Of one request after the other, each lost after two seconds and a pause.
	var slow []labcluster.Request
	for i := range 100 {
		slow = append(slow, at(i*2010, lost))
	}
	assert.Equal(t, 99*2010*time.Millisecond+time.Millisecond, labcluster.Count(slow).Outage, "it goes on")
	assert.Equal(t, 201*time.Second, labcluster.Count(append(slow, at(201_000, nil))).Outage)
}

func TestWriteSVG(t *testing.T) {
	many := &Result{Name: strings.Repeat("many-", 20), Title: strings.Repeat("A long title. ", 30), Begin: time.Now(), Took: 2 * time.Minute, Steps: []StepResult{
		{Line: 1, Text: "router has 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff via " + strings.Repeat("node10,", 10), Waits: true, Took: 2 * time.Minute, After: 2 * time.Minute},
		{Line: 2, Text: "client lost none", Waits: true, At: 2 * time.Minute, After: 17 * time.Second},
	}}
	for i := range 10 {
		many.Clients = append(many.Clients, ClientView{VIP: "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Router: fmt.Sprintf("a-router-of-a-long-name-%d", i),
			Tally: labcluster.Tally{Requests: 100000, Lost: 99999}, requests: []labcluster.Request{{At: many.Begin.Add(time.Second)}}})
	}
	results := []*Result{
		{Name: "skipped", Skipped: "no VIP"},
		{Name: "a<b", Title: `"quoted" & more`, Begin: time.Now(), Took: 3 * time.Second, Steps: []StepResult{
			{Line: 1, Text: "cluster start", Took: time.Second},
			{Line: 2, Text: "router has 203.0.113.1", Waits: true, At: time.Second, Took: 2 * time.Second, After: 2 * time.Second, Error: "<it> has not"},
		}},
		many,
	}
	var out bytes.Buffer
	require.NoError(t, WriteSVG(&out, results))
	assert.Contains(t, out.String(), "a&lt;b")
	assert.NotContains(t, out.String(), "skipped")
	assert.NotContains(t, out.String(), ">17s<", "what is counted is not timed")
	assert.Contains(t, out.String(), "@media (prefers-color-scheme: dark)")

	// Well-formed; every text is inside of the picture, and on no other one, with letters
	// of seven pixels, which is more than they have on average.
	type box struct{ from, to, y int }
	var boxes []box
	var width, height int
	decoder := xml.NewDecoder(&out)
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		start, is := token.(xml.StartElement)
		if !is {
			continue
		}
		attributes := map[string]string{}
		for _, a := range start.Attr {
			attributes[a.Name.Local] = a.Value
		}
		switch start.Name.Local {
		case "svg":
			_, err = fmt.Sscan(attributes["width"]+" "+attributes["height"], &width, &height)
			require.NoError(t, err)
		case "text":
			text, err := decoder.Token()
			require.NoError(t, err)
			var x, y int
			_, err = fmt.Sscan(attributes["x"]+" "+attributes["y"], &x, &y)
			require.NoError(t, err)
			wide := 7 * utf8.RuneCount(text.(xml.CharData))
			b := box{x, x + wide, y}
			switch attributes["text-anchor"] {
			case "end":
				b = box{x - wide, x, y}
			case "middle":
				b = box{x - wide/2, x + wide/2, y}
			}
			assert.True(t, b.from >= 0 && b.to <= width && y > 0 && y <= height, "%q at %v", text, b)
			for _, other := range boxes {
				assert.False(t, other.y == b.y && other.from < b.to && b.from < other.to, "%q at %v is on %v", text, b, other)
			}
			boxes = append(boxes, b)
		}
	}
	assert.Greater(t, len(boxes), 20)
}

// A list of nodes may have several names in it.
func TestExpand(t *testing.T) {
	p := &play{c: &labcluster.Cluster{}, picks: picks{vip: "203.0.113.1", node: "a", other: "b", nodes: []string{"a", "b", "c"}, others: []string{"b", "c"}}}
	for word, want := range map[string]string{"$NODE": "a", "$NODE,$OTHER": "a,b", "x,$OTHERS": "x,b,c", "a,b": "a,b", "(.|\n)*$": "(.|\n)*$"} {
		got, err := p.expand(word)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := p.expand("$NODE,$NOBODY")
	assert.ErrorContains(t, err, "there is no $NOBODY; there are $VIP,")
	_, err = p.expand("$NODE,$ROUTER")
	assert.ErrorAs(t, err, new(errSkip))
}
