package refilter

import (
	"context"
	"errors"
	"slices"

	"cistern/store"
)

// Forget removes a repository: first its records, with events, then its row. If that takes more
// than one batch, the repository is pending and torn meanwhile: live commits are not applied, and
// if it must be followed after all, its next task fetches it.
type Forget struct {
	Store *store.Store
	DID   string
	// Version is the version of the filter that removes the repository. Under another filter
	// nothing is done.
	Version uint32
	// Due reports whether the repository must still be removed. It is called with the row locked:
	// before anything is deleted, and also before each step if the repository is Held. Its error
	// ends the work.
	Due func(row *store.Repo) (bool, error)
	// Held means that a task works on the repository, which stays pending for it.
	Held bool
	// Gone, if not nil, is called with the row locked when the row is deleted.
	Gone func()

	begun   bool
	attempt uint64
	ordinal store.Ordinal
	seen    string // the row's SeenRev
	waits   waits  // for the parts of a large repository
}

// Run deletes the row. wait returns when the deletion is durable; it is nil if the row is kept
// after all. A caller that forgets many rows waits for the disk once.
func (f *Forget) Run(ctx context.Context) (wait func() error, err error) {
	wait, err = f.begin()
	if err == nil && wait == nil && f.begun {
		wait, err = f.parts(ctx)
	}
	if err != nil {
		return nil, err
	}
	return wait, nil
}

// begin removes a small repository at once, and marks the row of a large one as torn.
func (f *Forget) begin() (wait func() error, err error) {
	dropped := false
	wait, err = f.update(func(b *store.Batch, row *store.Repo) error {
		if row.Records+row.Shelved <= opsMax {
			dropped = true
			ops, err := f.deletions(row)
			if err != nil {
				return err
			}
			return f.drop(b, row, ops)
		}
		switch {
		case f.Held:
		case row.Tracked != store.Untracked:
			b.Enqueue(row, store.PriorityRetry)
		default:
			row.Attempt++
		}
		row.Torn, row.Sweep = true, true
		b.PutRepo(row)
		f.begun, f.attempt, f.ordinal, f.seen = true, row.Attempt, row.Ordinal, row.SeenRev
		return nil
	})
	if err == nil && f.begun {
		f.waits.add(wait, 0)
	}
	if err != nil || !dropped {
		return nil, err
	}
	return wait, nil
}

// update calls change if the repository must still be removed.
func (f *Forget) update(
	change func(b *store.Batch, row *store.Repo) error,
) (wait func() error, err error) {
	return f.Store.UpdateRepo(f.DID, func(b *store.Batch, row *store.Repo) error {
		goes, err := f.goes(row)
		if err != nil || !goes {
			return err
		}
		return change(b, row)
	})
}

// goes reports whether the repository must still be forgotten.
func (f *Forget) goes(row *store.Repo) (bool, error) {
	now := f.Store.Filter()
	switch {
	case now.Version != f.Version, !row.Known():
		return false, nil
	case f.begun && !f.Held:
		// A commit that arrived meanwhile was not applied and may show a signal: then a fetch
		// decides.
		return row.Attempt == f.attempt && row.Torn && !f.Store.Fetching(f.DID) &&
			(row.SeenRev == f.seen || now.Excluded(f.DID)), nil
	}
	return f.Due(row)
}

// deletions returns the operations that delete all records of a small repository.
func (f *Forget) deletions(row *store.Repo) (ops []store.Op, err error) {
	if row.Ordinal == 0 {
		return nil, nil
	}
	rows, err := f.Store.Rows(row.Ordinal)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		ops = append(ops, deletion(rows.Row()))
	}
	return ops, rows.Close()
}

func deletion(row store.Row) store.Op { return store.Op{Path: slices.Clone(row.Path)} }

// parts deletes the records of a large repository. No other writer adds any meanwhile.
func (f *Forget) parts(ctx context.Context) (wait func() error, err error) {
	rows, err := f.Store.Rows(f.ordinal)
	if err != nil {
		return nil, err
	}
	var ops []store.Op
	for more, goes := rows.Next(), true; more && goes && err == nil; {
		if len(ops) == opsMax {
			goes, err = f.part(ops)
			ops = ops[:0]
			err = errors.Join(err, f.waits.bound(), ctx.Err())
		}
		ops = append(ops, deletion(rows.Row()))
		more = rows.Next()
	}
	if err = errors.Join(err, f.waits.settle(), rows.Close()); err != nil {
		return nil, err
	}
	goes := false
	wait, err = f.update(func(b *store.Batch, row *store.Repo) error {
		goes = true
		return f.drop(b, row, ops)
	})
	if err != nil || !goes {
		return nil, err
	}
	return wait, nil
}

func (f *Forget) part(ops []store.Op) (goes bool, err error) {
	var n int64
	wait, err := f.update(func(b *store.Batch, row *store.Repo) error {
		goes = true
		if err := b.Apply(row, false, f.rev(row), ops); err != nil {
			return err
		}
		b.PutRepo(row)
		n = b.Bytes()
		return nil
	})
	if err == nil {
		f.waits.add(wait, n)
	}
	return goes, err
}

// drop deletes the remaining records and the row. A hidden account is shown first: readers know it
// as inactive, and no event would correct that if it is found again later.
func (f *Forget) drop(b *store.Batch, row *store.Repo, ops []store.Op) error {
	row.Sweep = true // records that an older filter chose are deleted too
	if len(ops) > 0 {
		if err := b.Apply(row, false, f.rev(row), ops); err != nil {
			return err
		}
	}
	b.Show(row)
	b.DropBuffer(row)
	if err := b.DropRepo(row); err != nil {
		return err
	}
	if f.Gone != nil {
		f.Gone()
	}
	return nil
}

// rev returns the rev of the deletions: the highest that an event of the repository named.
func (f *Forget) rev(row *store.Repo) string {
	return max(row.Rev, row.TornRev)
}
