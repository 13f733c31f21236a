package backlinks

import (
	"cistern/api/wire"
	"cistern/store/linkindex"
)

// pair is a linking record and one of its other subjects.
type pair struct {
	Record record `json:"linkRecord"`
	Other  string `json:"otherSubject"`
}

// pairPage is a page of pairs.
type pairPage struct {
	Items  []pair `json:"items"`
	Cursor string `json:"cursor,omitempty"`
}

// getManyToMany answers blue.microcosm.links.getManyToMany, in the order of getBacklinks, and for
// each record in its order. The cursor has the arrival of the record that was read last, and 0 if
// all of its subjects were listed, else one more than the number of those that were.
func (b *Backlinks) getManyToMany(q wire.Query) (any, error) {
	m, err := manyOf(q, "linkDid")
	if err != nil {
		return nil, err
	}
	at, _, err := numbersOf(q, 2)
	if err != nil {
		return nil, err
	}
	p := pairs{reader: b.newReader(m), page: pairPage{Items: []pair{}}}
	after := linkindex.Cursor(at[0])
	if at[1] > 0 { // the record itself, if it is still there, and the others behind it
		p.partly, p.listed = after, at[1]-1
		after++
	}
	query := linkindex.Query{DIDs: m.dids, After: after, Limit: b.bounds.records}
	next, err := b.index.Each(m.target, m.source, query, p.add)
	if p.err != nil {
		return nil, p.err
	}
	if p.page.Cursor == "" && next != 0 {
		p.page.Cursor = cursorOf("", uint64(next), 0)
	}
	return p.page, indexError(err)
}

// pairs gathers a page of pairs.
type pairs struct {
	*reader
	page   pairPage
	partly linkindex.Cursor // the record of which the page before listed
	listed uint64           // so many subjects
	err    error            // of the store
}

// add adds the pairs of a record, and reports whether there is room for more.
func (p *pairs) add(rec linkindex.Record, at linkindex.Cursor) bool {
	others, err := p.subjects(rec)
	if err != nil {
		p.err = err
		return false
	}
	listed := uint64(0)
	if at == p.partly {
		listed = min(p.listed, uint64(len(others)))
	}
	for _, other := range others[listed:] {
		if len(p.page.Items) == p.many.limit {
			p.page.Cursor = cursorOf("", uint64(at), listed+1)
			return false
		}
		p.page.Items = append(p.page.Items, pair{record(rec), other})
		listed++
	}
	return p.bytes < p.bounds.bytes
}
