package pages

import (
	"time"

	"cistern/store"
)

// Mark states how far a listing was read. The zero Mark is the position before the first page.
type Mark store.CrawlMark

// Again returns the mark of the pass that follows this one.
func (m Mark) Again() Mark { return Mark{Before: m.Before, Thin: m.Thin} }

// End returns the mark of a pass that has ended. A pass that named nothing, or less than half of
// what the previous one named, is thin: a relay that has just started knows few hosts. After
// thinMax thin passes in a row the listing is believed to be that short.
func (m Mark) End(now time.Time) Mark {
	m.Cursor, m.Ended = "", max(1, now.Unix())
	switch thin := m.Named == 0 || 2*m.Named < m.Before; {
	case thin && m.Thin < thinMax:
		m.Thin++
	case thin && m.Named == 0:
		m.Before = 0
	default:
		m.Before, m.Thin = m.Named, 0
	}
	return m
}

// Due returns when the listing must be read from the beginning again. It is zero while a pass is
// under way, and also if the stored end of the last pass is later than now by more than every,
// because the clock was ahead then. A thin pass is repeated soon, with a doubling delay.
func (m Mark) Due(every time.Duration, now time.Time) time.Time {
	if m.Thin > 0 && m.Thin < thinMax {
		every = min(every, thinAgain<<(m.Thin-1))
	}
	ended := time.Unix(m.Ended, 0)
	if m.Ended == 0 || ended.Sub(now) > every {
		return time.Time{}
	}
	return ended.Add(every)
}
