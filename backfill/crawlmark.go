package backfill

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// mark is how far a list was read: what is kept under its name as a crawl cursor. The zero mark is before the first page.
type mark struct {
	filter uint32 // version of the filter by which the pass judged last
	ended  int64  // unix seconds when the pass came to its end; 0: it is under way
	pages  int    // of the pass
	cursor string // of the page to ask for
}

func (m mark) String() string {
	if m == (mark{}) {
		return ""
	}
	return fmt.Sprintf("%d %d %d %s", m.filter, m.ended, m.pages, m.cursor)
}

// parseMark reads what String gave. What it does not understand, cursors of older stores too, is the beginning.
func parseMark(s string) mark {
	parts := strings.SplitN(s, " ", 4)
	if len(parts) != 4 {
		return mark{}
	}
	version, err := strconv.ParseUint(parts[0], 10, 32)
	ended, err2 := strconv.ParseInt(parts[1], 10, 64)
	pages, err3 := strconv.Atoi(parts[2])
	if err != nil || err2 != nil || err3 != nil || ended < 0 || pages < 0 {
		return mark{}
	}
	return mark{uint32(version), ended, pages, parts[3]}
}

// due is when the list is to be read from the beginning again, zero while the pass is under way, and when the clock that told its
// end was ahead of now by more than that.
func (m mark) due(every time.Duration, now time.Time) time.Time {
	ended := time.Unix(m.ended, 0)
	if m.ended == 0 || ended.Sub(now) > every {
		return time.Time{}
	}
	return ended.Add(every)
}
