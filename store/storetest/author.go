package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"cistern/ingest/repo"
	"cistern/store"
)

// Author changes some repositories of a store at random: imports, commits, accounts that are hidden
// and shown again, wiped and dropped. Two authors with the same seed make the same log in two
// stores with the same clock.
type Author struct {
	T     testing.TB
	Store *store.Store
	Rand  *rand.Rand
	Repos int
	// Record returns the records that it writes. Nil: Text.
	Record func() []byte
}

// record returns a record: text unless the author has others.
func (a *Author) record(text func() string) []byte {
	if a.Record != nil {
		return a.Record()
	}
	return Text(text())
}

// Step makes one change.
func (a *Author) Step() {
	n := 1 + a.Rand.IntN(a.Repos)
	r, err := a.Store.RepoOrNew(DID(n))
	if err != nil {
		a.T.Fatal(err)
	}
	switch k := a.Rand.IntN(24); {
	case r.Ordinal == 0:
		a.importRepo(n)
	case r.Status.Hidden():
		a.change(n, func(b *store.Batch, r *store.Repo) error {
			b.Show(r)
			b.Enqueue(r, store.PriorityOperator)
			b.Complete(r)
			return b.Relist(r)
		})
	case k == 0:
		a.change(n, func(b *store.Batch, r *store.Repo) error {
			b.Hide(r, store.StatusTakendown, store.OriginHost, store.Retry{})
			b.Account(r)
			return nil
		})
	case k == 1: // wiped, and copied anew later
		a.change(n, func(b *store.Batch, r *store.Repo) error {
			b.Untrack(r)
			err := b.Wipe(r)
			gone := *r
			gone.Status = store.StatusDeleted
			b.Account(&gone)
			return err
		})
	case k == 2: // dropped, and copied anew later
		ops := a.deletes(&r)
		a.change(n, func(b *store.Batch, r *store.Repo) error {
			if err := b.Apply(r, false, r.Rev, ops); err != nil {
				return err
			}
			return b.DropRepo(r)
		})
	case k == 3:
		a.change(n, func(b *store.Batch, r *store.Repo) error {
			r.Handle = fmt.Sprint("h", a.Rand.IntN(100), ".test")
			b.Identity(r)
			return nil
		})
	default:
		a.commit(n, &r)
	}
}

// importRepo imports a repository of up to 60 records.
func (a *Author) importRepo(n int) {
	var im store.Import
	a.change(n, func(b *store.Batch, r *store.Repo) error {
		if r.Tracked == store.Untracked {
			b.Track(r, store.ByOperator, store.PriorityOperator)
		}
		records := Random(a.Rand, a.Rand.IntN(60))
		if a.Record != nil {
			for _, p := range records.Paths() {
				records[p] = a.Record()
			}
		}
		im = records.Import(*r, Rev(n))
		return nil
	})
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			a.T.Errorf("import of %d: %v", n, err)
		}
	}
	if err := a.Store.Import(a.T.Context(), im); err != nil {
		a.T.Fatal(err)
	}
	if err := a.Store.FlushImports(); err != nil {
		a.T.Fatal(err)
	}
}

// commit applies a commit of some records, most of them new or changed.
func (a *Author) commit(n int, r *store.Repo) {
	deletes := a.deletes(r)
	var ops []store.Op
	for range 1 + a.Rand.IntN(3) {
		op := store.Op{Path: fmt.Appendf(nil, "app.test.c%d/%d", a.Rand.IntN(4), a.Rand.IntN(30))}
		if a.Rand.IntN(3) == 0 && len(deletes) > 0 {
			op = deletes[a.Rand.IntN(len(deletes))]
		} else {
			op.Record = a.record(func() string { return fmt.Sprint("text ", a.Rand.IntN(1000)) })
			op.CID = repo.HashCID(op.Record)
		}
		same := func(o store.Op) bool { return string(o.Path) == string(op.Path) }
		if !slices.ContainsFunc(ops, same) {
			ops = append(ops, op)
		}
	}
	slices.SortFunc(ops, func(a, b store.Op) int { return slices.Compare(a.Path, b.Path) })
	live := a.Rand.IntN(4) > 0
	a.change(n, func(b *store.Batch, r *store.Repo) error { return b.Apply(r, live, r.Rev, ops) })
}

// deletes returns the ops that delete every record that a repository shows, in order.
func (a *Author) deletes(r *store.Repo) (ops []store.Op) {
	collections, err := a.Store.Collections(r)
	if err != nil {
		a.T.Fatal(err)
	}
	for _, c := range collections {
		for _, rec := range List(a.T, a.Store, r, c, "", 1<<20, false) {
			ops = append(ops, store.Op{Path: []byte(c + "/" + rec.Rkey)})
		}
	}
	slices.SortFunc(ops, func(a, b store.Op) int { return slices.Compare(a.Path, b.Path) })
	return ops
}

// change changes a repository, and writes its row unless that was dropped.
func (a *Author) change(n int, fn func(b *store.Batch, r *store.Repo) error) {
	wait, err := a.Store.UpdateRepo(DID(n), func(b *store.Batch, r *store.Repo) error {
		if err := fn(b, r); err != nil || r.State == 0 {
			return err
		}
		b.PutRepo(r)
		return nil
	})
	if err != nil {
		a.T.Fatal(err)
	}
	if err := wait(); err != nil {
		a.T.Fatal(err)
	}
}
