package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// ephemeral are the options of a store that keeps events only.
func ephemeral(o store.Options) store.Options {
	o.Ephemeral, o.Retention = true, time.Hour
	return o
}

// TestEphemeralMode: a store is ephemeral from its creation on, or never.
func TestEphemeralMode(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	open := func(dir string, o store.Options) error {
		o.FS, o.Dir = fs, dir
		s, err := store.Open(o)
		if err != nil {
			return err
		}
		want := strings.HasPrefix(dir, "events")
		if s.Ephemeral() != want {
			t.Errorf("%s: ephemeral is %v", dir, s.Ephemeral())
		}
		return s.Close()
	}
	for _, row := range []struct {
		what  string
		dir   string
		o     store.Options
		wants string // of the error
	}{
		{"without a retention nothing ever goes", "events", store.Options{Ephemeral: true}, "needs a retention"},
		{"new", "events", ephemeral(store.Options{}), ""},
		{"again", "events", ephemeral(store.Options{}), ""},
		{"by size", "events", store.Options{Ephemeral: true, RetentionBytes: 1 << 20}, ""},
		{"not any more", "events", store.Options{}, "start with --ephemeral, or with another --data"},
		{"for a check, or a backup", "events", store.Options{ReadOnly: true}, ""},
		{"as it is", "events", store.Options{MustExist: true}, ""},
		{"new, with records", "records", store.Options{}, ""},
		{"too late", "records", ephemeral(store.Options{}), "start without --ephemeral, or with another --data"},
	} {
		err := open(row.dir, row.o)
		if row.wants == "" && err != nil || row.wants != "" && (err == nil || !strings.Contains(err.Error(), row.wants)) {
			t.Errorf("%s: %v, want %q", row.what, err, row.wants)
		}
		if strings.Contains(row.wants, "--data") && !errors.Is(err, store.ErrMode) {
			t.Errorf("%s: %v is not ErrMode", row.what, err)
		}
	}
	s := storetest.Open(t, ephemeral(store.Options{}))
	if _, err := s.SetFilter(filter.Config{Store: filter.StoreAll}); !errors.Is(err, store.ErrStoresAll) {
		t.Errorf("a filter that stores all: %v", err)
	}
}

// many returns n records in some collections; every third has an equal one.
func many(n int) storetest.Records {
	m := storetest.Records{}
	for i := range n {
		m[fmt.Sprintf("app.test.c%d/%05d", i%3, i)] = storetest.Text(fmt.Sprint("text ", i-i%3/2))
	}
	return m
}

// empties prunes everything, and reports what is left of records.
func empties(t *testing.T, s *store.Store) {
	t.Helper()
	if err := store.Prune(t.Context(), s, s.Head()+1); err != nil {
		t.Fatal(err)
	}
	if c := s.Counts(); c["records"] != 0 || c["blocks"] != 0 || c["collections"] != 0 {
		t.Errorf("when everything is pruned: %v", c)
	}
	storetest.Check(t, s)
}

