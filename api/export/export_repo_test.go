package export_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"cistern/api/export"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
)

// TestExport exports repositories of all sizes, with outlines of all sizes, in pre-order.
func TestExport(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			rng := rand.New(rand.NewPCG(seed, 0))
			for i, n := range []int{0, 1, 2, 3, 10, 100, 500} {
				did := storetest.DID(i + 1)
				m := storetest.Random(rng, n)
				w.hold(t, did, m)
				for _, bytes := range []int{1, 500, 5_000, 1 << 20} {
					w.newExporter(t)
					w.e.SetOutlineBytes(bytes)
					car, err := w.export(t, did, export.Part{}, "")
					if err != nil {
						t.Fatal(err)
					}
					_, blocks := readCAR(t, car)
					if diff := cmp.Diff(m, checkOrder(t, blocks)); diff != "" {
						t.Fatalf("%d records, outlines of %d bytes: %s", n, bytes, diff)
					}
					checkReaders(t, car, m)
				}
			}
		})
	}
}

// checkReaders reads a CAR with indigo and with package repo.
func checkReaders(t *testing.T, car []byte, m storetest.Records) {
	t.Helper()
	commit, r, err := indigo.LoadRepoFromCAR(t.Context(), bytes.NewReader(car))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.MST.Verify(); err != nil {
		t.Fatal(err)
	}
	root, err := r.MST.RootCID()
	if err != nil || *root != commit.Data {
		t.Errorf("indigo says root %s, the commit %s (%v)", root, commit.Data, err)
	}
	n := 0
	err = r.MST.Walk(func(key []byte, val cid.Cid) error {
		n++
		b, err := r.RecordStore.Get(t.Context(), val)
		if err != nil {
			return err
		}
		if !bytes.Equal(b.RawData(), m[string(key)]) {
			t.Errorf("indigo reads %q as %x, want %x", key, b.RawData(), m[string(key)])
		}
		return nil
	})
	if err != nil || n != len(m) {
		t.Errorf("indigo walks %d records of %d: %v", n, len(m), err)
	}
	c, err := repo.ReadCAR(bytes.NewReader(car), repo.CAROptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n = 0
	err = c.Walk(m.Root(), func(repo.Leaf) error { n++; return nil })
	if err != nil || n != len(m) || c.Bytes() != int64(len(car)) {
		t.Errorf("package repo walks %d records of %d: %v", n, len(m), err)
	}
}

// TestOutlineIsBounded: what is kept of a large tree does not grow with it.
func TestOutlineIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := storetest.Random(rand.New(rand.NewPCG(7, 7)), 20_000)
	w.hold(t, alice, m)
	if diff := cmp.Diff(m, checkOrder(t, w.mustExport(t, alice, export.Part{}, ""))); diff != "" {
		t.Fatal(diff)
	}
	if n, bytes := w.e.Kept(); n != 1 || bytes > 1<<20 || bytes < 1<<18 {
		t.Errorf("%d outlines of %d bytes are kept", n, bytes)
	}
}

// TestDamagedLater: records that change without a commit after the tree was proven never get into a
// CAR, which breaks off.
func TestDamagedLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.e.SetOutlineBytes(2000) // so that most of the tree is rebuilt
	m := storetest.Random(rand.New(rand.NewPCG(5, 5)), 300)
	w.hold(t, alice, m)
	w.mustExport(t, alice, export.Part{}, "")
	w.change(t, alice, func(b *store.Batch, r *store.Repo) error {
		return b.Apply(r, true, r.Rev, []store.Op{{Path: []byte(m.Paths()[200])}})
	})
	car, err := w.export(t, alice, export.Part{}, "")
	if !errors.Is(err, export.ErrMismatch) || len(car) == 0 {
		t.Errorf("after %d bytes: %v", len(car), err)
	}
	row := w.view(t, alice)
	defer row.Close()
	want := []string{alice + " " + row.Repo().Rev}
	for range 2 {
		if diff := cmp.Diff(want, w.refetched); diff != "" {
			t.Error(diff)
		}
		car, err = w.export(t, alice, export.Part{}, "") // the tree is not known any more
		if !errors.Is(err, export.ErrMismatch) || len(car) > 0 {
			t.Errorf("after %d bytes: %v", len(car), err)
		}
	}
}
