package repo

import (
	"fmt"
	"time"
)

const (
	tidBytes = 13
	// tidFirstMax is the last letter a TID may begin with: 13 letters carry 65 bits, a TID 63.
	tidFirstMax = 'j'
	// tidClockBits is the clock identifier's part, below the microseconds.
	tidClockBits = 10
)

// ParseTID reads a TID, the form of a rev, as the integer it stands for.
func ParseTID(s string) (uint64, error) {
	if len(s) != tidBytes || s[0] > tidFirstMax {
		return 0, fmt.Errorf("TID %.32q: %w", s, ErrInvalid)
	}
	var v uint64
	for i := 0; i < len(s); i++ {
		switch b := s[i]; {
		case b >= '2' && b <= '7':
			v = v<<5 | uint64(b-'2')
		case b >= 'a' && b <= 'z':
			v = v<<5 | uint64(b-'a'+6)
		default:
			return 0, fmt.Errorf("TID %.32q: %w", s, ErrInvalid)
		}
	}
	return v, nil
}

// TIDTime is the time a TID carries, the zero time for what is no TID.
func TIDTime(s string) time.Time {
	v, err := ParseTID(s)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(int64(v >> tidClockBits)).UTC()
}
