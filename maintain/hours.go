package maintain

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
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

// ParseHours reads hours as in 22-6 or 22:30-06:00. The error says what is wanted, without the
// value.
func ParseHours(s string) (h Hours, err error) {
	from, to, ok := strings.Cut(s, "-")
	var fine [2]bool
	h.From, fine[0] = parseClock(from)
	h.To, fine[1] = parseClock(to)
	if !ok || !fine[0] || !fine[1] || h.From == h.To || h.validate() != nil {
		return Hours{}, errors.New("want two different times of a day, such as 22-6 or 22:30-06:00")
	}
	return h, nil
}

// parseClock reads a time of a day: hours, with minutes behind a colon or without.
func parseClock(s string) (time.Duration, bool) {
	hour, minute, both := strings.Cut(strings.TrimSpace(s), ":")
	h, err := strconv.ParseUint(hour, 10, 8)
	if err != nil || !both {
		return time.Duration(h) * time.Hour, err == nil
	}
	m, err := strconv.ParseUint(minute, 10, 8)
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute,
		err == nil && m < 60 && len(minute) == 2
}

// String returns the hours as in 22:00-06:00.
func (h Hours) String() string {
	clock := func(d time.Duration) string {
		return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60)
	}
	return clock(h.From) + "-" + clock(h.To)
}

// Contain reports whether t is in the hours, in the location of t.
func (h Hours) Contain(t time.Time) bool {
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
	if h.Contain(t) {
		return t
	}
	y, m, d := t.Date()
	at := time.Date(y, m, d, 0, 0, 0, int(h.From), t.Location())
	if at.Before(t) {
		at = time.Date(y, m, d+1, 0, 0, 0, int(h.From), t.Location())
	}
	return at
}
