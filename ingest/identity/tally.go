package identity

import "time"

// The window of a tally is divided into slots of slotTime.
const (
	slotTime = 30 * time.Second
	slots    = int(FaultWindow / slotTime)
)

// tally counts the requests to one directory in the last FaultWindow. It has one place for each
// slot, which is used again a window later.
type tally [slots]slot

// slot has the requests of a time of length slotTime.
type slot struct {
	number                    uint64 // of the slot, since 1970
	answered, failed, refused int
}

func slotNumber(now time.Time) uint64 { return uint64(now.Unix()) / uint64(slotTime/time.Second) }

// at returns the slot of a time.
func (t *tally) at(now time.Time) *slot {
	n := slotNumber(now)
	s := &t[n%uint64(slots)]
	if s.number != n {
		*s = slot{number: n}
	}
	return s
}

// sum returns how many requests of the last FaultWindow failed, and how many there were. Requests
// that were refused by a 429 count as failed in slots in which none was answered. In other slots
// they do not count: lookups are only delayed.
func (t *tally) sum(now time.Time) (failed, asked int) {
	last := slotNumber(now)
	for _, s := range t {
		if s.number > last || last-s.number >= uint64(slots) {
			continue
		}
		bad := s.failed
		if s.answered == 0 {
			bad += s.refused
		}
		failed += bad
		asked += bad + s.answered
	}
	return failed, asked
}
