package store

import (
	"encoding/binary"
	"fmt"
	"time"
)

// everything is the name under which the total of all collections is stored.
const everything = ""

// Arrivals are the events of one UTC day that created, updated or deleted a record. An event counts
// on the day of its entry of the log. An import creates its records; a relist creates none.
type Arrivals struct {
	Created, Updated, Deleted uint64
}

func (a *Arrivals) add(b Arrivals) {
	a.Created += b.Created
	a.Updated += b.Updated
	a.Deleted += b.Deleted
}

// total is what is counted of one collection, or of everything, over all accounts that are not
// hidden.
type total struct {
	repos   int64 // that show records
	records int64 // that are shown
	day     uint32
	arrived Arrivals // of that day, the newest on which there was one
}

// dayOf returns the UTC day of a time of the log: days since 1970.
func dayOf(micros int64) uint32 { return uint32(micros / (24 * time.Hour).Microseconds()) }

// append encodes a total as version(1) and uvarints.
func (t *total) append(dst []byte) []byte {
	dst = append(dst, valueVersion)
	for _, n := range [...]uint64{uint64(t.repos), uint64(t.records), uint64(t.day)} {
		dst = binary.AppendUvarint(dst, n)
	}
	return t.arrived.append(dst)
}

func (a Arrivals) append(dst []byte) []byte {
	for _, n := range [...]uint64{a.Created, a.Updated, a.Deleted} {
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

// parseNumbers reads uvarints behind a version byte. They must be all of b.
func parseNumbers(b []byte, into []uint64) error {
	rest := b
	if len(rest) > 0 && rest[0] == valueVersion {
		rest = rest[1:]
		for i := range into {
			n, size := binary.Uvarint(rest)
			if size <= 0 || n > 1<<62 {
				break
			}
			into[i], rest = n, rest[size:]
			if i == len(into)-1 && len(rest) == 0 {
				return nil
			}
		}
	}
	return fmt.Errorf("%d numbers %x: %w", len(into), b, ErrCorrupt)
}

func parseTotal(b []byte) (t total, err error) {
	var n [6]uint64
	if err = parseNumbers(b, n[:]); err == nil && n[2] > 1<<32-1 {
		err = fmt.Errorf("total of day %d: %w", n[2], ErrCorrupt)
	}
	return total{repos: int64(n[0]), records: int64(n[1]), day: uint32(n[2]),
		arrived: Arrivals{n[3], n[4], n[5]}}, err
}

func parseArrivals(b []byte) (Arrivals, error) {
	var n [3]uint64
	err := parseNumbers(b, n[:])
	return Arrivals{n[0], n[1], n[2]}, err
}

// appendArrivalsRow encodes the row of a day.
func appendArrivalsRow(dst []byte, a Arrivals) []byte { return a.append(append(dst, valueVersion)) }
