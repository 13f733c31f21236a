package backfill_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"cistern/ingest/simnet"
	"cistern/store"
)

// TestDifferenceIsTorn: between the batches of a difference the row says that its records belong to
// no single rev, and up to which rev they may be (invariant 5).
func TestDifferenceIsTorn(t *testing.T) {
	t.Parallel()
	var w *world
	var did string
	var watching, torn atomic.Bool
	o := worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 3}}
	o.store.Step = func(step string) {
		if step != "synced" || !watching.Load() {
			return
		}
		r, err := w.Store.Repo(did)
		if err == nil && r.State == store.StatePending && r.Torn && r.TornRev > r.Rev {
			torn.Store(true)
		}
	}
	w = newWorld(t, o)
	did = w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	a := w.Net.Account(did)
	for i := range 600 { // more than one batch holds
		if _, err := a.Put(fmt.Sprint("app.test.x/", i), map[string]any{"n": i}); err != nil {
			t.Fatal(err)
		}
	}
	watching.Store(true)
	w.Add(did)
	w.Settle(did)
	w.Equal(did)
	if !torn.Load() {
		t.Error("the row was not torn between two batches of the difference")
	}
}

// TestLastRecordDeleted: a record behind all records of the copy is deleted, though nothing else
// differs.
func TestLastRecordDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	a := w.Net.Account(did)
	if _, err := a.Delete(slices.Max(a.Paths())); err != nil {
		t.Fatal(err)
	}
	w.Add(did)
	w.Settle(did)
	w.Equal(did)
}
