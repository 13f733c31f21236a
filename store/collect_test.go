package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"cistern/store"
	"cistern/store/storetest"
)

// importMany imports n repositories of one record each in one group, so that their ordinals are
// neighbours.
func importMany(t testing.TB, s *store.Store, n int) (dids []string) {
	t.Helper()
	w := newWorld()
	for i := range n {
		did := storetest.DID(i + 1)
		dids = append(dids, did)
		w.importRepo(t, s, did, storetest.Records{"app.test.a/1": storetest.Text(fmt.Sprint(i))})
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	return dids
}

// bulkRows counts the rows of records, blocks, refs and listings.
func bulkRows(t testing.TB, s *store.Store) (n int) {
	t.Helper()
	for _, space := range []byte{store.SpaceRecord, store.SpaceBlock, store.SpaceRef, store.SpaceListing} {
		if err := store.ScanRaw(s, space, func(_, _ []byte) { n++ }); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestCollect: the cost of wiping and dropping a repository does not depend on how many went
// before. Their batches write no range tombstones, all of which Pebble sorts at the next read; the
// collector writes four for all neighbours.
func TestCollect(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	const n = 200
	for i, did := range importMany(t, s, n) {
		if i%2 == 0 {
			dropRepo(t, s, did, []store.Op{drop("app.test.a/1")}, true)
			continue
		}
		edit(t, s, did, func(b *store.Batch, r *store.Repo) error { r.State = store.StateGone; return b.Wipe(r) })
	}
	storetest.Check(t, s)
	if got, err := store.RangeTombstones(s); got != 0 || err != nil {
		t.Errorf("%d range tombstones for %d repositories, %v", got, n, err)
	}
	if bulkRows(t, s) == 0 {
		t.Fatal("nothing is left to the collector")
	}
	if err := store.Collect(s); err != nil {
		t.Fatal(err)
	}
	if got := bulkRows(t, s); got != 0 {
		t.Errorf("%d rows are left", got)
	}
	if got, err := store.RangeTombstones(s); got > 4 || err != nil {
		t.Errorf("%d range tombstones for %d neighbours, %v", got, n, err)
	}
	if err := store.ScanRaw(s, store.SpaceGarbage, func(key, _ []byte) { t.Errorf("%x still waits", key) }); err != nil {
		t.Fatal(err)
	}
}

// TestCollectAfterCrash: ordinals that were abandoned before a crash are collected after it, and
// other rows are left alone.
func TestCollectAfterCrash(t *testing.T) {
	t.Parallel()
	fs := storetest.NewCrashFS()
	s, err := store.Open(store.Options{FS: fs, Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	dids := importMany(t, s, 3)
	edit(t, s, dids[1], func(b *store.Batch, r *store.Repo) error { r.State = store.StateGone; return b.Wipe(r) })
	// A copy that was dropped at its flip leaves rows too.
	im := storetest.Records{"app.test.a/1": storetest.Text("x")}.Import(add(t, s, storetest.DID(9)), storetest.Rev(1))
	im.Done = func(store.Repo, error) {}
	if err := s.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	dropRepo(t, s, im.DID, nil, true)
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	clone := fs.Clone(seeded(t), 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := storetest.Open(t, store.Options{FS: clone, Dir: "db"})
	storetest.Check(t, again)
	if err := store.Collect(again); err != nil {
		t.Fatal(err)
	}
	if got, want := bulkRows(t, again), 2*3; got != want { // record, block, listing
		t.Errorf("%d rows, want %d", got, want)
	}
}

// TestCollectGarbage: it deletes all that nothing refers to, and what it leaves when its context ends
// it deletes the next time.
func TestCollectGarbage(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	dids := importMany(t, s, 2)
	edit(t, s, dids[0], func(b *store.Batch, r *store.Repo) error { r.State = store.StateGone; return b.Wipe(r) })
	ended, stop := context.WithCancel(t.Context())
	stop()
	if err := s.CollectGarbage(ended, store.NoProgress); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context ended: %v", err)
	}
	if got := bulkRows(t, s); got != 6 {
		t.Errorf("%d rows", got)
	}
	pages := int64(0)
	if err := s.CollectGarbage(t.Context(), func(done, _ int64) { pages = done }); err != nil || pages != 1 {
		t.Errorf("%d pages, %v", pages, err)
	}
	if got := bulkRows(t, s); got != 3 {
		t.Errorf("%d rows", got)
	}
}

// TestCollectGarbageStops: when its context ends it stops after a page, also if only ordinals of
// dropped repositories are left, whose deletion waits for nothing.
func TestCollectGarbageStops(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	dids := importMany(t, s, 1)
	r, err := s.Repo(dids[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * store.PruneDropped {
		o := r.Ordinal + 1 + store.Ordinal(i)
		err := errors.Join(store.SetRaw(s, store.DroppedAtKey(nil, 0, o), nil),
			store.SetRaw(s, store.OrdinalKey(nil, store.SpaceDropped, o), make([]byte, 8)))
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	pages := int64(0)
	err = s.CollectGarbage(ctx, func(done, _ int64) { pages = done; stop() })
	if !errors.Is(err, context.Canceled) || pages != 1 {
		t.Errorf("after its context ended: %d pages, %v", pages, err)
	}
	if err := s.CollectGarbage(t.Context(), store.NoProgress); err != nil {
		t.Error(err)
	}
	if err := store.ScanRaw(s, store.SpaceDropped, func(_, _ []byte) { t.Error("an ordinal is left") }); err != nil {
		t.Error(err)
	}
}
