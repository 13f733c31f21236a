package backlinks

import (
	"strings"

	"cistern/api/wire"
	"cistern/store/linkindex"
)

// record is a record as the service names it.
type record struct {
	DID        string `json:"did"`
	Collection string `json:"collection"`
	RKey       string `json:"rkey"`
}

// recordPage is a page of the records that link to a subject.
type recordPage struct {
	Total   int64    `json:"total"`
	Records []record `json:"records"`
	Cursor  string   `json:"cursor,omitempty"`
}

// olderRecordPage is recordPage with the older name of its list.
type olderRecordPage struct {
	Total   int64    `json:"total"`
	Records []record `json:"linking_records"`
	Cursor  string   `json:"cursor,omitempty"`
}

// didPage is a page of the accounts that have such records.
type didPage struct {
	Total  int64    `json:"total"`
	DIDs   []string `json:"linking_dids"`
	Cursor string   `json:"cursor,omitempty"`
}

// getBacklinks answers blue.microcosm.links.getBacklinks.
func (b *Backlinks) getBacklinks(q wire.Query) (any, error) {
	s, err := scopeOf(q)
	if err != nil {
		return nil, err
	}
	reverse, err := q.Bool("reverse")
	if err != nil {
		return nil, err
	}
	return b.records(q, s, "did", q.All("did"), reverse)
}

// links answers /links.
func (b *Backlinks) links(q wire.Query) (any, error) {
	s, err := olderScope(q)
	if err != nil {
		return nil, err
	}
	var dids []string
	if text := q.Text("from_dids"); text != "" {
		dids = strings.Split(text, ",")
	}
	page, err := b.records(q, s, "from_dids", dids, false)
	return olderRecordPage(page), err
}

// records returns a page of the records in a scope, of the accounts that a parameter names or of
// all.
func (b *Backlinks) records(
	q wire.Query, s scope, name string, dids []string, reverse bool,
) (recordPage, error) {
	page := recordPage{Records: []record{}}
	if err := checkDIDs(name, dids); err != nil {
		return page, err
	}
	limit, err := q.Limit(limitUsual, limitMax)
	if err != nil {
		return page, err
	}
	at, _, err := numbersOf(q, 1)
	if err != nil {
		return page, err
	}
	if page.Total, _, err = b.index.Count(s.target, s.source); err != nil {
		return page, indexError(err)
	}
	found, next, err := b.index.Records(s.target, s.source, linkindex.Query{
		DIDs: dids, After: linkindex.Cursor(at[0]), Limit: limit, Reverse: reverse})
	for _, r := range found {
		page.Records = append(page.Records, record(r))
	}
	page.Cursor = listCursor(next)
	return page, indexError(err)
}

// listCursor returns the cursor of a place in the index, "" at the end.
func listCursor(next linkindex.Cursor) string {
	if next == 0 {
		return ""
	}
	return cursorOf("", uint64(next))
}

// getBacklinkDIDs answers blue.microcosm.links.getBacklinkDids.
func (b *Backlinks) getBacklinkDIDs(q wire.Query) (any, error) {
	s, err := scopeOf(q)
	if err != nil {
		return nil, err
	}
	return b.dids(q, s)
}

// distinctDIDs answers /links/distinct-dids.
func (b *Backlinks) distinctDIDs(q wire.Query) (any, error) {
	s, err := olderScope(q)
	if err != nil {
		return nil, err
	}
	return b.dids(q, s)
}

// dids returns a page of the accounts in a scope.
func (b *Backlinks) dids(q wire.Query, s scope) (didPage, error) {
	page := didPage{DIDs: []string{}}
	limit, err := q.Limit(limitUsual, limitMax)
	if err != nil {
		return page, err
	}
	at, _, err := numbersOf(q, 1)
	if err != nil {
		return page, err
	}
	if _, page.Total, err = b.index.Count(s.target, s.source); err != nil {
		return page, indexError(err)
	}
	found, next, err := b.index.DIDs(s.target, s.source, linkindex.Cursor(at[0]), limit)
	page.DIDs, page.Cursor = append(page.DIDs, found...), listCursor(next)
	return page, indexError(err)
}