// TestLapsePages: of a large import of which some records stay, the rows go a page at a time. A
// crash between any two batches leaves a store that is in order, and from which the rest goes.
func TestLapsePages(t *testing.T) {
	storetest.WithoutRace(t) // one goroutine, many rows
	t.Parallel()
	rng := seeded(t)
	fs := storetest.NewCrashFS()
	o := ephemeral(store.Options{FS: fs, Dir: "db"})
	var clones []*storetest.CrashFS
	armed := false
	o.Step = func(string) {
		if armed {
			clones = append(clones, fs.Clone(rng, 100))
		}
	}
	s := storetest.Open(t, o)
	did := storetest.DID(1)
	const n = 6 * store.LapseRows
	imported(t, s, did, many(n))
	imported(t, s, storetest.DID(2), many(10))
	tail := s.Head() + 1
	one(t, s, did, "app.test.c1/00001", "stays")
	armed = true
	pages := 0
	for more, before := true, int64(n); more; pages++ {
		var err error
		if more, err = store.PrunePage(s, tail); err != nil {
			t.Fatal(err)
		}
		now := s.Counts()["records"]
		if more && (now >= before || before-now > 2*store.LapsePage) {
			t.Errorf("page %d: %d records are left of %d", pages, now, before)
		}
		before = now
		storetest.Check(t, s)
	}
	armed = false
	if c := s.Counts(); c["records"] != 1 || pages < 2 || len(clones) < n/store.LapseRows/2 {
		t.Errorf("%d pages and %d steps leave %v", pages, len(clones), c)
	}
	empties(t, s)
	o.Step = nil
	for i := 0; i < len(clones); i += 3 {
		o.FS = clones[i]
		s, err := store.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		storetest.Check(t, s)
		empties(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestLapseRanges: imports that go whole cost a few range tombstones, neighbours together, and small
// commits none.
func TestLapseRanges(t *testing.T) {
	t.Parallel()
	kept := func(p *pebble.Options) { p.DisableAutomaticCompactions = true }
	s := storetest.Open(t, store.Tuned(ephemeral(store.Options{}), kept))
	w := newWorld()
	for n := range 40 {
		w.importRepo(t, s, storetest.DID(n+1), many(20))
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	count := func() uint64 {
		n, err := store.RangeTombstones(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	empties(t, s)
	if n := count() - before; n == 0 || n > 8 {
		t.Errorf("%d range tombstones for 40 neighbours", n)
	}
	before = count()
	for n := range 40 {
		one(t, s, storetest.DID(n+1), "app.test.a/1", "one")
	}
	empties(t, s)
	if n := count() - before; n != 0 {
		t.Errorf("%d range tombstones for single records", n)
	}
}

// TestEphemeralBytes: the size of the log counts the records, which only the log keeps.
func TestEphemeralBytes(t *testing.T) {
	t.Parallel()
	size := func(o store.Options) int64 {
		s := storetest.Open(t, o)
		if err := s.Prune(t.Context(), store.NoProgress); err != nil { // counts from here on
			t.Fatal(err)
		}
		imported(t, s, storetest.DID(1), many(1000))
		for i := range 10 {
			one(t, s, storetest.DID(1), "app.test.c0/1", strings.Repeat("long", 1000)+fmt.Sprint(i))
		}
		if err := s.Prune(t.Context(), store.NoProgress); err != nil {
			t.Fatal(err)
		}
		return store.LogBytes(s)
	}
	whole, events := size(store.Options{Retention: time.Hour}), size(ephemeral(store.Options{}))
	// 1,000 rows of 50 bytes and their blocks, and ten blocks of 4,000.
	if more := events - whole; more < 60_000 {
		t.Errorf("the log of an ephemeral store has %d bytes, that of another %d", events, whole)
	}
}

// TestEphemeralActions: the commit decides the action of a change whose record has gone.
func TestEphemeralActions(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, ephemeral(store.Options{}))
	did := storetest.DID(1)
	imported(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("1"), "app.test.a/2": storetest.Text("2"), "app.test.b/3": storetest.Text("3")})
	empties(t, s)
	from := s.Head() + 1
	replacing := func(op store.Op) store.Op { op.Replaces = true; return op }
	for _, op := range []store.Op{
		replacing(drop("app.test.a/1")), replacing(put("app.test.a/2", "new")), put("app.test.a/4", "created"),
		drop("app.test.c/9"),             // of a record that never was
		replacing(drop("app.test.a/2")),  // which is stored again
		put("app.test.b/3", "by a copy"), // which cannot tell that there was one
	} {
		edit(t, s, did, func(b *store.Batch, r *store.Repo) error { return b.Apply(r, true, r.Rev, []store.Op{op}) })
	}
	want := "delete app.test.a/1|update app.test.a/2|create app.test.a/4|delete app.test.a/2|create app.test.b/3"
	var got []string
	for _, text := range spoken(t, s, from) {
		got = append(got, strings.Join(strings.Fields(text)[:2], " "))
	}
	if strings.Join(got, "|") != want {
		t.Errorf("events\n%s, want\n%s", strings.Join(got, "|"), want)
	}
	if c := s.Counts(); c["records"] != 2 || c["collections"] != 2 {
		t.Errorf("counts %v", c)
	}
	storetest.Check(t, s)
	whole := storetest.Open(t, store.Options{})
	imported(t, whole, did, storetest.Records{"app.test.a/1": storetest.Text("1")})
	head := whole.Head()
	edit(t, whole, did, func(b *store.Batch, r *store.Repo) error {
		return b.Apply(r, true, r.Rev, []store.Op{replacing(drop("app.test.a/2"))})
	})
	if whole.Head() != head {
		t.Error("a store that keeps records tells of the delete of a record that it does not have")
	}
}

// TestEphemeralDamage: Check finds a record whose event has gone.
func TestEphemeralDamage(t *testing.T) {
	t.Parallel()
	o := ephemeral(store.Options{FS: vfs.NewMem(), Dir: "db"})
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	did := storetest.DID(1)
	imported(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("1")})
	one(t, s, did, "app.test.a/2", "2")
	r, err := s.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	row := store.RecordRow{Block: 1, CID: repo.HashCID(storetest.Text("2")), Rev: r.Rev}
	if err := store.Prune(t.Context(), s, s.Head()); err != nil {
		t.Fatal(err)
	}
	key := store.RecordKey(nil, r.Ordinal, []byte("app.test.a/3"))
	row.Block = 0
	if err := store.SetRaw(s, key, row.Append(nil)); err != nil {
		t.Fatal(err)
	}
	found := false
	if _, err := s.Check(t.Context(), func(d string) { found = found || strings.Contains(d, "no entry of the log wrote block 0") }); err != nil || !found {
		t.Errorf("check found the record: %v, %v", found, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
