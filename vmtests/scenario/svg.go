package scenario

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// What a timeline measures, in pixels.
const (
	svgText   = 330 // where time begins, behind the names
	svgTime   = 620 // how wide all the time is
	svgRow    = 20
	svgMargin = 12
	svgRight  = 150 // for how many requests were lost
)

// What fits of a text, in letters: beside the time, and above it.
const (
	longestName  = 46
	longestTitle = 108
)

// bars is into how many bars a client's requests are put.
const bars = 124

// WriteSVG draws what happened when: each command of each scenario as a bar, and
// what its clients saw. Of several runs of a scenario it draws the last one.
func WriteSVG(w io.Writer, results []*Result) error {
	last := map[string]*Result{}
	var order []string
	for _, r := range results {
		if r.Skipped != "" {
			continue
		}
		if last[r.Name] == nil {
			order = append(order, r.Name)
		}
		last[r.Name] = r
	}
	var body strings.Builder
	y := drawLegend(&body)
	for _, name := range order {
		y = drawOne(&body, last[name], y) + svgRow
	}
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d" font-family="sans-serif" font-size="12">
<style>
.act { fill: #c2571a } .wait { fill: #3b6ea5 } .bad { fill: #b00020 } .good { fill: #4c9a52 }
text { fill: #222 } .dim { fill: #666 } .grid { stroke: #ddd } .page { fill: #fff }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .dim { fill: #999 } .grid { stroke: #444 } .page { fill: #181818 } }
</style>
<rect class="page" width="%[1]d" height="%[2]d"/>
%[3]s</svg>
`, svgText+svgTime+svgRight, y, body.String())
	return err
}

// drawLegend says what the colours are, and returns where that ends.
func drawLegend(b *strings.Builder) int {
	x := svgText
	for _, part := range []struct{ class, says string }{
		{"act", "does something"}, {"wait", "waits until it is so"}, {"good", "requests are answered"}, {"bad", "failed, or lost"},
	} {
		fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="12" height="12"/><text x="%d" y="%d" class="dim">%s</text>`+"\n",
			part.class, x, svgMargin+2, x+18, svgMargin+12, part.says)
		x += 18 + 7*len(part.says) + 24
	}
	return svgMargin + 2*svgRow
}

// drawOne draws a scenario from y on, and returns where it ends.
func drawOne(b *strings.Builder, r *Result, y int) int {
	text := func(x, y int, class, anchor, s string) {
		fmt.Fprintf(b, `<text x="%d" y="%d" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, escape(s))
	}
	whole := max(r.Took, time.Millisecond)
	x := func(at time.Duration) float64 { return svgText + float64(at)/float64(whole)*svgTime }

	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", svgMargin, y+14, escape(short(r.Name, longestName-6)))
	text(svgText, y+14, "dim", "start", short(r.Title, longestTitle))
	y += svgRow + 6
	top := y
	bottom := y + svgRow*(len(r.Steps)+len(r.Clients))
	for mark := time.Duration(0); mark <= whole; mark += tick(whole) {
		fmt.Fprintf(b, `<line class="grid" x1="%[1]g" y1="%[2]d" x2="%[1]g" y2="%[3]d"/>`+"\n", x(mark), top, bottom)
		text(int(x(mark)), bottom+14, "dim", "middle", mark.String())
	}
	for _, s := range r.Steps {
		class := "act"
		if s.Waits {
			class = "wait"
		}
		if s.Error != "" {
			class = "bad"
		}
		text(svgText-8, y+14, "", "end", short(s.Text, longestName))
		from, to := x(s.At), x(s.At+s.Took)
		fmt.Fprintf(b, `<rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d"><title>%s</title></rect>`+"\n",
			class, from, y+4, max(to-from, 2), svgRow-8, escape(fmt.Sprintf("%s: from %s on, %s %s", s.Text, round(s.At), round(s.Took), s.Error)))
		if s.Timed() {
			text(int(to)+5, y+14, "dim", "start", round(s.After).String())
		}
		y += svgRow
	}
	for _, v := range r.Clients {
		text(svgText-8, y+14, "", "end", short(fmt.Sprintf("%s by %s", v.VIP, v.Router), longestName))
		var answered, lost [bars]int
		bar := func(at time.Time) int {
			return min(bars-1, max(0, int(float64(at.Sub(r.Begin))/float64(whole)*bars)))
		}
		for _, q := range v.requests {
			if q.Err != nil {
				lost[bar(q.At)]++
				continue
			}
			for i := bar(q.At); i <= bar(q.At.Add(q.Took)); i++ { // none is sent meanwhile
				answered[i]++
			}
		}
		for i := range bars {
			class := "good"
			switch {
			case lost[i] > 0:
				class = "bad"
			case answered[i] == 0:
				continue
			}
			fmt.Fprintf(b, `<rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d"/>`+"\n", class, svgText+float64(i)/bars*svgTime, y+4, float64(svgTime)/bars+0.2, svgRow-8)
		}
		text(svgText+svgTime+5, y+14, "dim", "start", fmt.Sprintf("%d of %d lost", v.Tally.Lost, v.Tally.Requests))
		y += svgRow
	}
	return bottom + svgRow
}

// tick is the time from one mark of the scale to the next.
func tick(whole time.Duration) time.Duration {
	step := time.Millisecond
	for {
		for _, factor := range []time.Duration{1, 2, 5} {
			if step*factor*8 >= whole {
				return step * factor
			}
		}
		step *= 10
	}
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func short(s string, most int) string {
	if letters := []rune(s); len(letters) > most {
		return string(letters[:most-1]) + "…"
	}
	return s
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}
