package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// seeded returns a generator whose seed is printed and can be set by CISTERN_TEST_SEED.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if v := os.Getenv("CISTERN_TEST_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CISTERN_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// world is the expected contents of the store, and of its log.
type world struct {
	records map[string]storetest.Records // by DID; absent = not imported
	revs    map[string]string
	revNo   int
}

func newWorld() *world {
	return &world{records: map[string]storetest.Records{}, revs: map[string]string{}}
}

func (w *world) rev() string { w.revNo++; return storetest.Rev(w.revNo) }

func add(t testing.TB, s *store.Store, did string) store.Repo {
	t.Helper()
	unlock := s.Lock(did)
	defer unlock()
	r, err := s.RepoOrNew(did)
	if err != nil {
		t.Fatal(err)
	}
	r.State, r.Tracked, r.Pending.Priority = store.StatePending, store.ByOperator, store.PriorityOperator
	b := s.NewBatch()
	b.ForgeRepo(&r)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *world) importRepo(t testing.TB, s *store.Store, did string, m storetest.Records) {
	t.Helper()
	rev := w.rev()
	im := m.Import(add(t, s, did), rev)
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			t.Errorf("import of %s: %v", did, err)
		}
	}
	if err := s.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	w.records[did], w.revs[did] = m, rev
}

// change applies random creates, updates and deletes to a repository.
func (w *world) change(t testing.TB, s *store.Store, rng *rand.Rand, did string, live bool) {
	t.Helper()
	unlock := s.Lock(did)
	defer unlock()
	r, err := s.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	m, rev := w.records[did], w.rev()
	var ops []store.Op
	seen := map[string]bool{}
	paths := m.Paths()
	for range 1 + rng.IntN(6) {
		p := fmt.Sprintf("app.test.c%d/%s", rng.IntN(5), storetest.Rev(rng.IntN(1<<30)))
		if len(paths) > 0 && rng.IntN(3) > 0 {
			p = paths[rng.IntN(len(paths))]
		}
		if seen[p] {
			continue
		}
		seen[p] = true
		if rng.IntN(3) == 0 {
			ops = append(ops, store.Op{Path: []byte(p)})
			delete(m, p)
			continue
		}
		m[p] = storetest.Text(fmt.Sprint("new ", rng.IntN(1000)))
		ops = append(ops, store.Op{Path: []byte(p), CID: repo.HashCID(m[p]), Record: m[p]})
	}
	b := s.NewBatch()
	if err := b.Apply(&r, live, rev, ops); err != nil {
		t.Fatal(err)
	}
	data := repo.HashCID([]byte(rev))
	r.Rev, r.Data, r.Commit = rev, data, storetest.Commit(did, rev, data)
	b.ForgeRepo(&r)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	w.revs[did] = rev
}

func (w *world) wipe(t testing.TB, s *store.Store, did string) {
	t.Helper()
	unlock := s.Lock(did)
	defer unlock()
	r, err := s.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	if err := b.Wipe(&r); err != nil {
		t.Fatal(err)
	}
	r.State, r.Status = store.StateIdle, store.StatusDeleted
	b.Account(&r)
	b.ForgeRepo(&r)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	delete(w.records, did)
}

// held returns every record that the store answers with.
func held(t testing.TB, s *store.Store) map[string]storetest.Records {
	t.Helper()
	out := map[string]storetest.Records{}
	rows, err := s.ReposByOrdinal(0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		m := storetest.Records{}
		collections, err := s.Collections(&r)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range collections {
			for _, rec := range storetest.List(t, s, &r, c, "", 1<<20, true) {
				m[rec.Collection+"/"+rec.Rkey] = rec.Record
				one, err := s.Record(&r, rec.Collection, rec.Rkey)
				if err != nil || !bytes.Equal(one.Record, rec.Record) {
					t.Fatalf("record %s/%s: %v", rec.Collection, rec.Rkey, err)
				}
			}
		}
		out[r.DID] = m
	}
	return out
}

