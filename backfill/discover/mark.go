package discover

import (
	"time"

	"cistern/store"
)

// mark is how far a list was read; a row of the store holds it. The zero mark is before the first
// page.
type mark struct {
	filter uint32 // version of the filter by which the pass judged last
	ended  int64  // unix seconds when the pass came to its end; 0: it is under way
	pages  int    // of the pass
	named  int64  // entries of the pass
	before int64  // entries of the last pass that was not thin
	thin   int    // passes in a row that ended with nothing, or with much less than before
	cursor string // of the page to ask for
}

// markOf returns the mark that a row of the store holds.
func markOf(row store.CrawlMark) mark {
	return mark{filter: row.Filter, ended: row.Ended, pages: int(row.Pages), named: row.Named,
		before: row.Before, thin: int(row.Thin), cursor: row.Cursor}
}

// row returns the mark as the store holds it.
func (m mark) row() store.CrawlMark {
	return store.CrawlMark{Filter: m.filter, Ended: m.ended, Pages: int64(m.pages), Named: m.named,
		Before: m.before, Thin: uint8(m.thin), Cursor: m.cursor}
}

// again returns the mark of the pass that follows this one.
func (m mark) again() mark { return mark{before: m.before, thin: m.thin} }

// end returns the mark of a pass that has ended. A pass that named nothing, or less than half of
// what the previous one named, is thin: a relay that has just started knows few hosts. After
// thinMax thin passes in a row the list is believed to be that short.
func (m mark) end(now time.Time) mark {
	m.cursor, m.ended = "", max(1, now.Unix())
	switch thin := m.named == 0 || 2*m.named < m.before; {
	case thin && m.thin < thinMax:
		m.thin++
	case thin && m.named == 0:
		m.before = 0
	default:
		m.before, m.thin = m.named, 0
	}
	return m
}

// due returns when the list must be read from the beginning again. It is zero while a pass is under
// way, and also if the last pass ended by a clock that was ahead of now by more than every. A thin
// pass is repeated soon, with a doubling delay.
func (m mark) due(every time.Duration, now time.Time) time.Time {
	if m.thin > 0 && m.thin < thinMax {
		every = min(every, thinAgain<<(m.thin-1))
	}
	ended := time.Unix(m.ended, 0)
	if m.ended == 0 || ended.Sub(now) > every {
		return time.Time{}
	}
	return ended.Add(every)
}
