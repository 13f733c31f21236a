package refilter

import (
	"slices"

	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/store"
)

// Relation describes how the records that an earlier filter chose differ from those that the filter
// in force chooses.
type Relation struct {
	Differs bool // some record is stored or shown by only one of them
	Sweeps  bool // stored records are to be deleted, shown or hidden
	Lacks   bool // records are missing
	Judges  bool // a repository that had a signal may have none now
	Sees    bool // the stored records show whether there is a signal
}

// Relate compares an earlier filter with the one in force.
func Relate(old, now *filter.Filter) Relation {
	all := KeepsAll(old)
	rel := Relation{
		Differs: !now.Covers(old) || !old.Covers(now) || all != KeepsAll(now),
		Lacks:   !all && (KeepsAll(now) || !old.Covers(now)),
		Judges:  !now.Full() && (old.Full() || !includes(now.Signals(), old.Signals())),
		Sees:    all || old.SignalsCovered(now),
	}
	rel.Sweeps = rel.Differs && (all || !now.Covers(old))
	return rel
}

// KeepsAll reports whether a filter stores every record, shown or not.
func KeepsAll(f *filter.Filter) bool { return f.WantsAll() || f.StoresAll() }

// includes reports whether one set has all of another. Both are in ascending order.
func includes(all, some []string) bool {
	for _, s := range some {
		i, found := slices.BinarySearch(all, s)
		if !found {
			return false
		}
		all = all[i+1:]
	}
	return true
}

// OnSignal reports whether a repository is followed only while it has a record that a signal names.
func OnSignal(f *filter.Filter, row *store.Repo) bool {
	return !f.Full() && (row.Tracked == store.BySignal || row.Tracked == store.ByNetwork)
}

// InPlace reports whether a record is stored as a filter requires.
func InPlace(f *filter.Filter, row store.Row) bool {
	collection, _, valid := repo.SplitPath(row.Path)
	switch {
	case valid && f.Wants(collection):
		return !row.Shelved && !row.Hidden
	case !KeepsAll(f):
		return false
	case !valid:
		return row.Hidden
	}
	return row.Shelved
}
