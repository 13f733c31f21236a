package dump

import (
	"time"

	"cistern/ingest/repo"
)

// createdField is the field in which records state when they were made.
const createdField = "createdAt"

// createdAt returns the time that a record states in its field createdAt, in unix microseconds. ok
// is false if the record has no such field, or if the field is no time in RFC 3339 between the
// years 1 and 9999.
func createdAt(record []byte) (micros int64, ok bool) {
	text := textField(record, createdField)
	var t time.Time
	if text == nil || t.UnmarshalText(text) != nil {
		return 0, false
	}
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9999 {
		return 0, false
	}
	return t.UnixMicro(), true
}

// textField returns the text of a field of a record, nil if the record has no such text.
func textField(record []byte, name string) []byte {
	major, n, at, ok := repo.Head(record, 0)
	if !ok || major != repo.MajorMap {
		return nil
	}
	for ; n > 0; n-- {
		from, to, ok := repo.Span(record, at, repo.MajorText)
		if !ok {
			return nil
		}
		if string(record[from:to]) == name {
			if from, to, ok = repo.Span(record, to, repo.MajorText); ok {
				return record[from:to]
			}
			return nil
		}
		if at, ok = skip(record, to); !ok {
			return nil
		}
	}
	return nil
}

// skip returns the end of the value at b[at:]. Every step reads a byte, so that it ends whatever
// the lengths are.
func skip(b []byte, at int) (end int, ok bool) {
	for left := uint64(1); left > 0; left-- {
		major, n, next, ok := repo.Head(b, at)
		if !ok || n > uint64(len(b)) && (major >= repo.MajorBytes && major <= repo.MajorMap) {
			return 0, false
		}
		switch at = next; major {
		case repo.MajorBytes, repo.MajorText:
			if n > uint64(len(b)-at) {
				return 0, false
			}
			at += int(n)
		case repo.MajorArray:
			left += n
		case repo.MajorMap:
			left += 2 * n
		case repo.MajorTag:
			left++
		}
	}
	return at, true
}

// revTime returns the time of a rev in unix microseconds. ok is false if the rev is no TID.
func revTime(rev string) (micros int64, ok bool) {
	t := repo.TIDTime(rev)
	return t.UnixMicro(), !t.IsZero()
}
