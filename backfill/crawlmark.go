package backfill

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// mark is how far a list was read: what is kept under its name as a crawl cursor. The zero mark is before the first page.
type mark struct {
	filter uint32 // version of the filter by which the pass judged last
	ended  int64  // unix seconds when the pass came to its end; 0: it is under way
	pages  int    // of the pass
	named  int64  // entries of the pass
	before int64  // entries of the last pass that was not thin
	thin   int    // passes in a row that ended with nothing, or with much less than before
	cursor string // of the page to ask for
}

func (m mark) String() string {
	if m == (mark{}) {
		return ""
	}
	return fmt.Sprintf("%d %d %d %d %d %d %s", m.filter, m.ended, m.pages, m.named, m.before, m.thin, m.cursor)
}

// parseMark reads what String wrote. Text that it cannot parse means the beginning of the list.
func parseMark(s string) mark {
	parts := strings.SplitN(s, " ", 7)
	if len(parts) != 7 {
		return mark{}
	}
	var n [6]int64
	for i := range n {
		var err error
		if n[i], err = strconv.ParseInt(parts[i], 10, 64); err != nil || n[i] < 0 {
			return mark{}
		}
	}
	if n[0] > math.MaxUint32 || n[5] > thinMax {
		return mark{}
	}
	return mark{uint32(n[0]), n[1], int(n[2]), n[3], n[4], int(n[5]), parts[6]}
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

// due is when the list is to be read from the beginning again, zero while the pass is under way,
// and when the clock that told its end was ahead of now by more than that. A thin pass is repeated
// soon, with a doubling delay.
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