func visible(m map[string]storetest.Records) map[string]storetest.Records {
	out := map[string]storetest.Records{}
	for did, records := range m {
		out[did] = maps.Clone(records)
		maps.DeleteFunc(out[did], func(p string, _ []byte) bool { return !repo.ValidPath([]byte(p)) })
	}
	return out
}

// fold reads the whole log and applies it to an empty world. It fails on an event that
// does not fit what came before.
func fold(t testing.TB, s *store.Store, page int) map[string]storetest.Records {
	t.Helper()
	out := map[string]storetest.Records{}
	last := uint64(0)
	for cursor := s.Tail(); cursor <= s.Head(); {
		next, err := s.ReadLog(context.Background(), cursor, page, func(e *store.Event) error {
			if e.ID <= last {
				t.Errorf("event %d after %d", e.ID, last)
			}
			last = e.ID
			m := out[e.DID]
			if m == nil {
				m = storetest.Records{}
				out[e.DID] = m
			}
			p := string(e.Collection) + "/" + string(e.Rkey)
			_, has := m[p]
			switch {
			case e.Kind == store.KindAccount && e.Status.Hidden():
				delete(out, e.DID)
			case e.Kind != store.KindRecord:
			case e.Action == store.Delete:
				delete(m, p)
			default:
				m[p] = bytes.Clone(e.Record)
			}
			if e.Kind == store.KindRecord && has == (e.Action == store.Create) {
				t.Errorf("event %d: %s of %s, which was held: %v", e.ID, e.Action, p, has)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if next == cursor {
			t.Fatalf("the log does not go on at %d", cursor)
		}
		cursor = next
	}
	return out
}

func (w *world) equal(t testing.TB, s *store.Store) {
	t.Helper()
	want := visible(w.records)
	if d := cmp.Diff(want, held(t, s)); d != "" {
		t.Errorf("store (-want +got):\n%s", d)
	}
	got := fold(t, s, 7)
	maps.DeleteFunc(got, func(did string, m storetest.Records) bool { return len(m) == 0 && len(want[did]) == 0 })
	maps.DeleteFunc(want, func(_ string, m storetest.Records) bool { return len(m) == 0 })
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("log folded (-want +got):\n%s", d)
	}
}

// TestModel drives random histories through imports by both ways, changes, wipes, reactivations,
// reopening and pruning, and compares the store and its log with a plain map.
func TestModel(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for _, small := range []int64{1 << 20, 1} { // batches, tables
		t.Run(fmt.Sprint("small=", small), func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			o := store.Options{FS: vfs.NewMem(), Dir: "db", SmallBytes: small, GroupBytes: 20 << 10, TableBytes: 8 << 10}
			s, err := store.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld()
			next := 0
			for step := range 120 {
				switch n := rng.IntN(10); {
				case n < 4:
					for range 1 + rng.IntN(3) {
						next++
						w.importRepo(t, s, storetest.DID(next), storetest.Random(rng, rng.IntN(60)))
					}
				case n < 8 && next > 0:
					if err := s.FlushImports(); err != nil {
						t.Fatal(err)
					}
					if did := storetest.DID(1 + rng.IntN(next)); w.records[did] != nil {
						w.change(t, s, rng, did, n == 7)
					}
				case n == 8 && next > 0:
					if err := s.FlushImports(); err != nil {
						t.Fatal(err)
					}
					if did := storetest.DID(1 + rng.IntN(next)); w.records[did] != nil {
						w.wipe(t, s, did)
					}
				case n == 9 && next > 0:
					if err := s.FlushImports(); err != nil {
						t.Fatal(err)
					}
					if did := storetest.DID(1 + rng.IntN(next)); w.records[did] != nil {
						setStatus(t, s, did, store.StatusDeactivated)
						setStatus(t, s, did, store.StatusActive)
					}
				}
				if step%20 != 19 {
					continue
				}
				if err := s.FlushImports(); err != nil {
					t.Fatal(err)
				}
				storetest.Check(t, s)
				w.equal(t, s)
				head, epoch, counts := s.Head(), s.Epoch(), s.Counts()
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if s, err = store.Open(o); err != nil {
					t.Fatal(err)
				}
				if s.Head() != head || s.Epoch() != epoch || cmp.Diff(counts, s.Counts()) != "" {
					t.Errorf("reopened: head %d, was %d; epoch %s, was %s; counts %v, were %v", s.Head(), head, s.Epoch(), epoch, s.Counts(), counts)
				}
			}
			before := held(t, s)
			prune(t, s, time.Now().Add(time.Hour))
			storetest.Check(t, s)
			if n := s.Counts()["events"]; n != 0 || s.Tail() != s.Head()+1 {
				t.Errorf("pruned: %d events, tail %d, head %d", n, s.Tail(), s.Head())
			}
			if d := cmp.Diff(before, held(t, s)); d != "" {
				t.Errorf("pruning changed records:\n%s", d)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCursorLimits(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	w := newWorld()
	w.importRepo(t, s, storetest.DID(1), storetest.Records{"app.test.a/1": storetest.Text("x"), "app.test.a/2": storetest.Text("y")})
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	none := func(*store.Event) error { return nil }
	for _, row := range []struct {
		cursor, next uint64
		err          error
	}{
		{0, 4, nil},                   // from the oldest
		{2, 4, nil},                   // in the middle of an import
		{4, 4, nil},                   // the next to come
		{5, 5, store.ErrFutureCursor}, // no reader was given that one
		{1 << 60, 1 << 60, store.ErrFutureCursor}, // far off
	} {
		if next, err := s.ReadLog(t.Context(), row.cursor, 100, none); next != row.next || !errors.Is(err, row.err) {
			t.Errorf("cursor %d: %d, %v", row.cursor, next, err)
		}
	}
	prune(t, s, time.Now().Add(time.Hour))
	if _, err := s.ReadLog(t.Context(), 2, 100, none); !errors.Is(err, store.ErrOutdatedCursor) {
		t.Errorf("below the tail: %v", err)
	}
}

// TestStaleImport: a copy fetched for an attempt that no longer counts leaves nothing.
func TestStaleImport(t *testing.T) {
	t.Parallel()
	for _, small := range []int64{1 << 20, 1} {
		s := storetest.Open(t, store.Options{SmallBytes: small})
		m := storetest.Random(rand.New(rand.NewPCG(1, 2)), 50)
		r := add(t, s, storetest.DID(1))
		im := m.Import(r, storetest.Rev(1))
		var got error
		im.Done = func(_ store.Repo, err error) { got = err }
		if err := s.Import(t.Context(), im); err != nil {
			t.Fatal(err)
		}
		r.Attempt++
		b := s.NewBatch()
		b.ForgeRepo(&r)
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
		if err := s.FlushImports(); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(got, store.ErrStale) || s.Counts()["records"] != 0 || s.Head() != 0 {
			t.Errorf("done with %v, counts %v", got, s.Counts())
		}
	}
}

// TestFormatRefused: a store of an older or a newer format is not opened, and the error says what
// to do.
func TestFormatRefused(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2, store.FormatVersion - 1, store.FormatVersion + 1, 999} {
		fs := vfs.NewMem()
		s, err := store.Open(store.Options{FS: fs, Dir: "db"})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.SetFormat(s, strconv.Itoa(version)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for _, readOnly := range []bool{true, false} {
			_, err := store.Open(store.Options{FS: fs, Dir: "db", ReadOnly: readOnly})
			if !errors.Is(err, store.ErrFormat) || !strings.Contains(err.Error(), "delete the directory") {
				t.Errorf("format %d, read only %v: %v", version, readOnly, err)
			}
		}
	}
}
