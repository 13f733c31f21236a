package dump

import (
	"cistern/store"

	"github.com/parquet-go/parquet-go"
)

// page is what is read at a time. One goroutine fills it, and then another one writes it.
type page struct {
	rows    int
	text    []byte                   // lines of NDJSON; for Parquet the texts of rows
	columns [colsMax][]parquet.Value // for Parquet

	first, last name // of its records
}

// name is the place of a record.
type name struct {
	did        string
	collection []byte
	rkey       []byte
}

func (n *name) set(ev *store.Event) {
	n.did = ev.DID
	n.collection = append(n.collection[:0], ev.Collection...)
	n.rkey = append(n.rkey[:0], ev.Rkey...)
}

// uri returns the at-URI of the record, "" without a record.
func (n *name) uri() string {
	if n.did == "" {
		return ""
	}
	return "at://" + n.did + "/" + string(n.collection) + "/" + string(n.rkey)
}

func newPage() *page {
	return &page{text: make([]byte, 0, pageBytes+pageBytes/4)}
}

func (p *page) reset() {
	p.rows, p.text = 0, p.text[:0]
	for i := range p.columns {
		p.columns[i] = p.columns[i][:0]
	}
	p.first.did, p.last.did = "", ""
}

// count notes a record that was added.
func (p *page) count(ev *store.Event) {
	if p.rows++; p.rows == 1 {
		p.first.set(ev)
	}
	p.last.set(ev)
}

// full reports whether a page has as much as it should, of which rows is the most.
func (p *page) full(rows int64) bool {
	return int64(p.rows) >= min(pageRows, rows) || len(p.text) >= pageBytes
}
