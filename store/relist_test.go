package store_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// setStatus writes a new status with its account event, and the listing of a reactivation.
func setStatus(t testing.TB, s *store.Store, did string, status store.Status) {
	t.Helper()
	edit(t, s, did, func(b *store.Batch, r *store.Repo) error {
		r.Status = status
		b.Account(r)
		if status.Hidden() || r.Ordinal == 0 {
			return nil
		}
		return b.Relist(r)
	})
}

// events returns the events from cursor on, as text, without repo events.
func events(t testing.TB, s *store.Store, cursor uint64, page int) (out []string) {
	t.Helper()
	for cursor <= s.Head() {
		next, err := s.ReadLog(t.Context(), cursor, page, func(e *store.Event) error {
			text := fmt.Sprint(e.ID, " ", e.DID[len(e.DID)-1:], " ")
			switch e.Kind {
			case store.KindRepo:
				return nil
			case store.KindAccount:
				text += e.Status.String()
			default:
				text += fmt.Sprint(e.Action, " ", string(e.Collection), "/", string(e.Rkey), " ", e.Live, " ", e.Rev[10:])
			}
			out = append(out, text)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		cursor = next
	}
	return out
}

func small() storetest.Records {
	return storetest.Records{"app.test.a/1": storetest.Text("x"), "app.test.b/1": storetest.Text("x"), "app.test.b/2": storetest.Text("y"),
		"no path": storetest.Text("z")}
}

// TestRelist: a reactivation lists the records held then, once and in order, without hidden and
// shelved ones; they stay readable after they were changed, and are pruned with the entry.
func TestRelist(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := storetest.Open(t, store.Options{Now: c.now})
	did := storetest.DID(1)
	imported(t, s, did, small()) // 1-4, the last one that it is synced
	one(t, s, did, "app.test.c/1", "new")
	one(t, s, did, "app.test.b/1", "")
	setStatus(t, s, did, store.StatusDeactivated) // 7, 8
	if got := events(t, s, 1, 100); cmp.Diff([]string{"7 b deactivated"}, got) != "" {
		t.Errorf("hidden: %q", got)
	}
	c.tick(time.Hour)
	setStatus(t, s, did, store.StatusActive) // 9, 10-12, 13
	storetest.Check(t, s)
	one(t, s, did, "app.test.a/1", "changed") // 14
	want := []string{"9 b active", "10 b create app.test.a/1 false 223", "11 b create app.test.b/2 false 223",
		"12 b create app.test.c/1 false 223", "14 b update app.test.a/1 true 223"}
	for page := 1; page < 6; page++ {
		if d := cmp.Diff(want, events(t, s, 9, page)); d != "" {
			t.Errorf("pages of %d:\n%s", page, d)
		}
	}
	if got := events(t, s, 1, 100); len(got) != 11 || !strings.HasPrefix(got[0], "1 b create app.test.a/1 false") {
		t.Errorf("from the start: %q", got)
	}
	listed := listedBody(t, s, 10)
	if !bytes.Equal(listed, storetest.Text("x")) {
		t.Errorf("event 10 shows %q", listed)
	}
	prune(t, s, c.ago(time.Minute)) // the import goes, and none of the relist
	storetest.Check(t, s)
	if d := cmp.Diff(want, events(t, s, 9, 2)); d != "" || s.Tail() != 9 {
		t.Errorf("pruned to %d:\n%s", s.Tail(), d)
	}
	prune(t, s, c.ago(-time.Minute))
	storetest.Check(t, s)
	if n := listings(t, s); n != 0 {
		t.Errorf("%d listing rows are left", n)
	}
	setStatus(t, s, did, store.StatusTakendown) // 15, 16
	setStatus(t, s, did, store.StatusActive)
	if got := events(t, s, 17, 100); len(got) != 4 {
		t.Errorf("listed again: %q", got)
	}
}

// TestRelistOfPruned: if the import's listing was pruned, the rows of an interrupted relist are not
// mistaken for it.
func TestRelistOfPruned(t *testing.T) {
	storetest.WithoutRace(t)
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did := storetest.DID(1)
	n := large(t, s, did)
	prune(t, s, time.Now().Add(time.Hour))
	r := row(t, s, did)
	b := s.NewBatch()
	if err := b.Relist(&r); err != nil {
		t.Fatal(err)
	}
	b.Discard()
	if listings(t, s) == 0 || int(row(t, s, did).Listed) != n {
		t.Fatalf("%d listing rows are left, the next listing begins at %d", listings(t, s), row(t, s, did).Listed)
	}
	before := s.Head()
	setStatus(t, s, did, store.StatusActive)
	if got := events(t, s, before+1, 1000); len(got) != n+1 {
		t.Errorf("%d events of %d", len(got), n+1)
	}
	if r := row(t, s, did); int(r.Listed) != 2*n {
		t.Errorf("listed %d of %d", r.Listed, 2*n)
	}
}

// TestRelistUsedUp: an account that comes and goes often enough uses up the op numbers. Then it is
// wiped, and must be fetched as if for the first time; the last relist before that is whole.
func TestRelistUsedUp(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did := storetest.DID(1)
	imported(t, s, did, small()) // 1-4
	edit(t, s, did, func(_ *store.Batch, r *store.Repo) error {
		r.Listed = math.MaxUint32 - uint32(r.Records)
		return nil
	})
	setStatus(t, s, did, store.StatusDeactivated)
	setStatus(t, s, did, store.StatusActive) // 7, 8-10, 11
	storetest.Check(t, s)
	if got := events(t, s, 8, 2); len(got) != 3 {
		t.Errorf("the last relist: %q", got)
	}
	attempt := edit(t, s, did, func(*store.Batch, *store.Repo) error { return nil }).Attempt
	setStatus(t, s, did, store.StatusDeactivated)
	setStatus(t, s, did, store.StatusActive) // 14, 15
	r, err := s.Repo(did)
	if err != nil || r.Ordinal != 0 || r.Records != 0 || r.Listed != 0 || r.Attempt == attempt || s.Head() != 15 {
		t.Errorf("%+v, %v, head %d", r, err, s.Head())
	}
	if n := listings(t, s); n != 0 {
		t.Errorf("%d listing rows are left", n)
	}
}

func listedBody(t testing.TB, s *store.Store, id uint64) (body []byte) {
	t.Helper()
	_, err := s.ReadLog(t.Context(), id, 1, func(e *store.Event) error { body = bytes.Clone(e.Record); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func listings(t testing.TB, s *store.Store) (n int) {
	t.Helper()
	if err := store.Collect(s); err != nil {
		t.Fatal(err)
	}
	if err := store.ScanRaw(s, store.SpaceListing, func(_, _ []byte) { n++ }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestVisibility: the effect of each status on earlier and later record events.
func TestVisibility(t *testing.T) {
	t.Parallel()
	for _, status := range []store.Status{store.StatusTakendown, store.StatusSuspended, store.StatusDeactivated, store.StatusDeleted,
		store.StatusNotFound, store.StatusInactive} {
		s := storetest.Open(t, store.Options{})
		did := storetest.DID(1)
		imported(t, s, did, small())                        // 1-4
		imported(t, s, storetest.DID(2), small())           // 5-8
		one(t, s, did, "app.test.a/1", "changed")           // 9
		setStatus(t, s, did, status)                        // 10, 11
		one(t, s, storetest.DID(2), "app.test.a/1", "meta") // 12
		if status == store.StatusDeleted {
			edit(t, s, did, func(b *store.Batch, r *store.Repo) error { r.State = store.StateGone; return b.Wipe(r) })
			if c := s.Counts(); c["records"] != 4 || c["blocks"] != 4 {
				t.Errorf("after the deletion %d records and %d blocks are left", c["records"], c["blocks"])
			}
		}
		var got []string
		for _, e := range events(t, s, 1, 100) {
			if strings.Contains(e, " b ") {
				got = append(got, e)
			}
		}
		if cmp.Diff([]string{"10 b " + status.String()}, got) != "" {
			t.Errorf("%s: %q", status, got)
		}
		setStatus(t, s, did, store.StatusActive) // 13
		want := 13                               // all earlier events, and three listed
		if status == store.StatusDeleted {
			want = 6 // without the seven of its records
		}
		if got := events(t, s, 1, 100); len(got) != want {
			t.Errorf("%s and back: %d events are shown: %q", status, len(got), got)
		}
		storetest.Check(t, s)
	}
}

// TestRelistEmpty: an account without records lists nothing, and one that was never imported
// cannot.
func TestRelistEmpty(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did := storetest.DID(1)
	imported(t, s, did, storetest.Records{"no path": storetest.Text("z")})
	setStatus(t, s, did, store.StatusTakendown)
	setStatus(t, s, did, store.StatusActive)
	if got := events(t, s, 1, 100); len(got) != 2 {
		t.Errorf("%q", got)
	}
	r := add(t, s, storetest.DID(2))
	b := s.NewBatch()
	if b.Relist(&r) == nil {
		t.Error("listed what was never imported")
	}
	b.Discard()
	b = s.NewBatch()
	r = row(t, s, did)
	body := storetest.Text("q")
	if err := b.Apply(&r, true, storetest.Rev(9), []store.Op{{Path: []byte("app.test.a/1"), CID: repo.HashCID(body), Record: body}}); err != nil {
		t.Fatal(err)
	}
	if b.Relist(&r) == nil {
		t.Error("listed after Apply")
	}
	b.Discard()
}

// large is a repository whose listing takes several batches: long paths of which no two share much.
func large(t testing.TB, s *store.Store, did string) (records int) {
	t.Helper()
	m := storetest.Records{"no path": storetest.Text("hidden"), "app.test.a/0": storetest.Text("a")}
	for i := range store.RelistBatchBytes * 5 / 2 / 400 {
		path := "app.test.b/"
		for k := range 6 {
			path += fmt.Sprintf("%x", repo.HashCID(fmt.Appendf(nil, "%d %d", i, k)))[:64]
		}
		m[path] = storetest.Text("same")
	}
	imported(t, s, did, m)
	return len(m) - 1
}

// TestRelistInterrupted: crashes between the batches of a listing, and a batch that is discarded,
// leave rows that no entry names; the next listing is right, whatever has changed.
func TestRelistInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	storetest.WithoutRace(t)
	t.Parallel()
	fs := vfs.NewCrashableMem()
	var clones []*vfs.MemFS
	batches := 0
	o := store.Options{FS: fs, Dir: "db", Step: func(name string) {
		if name == "relist batch" {
			batches++
			clones = append(clones, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))}))
		}
	}}
	s := storetest.Open(t, o)
	did := storetest.DID(1)
	n := large(t, s, did)
	storetest.Check(t, s)
	r := row(t, s, did)
	b := s.NewBatch()
	if err := b.Relist(&r); err != nil {
		t.Fatal(err)
	}
	b.Discard()
	if batches < 2 {
		t.Fatalf("%d batches", batches)
	}
	for i, s := range append(reopened(t, clones), s) {
		storetest.Check(t, s)
		one(t, s, did, "app.test.a/0", "") // every op moves by one
		before := s.Head()
		setStatus(t, s, did, store.StatusActive)
		storetest.Check(t, s)
		if got := events(t, s, before+1, 1000); len(got) != n {
			t.Errorf("clone %d: %d events of %d", i, len(got), n)
		}
		if r := row(t, s, did); int(r.Listed) != 2*n-1 || r.Hidden != 1 || r.Collections != 1 {
			t.Errorf("clone %d: listed %d of %d, %d hidden, %d collections", i, r.Listed, 2*n-1, r.Hidden, r.Collections)
		}
		prune(t, s, time.Now().Add(time.Hour))
		storetest.Check(t, s)
		if n := listings(t, s); n != 0 {
			t.Errorf("clone %d: %d listing rows are left", i, n)
		}
	}
}

func reopened(t testing.TB, clones []*vfs.MemFS) (out []*store.Store) {
	t.Helper()
	for _, fs := range clones {
		out = append(out, storetest.Open(t, store.Options{FS: fs}))
	}
	return out
}

// TestRelistWiped: a wipe removes the listings, and none of them is shown.
func TestRelistWiped(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did := storetest.DID(1)
	imported(t, s, did, small())
	setStatus(t, s, did, store.StatusActive)
	edit(t, s, did, func(b *store.Batch, r *store.Repo) error { r.State = store.StateGone; return b.Wipe(r) })
	if n := listings(t, s); n != 0 {
		t.Errorf("%d listing rows are left", n)
	}
	if got := events(t, s, 1, 100); len(got) != 1 {
		t.Errorf("%q", got)
	}
	prune(t, s, time.Now().Add(time.Hour))
}

// TestCounted: a row counts its hidden rows and collections, and RecordCID finds each record.
func TestCounted(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did := storetest.DID(1)
	imported(t, s, did, small())
	for _, step := range []struct {
		path, body          string
		hidden, collections uint32
	}{
		{"app.test.c/1", "new", 1, 3},
		{"app.test.c/1", "changed", 1, 3},
		{"app.test.c/2", "", 1, 3}, // was never there
		{"no other", "hidden", 2, 3},
		{"no path", "changed", 2, 3},
		{"no path", "", 1, 3},
		{"app.test.a/1", "", 1, 2},
		{"app.test.b/1", "", 1, 2},
	} {
		one(t, s, did, step.path, step.body)
		r := row(t, s, did)
		if r.Hidden != step.hidden || r.Collections != step.collections {
			t.Errorf("after %s: %d hidden, %d collections", step.path, r.Hidden, r.Collections)
		}
		want := repo.CID{}
		if step.body != "" {
			want = repo.HashCID(storetest.Text(step.body))
		}
		if got, err := s.RecordCID(&r, []byte(step.path)); got != want || err != nil {
			t.Errorf("%s is %s, %v", step.path, got, err)
		}
		storetest.Check(t, s)
	}
	if got, err := s.RecordCID(&store.Repo{}, []byte("app.test.a/1")); got.Defined() || err != nil {
		t.Errorf("without an ordinal: %s, %v", got, err)
	}
}
