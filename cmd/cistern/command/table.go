package command

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"

	"cistern/console"
)

// Table aligns rows in columns. On a terminal its lines are cut where the terminal ends; elsewhere
// they are whole, for the program that reads them.
type Table struct {
	term *console.Terminal
	text *bytes.Buffer
	rows *tabwriter.Writer
}

// NewTable returns a table that is written to the standard output when it is flushed.
func (p *Process) NewTable() *Table {
	text := new(bytes.Buffer)
	return &Table{term: console.New(p.Stdout, p.Environ), text: text,
		rows: tabwriter.NewWriter(text, 0, 0, 2, ' ', 0)}
}

// Add adds a row, or the titles of the columns. An empty cell is shown as a dash.
func (t *Table) Add(cells ...string) {
	for i, cell := range cells {
		cells[i] = cmp.Or(console.Printable(cell), "-")
	}
	// A write to a buffer does not fail.
	fmt.Fprintln(t.rows, strings.Join(cells, "\t"))
}

// Flush writes the rows that were added.
func (t *Table) Flush() error {
	_ = t.rows.Flush()
	text := t.text.String()
	if t.term.Live() {
		var b strings.Builder
		for line := range strings.Lines(text) {
			b.WriteString(console.Clip(strings.TrimRight(line, " \n"), t.term.Columns()) + "\n")
		}
		text = b.String()
	}
	_, err := t.term.Write([]byte(text))
	return err
}
