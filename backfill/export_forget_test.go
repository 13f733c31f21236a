package backfill

import (
	"context"

	"cistern/store"
)

// BeginForget begins to forget a large repository by a filter, as a pass does; goOn deletes its records.
func BeginForget(r *Runner, did string, by store.FilterVersion) (begun bool, goOn func() (gone bool, err error), err error) {
	f := &forgetting{r: r, did: did, version: by.Version, due: func(*store.Repo) (bool, error) { return true, nil }}
	_, err = f.begin()
	return f.begun, func() (bool, error) {
		wait, err := f.parts(context.Background())
		if err != nil || wait == nil {
			return false, err
		}
		return true, wait()
	}, err
}

// MoveRefilter takes the cursor of the pass on, or drops it, as the pass does.
func MoveRefilter(r *Runner, at store.RefilterCursor, next string, drop bool) (ended bool, err error) {
	return (&refiltering{r: r}).move(at, next, drop)
}
