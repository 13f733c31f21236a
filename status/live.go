package status

import (
	"fmt"
	"strings"
	"time"

	"cistern/console"

	"github.com/dustin/go-humanize"
)

// Live is a page that changes with each sample.
type Live struct {
	before, now *Sample
	failure     string // why there is no answer, "" if there is one
	failures    int    // requests that failed since the last answer
	offset      int    // lines that are scrolled away
	lines, rows int    // of the list when it was last shown: its lines, and how many were visible
}

// Add shows a new sample.
func (l *Live) Add(s *Sample) { l.before, l.now, l.failure, l.failures = l.now, s, "", 0 }

// Fail shows that the daemon gave no answer. What it answered before stays visible.
func (l *Live) Fail(err error) { l.failure, l.failures = err.Error(), l.failures+1 }

// Scroll moves the list as a key demands.
func (l *Live) Scroll(key console.Key) {
	switch page := max(1, l.rows-1); key {
	case console.Up:
		l.offset--
	case console.Down:
		l.offset++
	case console.PageUp:
		l.offset -= page
	case console.PageDown:
		l.offset += page
	case console.Home:
		l.offset = 0
	case console.End:
		l.offset = l.lines
	}
	l.offset = max(0, min(l.offset, l.lines-l.rows))
}

// problemsMax bounds the problems that a live page shows above its lists.
const problemsMax = 3

// Screen returns the lines of the page, at most rows. The head and the last line stay where they
// are, and the rest is scrolled.
func (l *Live) Screen(rows int, every time.Duration, v View) []string {
	var head, list []line
	if l.now != nil {
		head, list = l.now.head(problemsMax), l.list(v)
	}
	if l.failure != "" {
		head = append([]line{{{console.Red, fmt.Sprintf("no answer (%s): %s",
			console.Count(int64(l.failures), "attempt"), l.failure)}}}, head...)
	}
	head = head[:min(len(head), max(0, rows-1))]
	l.lines, l.rows = len(list), max(0, rows-1-len(head))
	l.offset = max(0, min(l.offset, l.lines-l.rows))
	list = list[l.offset:min(l.offset+l.rows, l.lines)]
	foot := fmt.Sprintf("q ends, every %s", every)
	if l.lines > l.rows && l.rows > 0 {
		foot += fmt.Sprintf("; lines %d to %d of %d: arrows, PgUp, PgDn", l.offset+1,
			l.offset+len(list), l.lines)
	}
	var lines []string
	for _, row := range append(append(head, list...), line{{console.Dim, foot}}) {
		lines = append(lines, row.clip(v.Columns).text(v.Paint))
	}
	return lines
}

// list returns the lines that can be scrolled.
func (l *Live) list(v View) (lines []line) {
	const all = 1000 // more rows than an answer has
	a, width := l.now.Answer, v.Columns
	wide := v.Columns >= twoColumns
	if wide {
		width = (v.Columns - gap) / 2
	}
	inner := width - labelColumns
	left := []part{l.rates(), l.load(), a.operations(inner, v.ASCII), a.backup(), a.exports(),
		a.repositories(), a.backfill(), a.disk(), a.conditions()}
	right := []part{a.sources(inner, all), a.subscriptions(inner, all), a.failing(inner, all)}
	if wide {
		lines = beside(width, block(left, width), block(right, width))
	} else {
		lines = block(append(left, right...), width)
	}
	return append(lines, block([]part{a.hosts(v.Columns - labelColumns)}, v.Columns)...)
}

// rates returns the changes a second since the sample before.
func (l *Live) rates() part {
	r := l.now.RatesSince(l.before)
	return part{"Per second", []line{plain(fmt.Sprintf("%s records, %s commits, %s requests, %s",
		rate(r.Records), rate(r.Commits), rate(r.Requests), size(int64(r.Received))))}}
}

// load returns what the daemon takes of its machine.
func (l *Live) load() part {
	r := l.now.RatesSince(l.before)
	return part{"Load", []line{plain(fmt.Sprintf("CPU %.0f%%, memory %s, disk read %s/s, written %s/s",
		100*r.CPU, size(int64(l.now.Memory)), size(int64(r.Read)), size(int64(r.Written))))}}
}

// rate writes a number a second, with a digit behind the point if it is small.
func rate(n float64) string {
	if n > -10 && n < 10 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", n), ".0")
	}
	return humanize.Comma(int64(n))
}

// Titles names the columns of Row.
func Titles() string {
	return row("TIME", "SYNCED", "LEFT", "RECORDS/s", "COMMITS/s", "REQS/s", "RECEIVED/s", "CPU",
		"WRITTEN/s", "LAG", "PROBLEMS")
}

// Row returns the newest sample as a row of a table, for output that is not a terminal.
func (l *Live) Row() string {
	if l.failure != "" {
		return "no answer: " + console.Printable(l.failure)
	}
	r, lag := l.now.RatesSince(l.before), "-"
	if f := l.now.Stats.Firehose; f != nil && f.Running > 0 {
		lag = spell(f.Lag)
	}
	return row(l.now.now().UTC().Format(time.RFC3339), humanize.Comma(l.now.Stats.Counts["synced"]),
		humanize.Comma(l.now.waiting()), rate(r.Records), rate(r.Commits), rate(r.Requests),
		size(int64(r.Received)), fmt.Sprintf("%.0f%%", 100*r.CPU), size(int64(r.Written)), lag,
		fmt.Sprint(l.now.Verdict.Count))
}

func row(cells ...string) string {
	const widths = "%-20s %11s %11s %9s %9s %7s %10s %6s %10s %9s %8s"
	all := make([]any, len(cells))
	for i, c := range cells {
		all[i] = c
	}
	return fmt.Sprintf(widths, all...)
}

// Rates returns the rates of the newest sample.
func (l *Live) Rates() Rates { return l.now.RatesSince(l.before) }
