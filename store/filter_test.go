package store_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// TestFilterVersions: versions count up from 1, an equal filter makes none, and all of them exist
// after reopening.
func TestFilterVersions(t *testing.T) {
	t.Parallel()
	o := store.Options{FS: vfs.NewMem(), Dir: "db"}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if f := s.Filter(); f.Version != 0 || !f.WantsAll() {
		t.Errorf("a new store has filter %d: %+v", f.Version, f.Config())
	}
	cursor := func() (at store.RefilterCursor, ok bool) {
		t.Helper()
		at, ok, err := s.RefilterCursor()
		if err != nil {
			t.Fatal(err)
		}
		return at, ok
	}
	if _, ok := cursor(); ok {
		t.Error("a pass is wanted of a new store")
	}
	configs := []filter.Config{
		{}, // also if it equals the zero Filter: the operator has set it
		{Mode: filter.ModeFull, Signals: []string{"app.test.b", "app.test.a"}, Excludes: []string{storetest.DID(1)}},
		{Collections: []string{"app.test.*"}, Store: filter.StoreAll},
		{},
	}
	for i, c := range configs {
		if version := setFilter(t, s, c); version != uint32(i+1) {
			t.Errorf("filter %d is version %d", i, version)
		}
		if at, ok := cursor(); at != (store.RefilterCursor{}) || !ok {
			t.Errorf("cursor %+v, %v", at, ok)
		}
		b := s.NewBatch()
		b.PutRefilterCursor(store.RefilterCursor{Begun: true, After: storetest.DID(5)})
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
		c.Signals = append(c.Signals, c.Signals...)
		if version := setFilter(t, s, c); version != uint32(i+1) {
			t.Errorf("filter %d, said twice, is version %d", i, version)
		}
		if at, _ := cursor(); at.After != storetest.DID(5) {
			t.Errorf("an equal filter moved the cursor to %+v", at)
		}
	}
	if _, err := s.SetFilter(filter.Config{Mode: "none"}); err == nil {
		t.Error("a wrong filter was taken")
	}
	storetest.Check(t, s)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = store.Open(o); err != nil {
			t.Fatal(err)
		}
		storetest.Check(t, s)
		if f := s.Filter(); f.Version != uint32(len(configs)) {
			t.Errorf("reopened with filter %d", f.Version)
		}
		for i, c := range configs {
			if i < len(configs)-1 {
				c.Excludes = nil // only the filter in force has its excludes
			}
			want, err := filter.Compile(c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.FilterAt(uint32(i + 1))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want.Config(), got.Config()); d != "" {
				t.Errorf("filter %d (-want +got):\n%s", i+1, d)
			}
		}
	}
	if f := s.Filter(); f.Readmitted != 3 {
		t.Errorf("an account was readmitted with version %d, want 3", f.Readmitted)
	}
	if _, err := s.FilterAt(uint32(len(configs) + 1)); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a version to come: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestFilterUnknown: a reference to an unknown version is refused, and the store stays usable.
func TestFilterUnknown(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	m := storetest.Records{"app.test.a/1": storetest.Text("x")}
	im := m.Import(add(t, s, storetest.DID(1)), storetest.Rev(1))
	im.Filter = 1
	var done error
	im.Done = func(_ store.Repo, err error) { done = err }
	if err := s.Import(t.Context(), im); !errors.Is(err, store.ErrCorrupt) || !errors.Is(done, store.ErrCorrupt) {
		t.Errorf("import: %v, done with %v", err, done)
	}
	importBy(t, s, storetest.DID(1), m, 0, storetest.Rev(1))
	r, err := s.Repo(storetest.DID(1))
	if err != nil {
		t.Fatal(err)
	}
	r.Filter = 1
	b := s.NewBatch()
	if err := b.Apply(&r, false, storetest.Rev(2), []store.Op{put("app.test.a/1", "y")}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("apply: %v", err)
	}
	b.Discard()
}

// TestFilterDurable: a filter is durable when SetFilter returns.
func TestFilterDurable(t *testing.T) {
	t.Parallel()
	fs := storetest.NewCrashFS()
	s, err := store.Open(store.Options{FS: fs, Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	setFilter(t, s, only("app.test.a", ""))
	rng := seeded(t)
	var clones []*storetest.CrashFS
	for _, percent := range []int{0, 50, 100} {
		clones = append(clones, fs.Clone(rng, percent))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, clone := range clones {
		c, err := store.Open(store.Options{FS: clone, Dir: "db"})
		if err != nil {
			t.Fatal(err)
		}
		if c.Filter().Version != 1 {
			t.Errorf("a crash after SetFilter left version %d", c.Filter().Version)
		}
		storetest.Check(t, c)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// filterDamages are damages to the rows of filters. The patient has no filter.
var filterDamages = []damage{
	{"record shelved", func(d surgeon) { d.editRecord(2, "app.test.a/1", func(r *store.RecordRow) { r.Shelved = true }) }, "is shelved, by its filter it is shown"},
	{"shelved records of the row", func(d surgeon) { d.put(2, func(r *store.Repo) { r.Shelved = 3 }) }, "0 shelved records, its row says 3"},
	{"filter of the row", func(d surgeon) { d.put(2, func(r *store.Repo) { r.Filter = 9 }) }, "filter version 9 does not exist"},
	{"sweep without an ordinal", func(d surgeon) { d.put(3, func(r *store.Repo) { r.Sweep = true }) }, "but no ordinal"},
	{"lacking without its gauge", func(d surgeon) { d.put(2, func(r *store.Repo) { r.Lacks = true }) }, "counter lacking"},
	{"behind without its gauge", func(d surgeon) { d.put(2, func(r *store.Repo) { r.SeenRev = storetest.Rev(99) }) }, "counter behind"},
	{"filter lost", func(d surgeon) {
		setFilter(d.t, d.s, filter.Config{})
		d.delete([]byte{store.SpaceFilter, 0, 0, 0, 1})
	}, "filter version 1: is in memory and not on disk"},
	{"another selection on disk", func(d surgeon) {
		setFilter(d.t, d.s, filter.Config{})
		d.value([]byte{store.SpaceFilter, 0, 0, 0, 1}, store.SelectionRow{Full: true})
	}, "filter version 1: is"},
	{"filter in force lost", func(d surgeon) {
		setFilter(d.t, d.s, filter.Config{})
		d.delete(store.MetaKey("filter"))
	}, "filter in force: is"},
	{"filter that was never set", func(d surgeon) { d.value([]byte{store.SpaceFilter, 0, 0, 0, 1}, filter.Config{}) }, "filter version 1: it is not in memory"},
	{"dropped ordinal with an owner", func(d surgeon) {
		d.set(store.OrdinalKey(nil, store.SpaceDropped, d.ordinal(2)), binary.BigEndian.AppendUint64(nil, 5))
	}, "owner true"},
	{"dropped in the future", func(d surgeon) {
		d.set(store.OrdinalKey(nil, store.SpaceDropped, noRepo), binary.BigEndian.AppendUint64(nil, 1<<40))
	}, "dropped ordinal 1073741824"},
}
