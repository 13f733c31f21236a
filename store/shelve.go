package store

import "cistern/filter"

// place states how a record is stored.
type place uint8

const (
	absent  place = iota
	hidden        // its path is not a valid collection/rkey: kept for the root, not shown
	shelved       // its collection is not wanted, and the filter stores everything: kept, not shown
	shown
)

var placeNames = [...]string{"absent", "hidden", "shelved", "shown"}

func (p place) String() string { return placeNames[p] }

// placeOf returns the place that a filter gives a record. The parts of its MST key are those of
// repo.SplitPath.
func placeOf(f *filter.Filter, collection []byte, valid bool) place {
	switch {
	case valid && f.Wants(collection):
		return shown
	case !f.WantsAll() && !f.StoresAll():
		return absent
	case !valid:
		return hidden
	}
	return shelved
}

// placeOf is the function placeOf for a filter of s. An ephemeral store keeps only records that an
// event shows.
func (s *Store) placeOf(f *filter.Filter, collection []byte, valid bool) place {
	at := placeOf(f, collection, valid)
	if s.ephemeral && at != shown {
		return absent
	}
	return at
}

func (r recordRow) place() place {
	switch {
	case r.hidden:
		return hidden
	case r.shelved:
		return shelved
	}
	return shown
}

// moved updates the counts of the row for one record that moves between places.
func (r *Repo) moved(from, to place) {
	for _, step := range [...]struct {
		at place
		d  int64
	}{{from, -1}, {to, 1}} {
		switch step.at {
		case shelved:
			r.Shelved += step.d
		case hidden:
			r.Hidden = uint32(int64(r.Hidden) + step.d)
			r.Records += step.d
		case shown:
			r.Records += step.d
		}
	}
}
