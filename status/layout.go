package status

import (
	"strings"

	"cistern/console"

	"github.com/mattn/go-runewidth"
)

// span is text in one colour of package console.
type span struct{ color, text string }

// line is a line of spans, which follow each other without gaps.
type line []span

// plain returns a line in the colour of the terminal.
func plain(text string) line { return line{{"", text}} }

// width returns the columns that the line takes.
func (l line) width() (n int) {
	for _, s := range l {
		n += runewidth.StringWidth(console.Printable(s.text))
	}
	return n
}

// clip returns the line cut to at most columns, with an ellipsis.
func (l line) clip(columns int) line {
	if l.width() <= columns {
		return l
	}
	var cut line
	for _, s := range l {
		text := console.Printable(s.text)
		if w := runewidth.StringWidth(text); w < columns {
			columns -= w
			cut = append(cut, s)
			continue
		}
		return append(cut, span{s.color, console.Clip(text+"…", columns)})
	}
	return cut
}

// pad returns the line with spaces up to columns.
func (l line) pad(columns int) line {
	return append(l.clip(columns), span{"", strings.Repeat(" ", max(0, columns-l.width()))})
}

// text returns the line for a terminal.
func (l line) text(paint func(color, text string) string) string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(paint(s.color, console.Printable(s.text)))
	}
	return strings.TrimRight(b.String(), " ")
}

// gap is between the columns of a table and of a page.
const gap = 2

// table aligns the cells of rows. The last column takes what is left of columns, and each other at
// most half of them.
func table(rows [][]span, columns int) (lines []line) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = min(max(widths[i], line{cell}.width()), columns/2)
		}
	}
	for _, row := range rows {
		var l line
		for i, cell := range row {
			if i == len(row)-1 {
				l = append(l, cell)
				continue
			}
			l = append(append(l, line{cell}.pad(widths[i])...), span{"", strings.Repeat(" ", gap)})
		}
		lines = append(lines, l.clip(columns))
	}
	return lines
}

// beside joins two blocks of lines, the left of which is left columns wide.
func beside(left int, a, b []line) (lines []line) {
	for i := range max(len(a), len(b)) {
		var l line
		if i < len(a) {
			l = append(l, a[i]...)
		}
		if i < len(b) {
			l = append(l.pad(left+gap), b[i]...)
		}
		lines = append(lines, l)
	}
	return lines
}

// bar draws done of total as a bar of size columns.
func bar(done, total int64, size int, ascii bool) line {
	full, empty := "━", "─"
	if ascii {
		full, empty = "#", "-"
	}
	n := 0
	if total > 0 {
		n = int(float64(size) * float64(max(0, min(done, total))) / float64(total))
	}
	return line{{console.Green, strings.Repeat(full, n)}, {console.Dim, strings.Repeat(empty, size-n)}}
}
