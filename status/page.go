package status

import (
	"strings"
	"time"

	"cistern/console"

	"github.com/dustin/go-humanize"
)

// View is how a page is shown.
type View struct {
	Columns int                             // 0: no line is cut, for output that is not a terminal
	ASCII   bool                            // the terminal has no bars
	Paint   func(color, text string) string // colours text
}

const (
	// labelColumns is the width of the names of parts.
	labelColumns = 15
	// twoColumns is the width from which parts stand in two columns.
	twoColumns = 140
	// unbounded is a width that no line reaches.
	unbounded = 1 << 30
	// rowsMax bounds the rows of a list on the page that is shown once.
	rowsMax = 8
)

// part is a named part of a page.
type part struct {
	name  string
	lines []line
}

// Page returns the answer on one screen.
func (a *Answer) Page(v View) string {
	lines := a.head(rowsMax)
	wide := v.Columns >= twoColumns
	if v.Columns == 0 {
		v.Columns = unbounded
	}
	width := v.Columns
	if wide {
		width = (v.Columns - gap) / 2
	}
	inner := width - labelColumns
	left := []part{a.repositories(), a.backfill(), a.disk(), a.backup(), a.exports(),
		a.conditions()}
	right := []part{a.sources(inner, rowsMax), a.hostStates(), a.subscriptions(inner, rowsMax),
		a.operations(inner, v.ASCII), a.failing(inner, rowsMax)}
	if wide {
		lines = append(lines, beside(width, block(left, width), block(right, width))...)
	} else {
		lines = append(lines, block(append(left, right...), width)...)
	}
	return join(lines, v)
}

// join returns lines as text, each with a newline.
func join(lines []line, v View) string {
	text := ""
	for _, l := range lines {
		text += l.clip(v.Columns).text(v.Paint) + "\n"
	}
	return text
}

// block returns the lines of parts, with their names before them.
func block(parts []part, columns int) (lines []line) {
	for _, p := range parts {
		for i, l := range p.lines {
			name := ""
			if i == 0 {
				name = p.name
			}
			row := append(line{{console.Bold, name}}.pad(labelColumns), l...)
			lines = append(lines, row.clip(columns))
		}
	}
	return lines
}

// head returns the version, the phase and the verdict, at most rows of its sentences.
func (a *Answer) head(rows int) []line {
	v := &a.Verdict
	first := line{{console.Bold, "cistern " + a.Version}, {"", "  "}, a.phase(), {"", "  "}, v.words()}
	if t := parse(a.Started); !t.IsZero() {
		first = append(first, span{console.Dim, "  started " + a.ago(a.Started)})
	}
	return append(append([]line{first}, v.lines(rows)...), line{})
}

// phase returns the phase, with what it waits for.
func (a *Answer) phase() span {
	p := a.Stats.Phase
	switch {
	case p == nil:
		return span{"", "active"}
	case p.Failure != "":
		return span{console.Red, p.Phase + ": " + p.Failure}
	case !p.Reached:
		return span{console.Yellow, p.Phase + ", on the way to " + p.Wanted}
	}
	return span{console.Yellow, p.Phase}
}

// ago says how far a time of the answer is from the time of the answer, "never" without one.
func (a *Answer) ago(moment string) string {
	t := parse(moment)
	if t.IsZero() {
		return "never"
	}
	return humanize.RelTime(t, a.now(), "ago", "from now")
}

// spell writes a number of seconds as a person would.
func spell(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	const day = 24 * time.Hour
	switch {
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < 10*time.Minute:
		return d.Round(time.Second).String()
	case d < 2*day:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return humanize.Comma(int64(d/day)) + " days"
}
