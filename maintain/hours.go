package maintain

import (
	"fmt"
	"time"
)

const day = 24 * time.Hour

// Hours are a part of every day, from From until before To, both in time since midnight by the
// clock on the wall. If To is not after From, the part crosses midnight. The zero value is all day.
type Hours struct{ From, To time.Duration }

func (h Hours) validate() error {
	if h.From < 0 || h.From >= day || h.To < 0 || h.To > day || h.From == h.To && h.From != 0 {
		return fmt.Errorf("hours %s to %s: want two different times of a day", h.From, h.To)
	}
	return nil
}

// String returns the hours as in 22:00-06:00.
func (h Hours) String() string {
	clock := func(d time.Duration) string {
		return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60)
	}
	return clock(h.From) + "-" + clock(h.To)
}

// contain reports whether t is in the hours, in the location of t.
func (h Hours) contain(t time.Time) bool {
	at := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute +
		time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond())
	switch {
	case h == Hours{}:
		return true
	case h.From < h.To:
		return h.From <= at && at < h.To
	default:
		return h.From <= at || at < h.To
	}
}

// next returns the first time from t on that is in the hours.
func (h Hours) next(t time.Time) time.Time {
	if h.contain(t) {
		return t
	}
	y, m, d := t.Date()
	at := time.Date(y, m, d, 0, 0, 0, int(h.From), t.Location())
	if at.Before(t) {
		at = time.Date(y, m, d+1, 0, 0, 0, int(h.From), t.Location())
	}
	return at
}
