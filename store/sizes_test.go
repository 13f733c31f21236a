package store_test

import (
	"context"
	"sync"
	"testing"

	"cistern/store"
	"cistern/store/storetest"
)

// TestSizes: each keyspace with rows has bytes, and all keyspaces together have those of the tables.
func TestSizes(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{SmallBytes: 1})
	importMany(t, s, 5)
	if err := store.Compact(s); err != nil { // flushes
		t.Fatal(err)
	}
	var sizes map[string]int64
	tables := tableBytes(t, s)
	for before := int64(-1); before != tables; before, tables = tables, tableBytes(t, s) { // no compaction meanwhile
		var err error
		if sizes, err = s.Sizes(); err != nil {
			t.Fatal(err)
		}
	}
	var sum int64
	for space, name := range store.SpaceNames {
		rows := 0
		store.ScanRaw(s, space, func(_, _ []byte) { rows++ })
		if rows > 0 && sizes[name] == 0 {
			t.Errorf("%s has %d rows and no bytes", name, rows)
		}
		sum += sizes[name]
	}
	if sum != tables || sizes["total"] < tables {
		t.Errorf("keyspaces have %d bytes, all %d, tables %d", sum, sizes["total"], tables)
	}
	storetest.Check(t, s)
}

func tableBytes(t *testing.T, s *store.Store) (n int64) {
	t.Helper()
	levels, err := store.Tables(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, level := range levels {
		for i := range level {
			n += int64(level[i].Size)
		}
	}
	return n
}

// TestSizesBesideCompactions asks for the sizes and the engine's figures while flushes and compactions
// change the tables. It is for the race detector: the engine's own estimate of a size races with the
// choice of a compaction.
func TestSizesBesideCompactions(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{SmallBytes: 1, MemTableBytes: 64 << 10})
	w, rng := newWorld(), seeded(t)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if sizes, err := s.Sizes(); err != nil || store.Metrics(s).DiskSpaceUsage() == 0 || len(sizes) == 0 {
					t.Errorf("sizes %v, %v", sizes, err)
				}
			}
		})
	}
	for n := range 30 {
		w.importRepo(t, s, storetest.DID(1+n), bulky(rng, 10))
		if err := s.FlushImports(); err != nil {
			t.Error(err)
		}
		besides(t, s, rng, w, n, n+1)
		if err := store.Compact(s); err != nil { // flushes
			t.Error(err)
		}
	}
	stop()
	readers.Wait()
	storetest.Check(t, s)
}
