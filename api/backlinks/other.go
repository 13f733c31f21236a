package backlinks

import (
	"errors"
	"slices"

	"cistern/api/wire"
	"cistern/links"
	"cistern/store"
	"cistern/store/linkindex"
)

// many is what a query about pairs of subjects is about: records that link to one at the path of
// their scope, and to others at another path.
type many struct {
	scope
	path   string   // to the others
	others []string // sorted; nil: all
	dids   []string // nil: all
	limit  int
}

// manyOf returns what the parameters name; those of accounts have the name dids.
func manyOf(q wire.Query, dids string) (m many, err error) {
	if m.scope, err = scopeOf(q); err != nil {
		return m, err
	}
	path, err := q.Required("pathToOther")
	if err != nil {
		return m, err
	}
	m.path, m.dids = "."+path, q.All(dids)
	if err := checkDIDs(dids, m.dids); err != nil {
		return m, err
	}
	if m.others, err = othersOf(q); err != nil {
		return m, err
	}
	m.limit, err = q.Limit(limitUsual, limitMax)
	return m, err
}

// reader reads the records of one request.
type reader struct {
	store  *store.Store
	bounds bounds
	many   many
	rows   map[string]*store.Repo // of the accounts read so far; nil: hidden or unknown
	bytes  int                    // of the bodies read so far
	links  []links.Link
}

func (b *Backlinks) newReader(m many) *reader {
	return &reader{store: b.store, bounds: b.bounds, many: m, rows: map[string]*store.Repo{}}
}

// account returns the row of an account that is shown, nil for another.
func (r *reader) account(did string) (*store.Repo, error) {
	if row, ok := r.rows[did]; ok {
		return row, nil
	}
	row, err := r.store.Repo(did)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err != nil || row.Status.Hidden() {
		r.rows[did] = nil
		return nil, nil
	}
	r.rows[did] = &row
	return &row, nil
}

// subjects returns the other subjects of a linking record, each once, in the order of the record. A
// record that does not link to the target any more has none: the index may be behind the record.
func (r *reader) subjects(rec linkindex.Record) (others []string, err error) {
	row, err := r.account(rec.DID)
	if err != nil || row == nil {
		return nil, err
	}
	held, err := r.store.Record(row, rec.Collection, rec.RKey)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.bytes += len(held.Record)
	if r.links, err = links.Extract(r.links[:0], held.Record); err != nil {
		return nil, nil // a record without links: the index may be behind the record
	}
	linked := false
	for _, l := range r.links {
		linked = linked || l.Path == r.many.source.Path && l.Target == r.many.target
		if l.Path != r.many.path || !r.many.wants(l.Target) || slices.Contains(others, l.Target) {
			continue
		}
		others = append(others, l.Target)
	}
	if !linked {
		return nil, nil
	}
	return others, nil
}

// wants reports whether a request is about another subject.
func (m *many) wants(other string) bool {
	if m.others == nil {
		return true
	}
	_, ok := slices.BinarySearch(m.others, other)
	return ok
}
