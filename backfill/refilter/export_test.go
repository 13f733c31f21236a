package refilter

import (
	"context"

	"cistern/store"
)

// Includes reports whether a set has all of another, both in ascending order.
func Includes(all, some []string) bool { return includes(all, some) }

// Begin takes the first step of forgetting a repository; goOn takes the others.
func (f *Forget) Begin() (begun bool, goOn func() (gone bool, err error), err error) {
	_, err = f.begin()
	return f.begun, func() (bool, error) {
		wait, err := f.parts(context.Background())
		if err != nil || wait == nil {
			return false, err
		}
		return true, wait()
	}, err
}

// Move takes the cursor of a pass on, or drops it, as the pass does.
func (r *Runner) Move(at store.RefilterCursor, next string, drop bool) (ended bool, err error) {
	return (&pass{r: r}).move(at, next, drop)
}

// SweepPart does one part of a sweep of a repository by the filter that its row names, as the pass
// does.
func (r *Runner) SweepPart(row *store.Repo, paths ...string) (goes bool, err error) {
	f, err := r.store.FilterAt(row.Filter)
	if err != nil {
		return false, err
	}
	by := store.FilterVersion{Filter: f, Version: row.Filter, Selection: row.Filter}
	p := &pass{r: r, filter: by, backlog: newBacklog()}
	var ops []store.Op
	for _, path := range paths {
		ops = append(ops, store.Op{Path: []byte(path), Keep: true})
	}
	goes, err = p.put(row, ops, false)
	return goes, p.settle(err)
}

// SweepHeld sweeps a repository by the filter in force, as the pass does, and returns the bytes of the
// batches that wait for the disk then, and what one batch may add to them.
func (r *Runner) SweepHeld(row *store.Repo) (held, most int64, err error) {
	p := &pass{r: r, filter: r.store.Filter(), backlog: newBacklog()}
	err = p.sweep(context.Background(), row)
	held = p.waits.bytes
	return held, waitsBytesMax + opsMax*1024, p.settle(err)
}
