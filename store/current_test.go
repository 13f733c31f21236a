package store_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// wantCurrent reads records by name in random order, also those that are not shown, and compares
// them with what the store answers.
func wantCurrent(t *testing.T, s *store.Store, rng *rand.Rand, shelves []*shelf) {
	t.Helper()
	names := []store.RecordName{{DID: storetest.DID(99), Path: "app.test.c0/1"}, {DID: storetest.DID(1), Path: "none"}}
	for _, h := range shelves {
		for _, path := range slices.Sorted(maps.Keys(h.all)) {
			names = append(names, store.RecordName{DID: h.did, Path: path}, store.RecordName{DID: h.did, Path: path + "x"})
		}
	}
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	if rng.IntN(2) == 0 {
		slices.SortFunc(names, func(a, b store.RecordName) int { return bytes.Compare([]byte(a.DID+a.Path), []byte(b.DID+b.Path)) })
	}
	got, last := map[string]storetest.Records{}, -1
	most := 1 + rng.IntN(2*len(names))
	err := s.ReadCurrent(t.Context(), names, func(i int, e *store.Event) bool {
		path := string(e.Collection) + "/" + string(e.Rkey)
		if (store.RecordName{DID: e.DID, Path: path}) != names[i] || i <= last || e.Kind != store.KindRecord ||
			e.Action != store.Create || e.Rev == "" || e.CID != repo.HashCID(e.Record) {
			t.Errorf("name %d after %d is %+v: %+v", i, last, names[i], e)
		}
		if last = i; got[e.DID] == nil {
			got[e.DID] = storetest.Records{}
		}
		got[e.DID][path] = bytes.Clone(e.Record)
		most--
		return most > 0
	})
	if err != nil {
		t.Fatal(err)
	}
	want := held(t, s)
	if most <= 0 { // it was stopped
		for _, name := range names[last+1:] {
			delete(want[name.DID], name.Path)
		}
	}
	if d := cmp.Diff(notEmpty(want), notEmpty(got)); d != "" {
		t.Errorf("records by name (-want +got):\n%s", d)
	}
}

// TestCurrentDurable: records are read when what was seen is durable: a crash would otherwise bring
// back one that is gone, and that no later event tells of. Those of a hidden account are gone.
func TestCurrentDurable(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did := storetest.DID(1)
	imported(t, s, did, small())
	var names []store.RecordName
	for path := range small() {
		names = append(names, store.RecordName{DID: did, Path: path})
	}
	read := func(ctx context.Context) (n int, err error) {
		err = s.ReadCurrent(ctx, names, func(int, *store.Event) bool { n++; return true })
		return n, err
	}
	if n, err := read(t.Context()); n == 0 || err != nil {
		t.Fatalf("%d records, %v", n, err)
	}
	defer s.Lock(did)()
	r, err := s.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	b.Hide(&r, store.StatusDeactivated, store.OriginHost, store.Retry{})
	b.PutRepo(&r)
	wait, err := b.Commit()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := read(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before the state is durable: %v", err)
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if n, err := read(t.Context()); n != 0 || err != nil {
		t.Errorf("%d records of a hidden account, %v", n, err)
	}
}
