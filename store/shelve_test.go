package store_test

import (
	"fmt"
	"testing"

	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// setFilter puts a filter in force and returns the version that rows name.
func setFilter(t testing.TB, s *store.Store, c filter.Config) uint32 {
	t.Helper()
	f, err := s.SetFilter(c)
	if err != nil {
		t.Fatal(err)
	}
	return f.Selection
}

// importBy imports a repository by a version of the filter.
func importBy(t testing.TB, s *store.Store, did string, m storetest.Records, version uint32, rev string) {
	t.Helper()
	im := m.Import(add(t, s, did), rev)
	im.Filter = version
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			t.Errorf("import of %s: %v", did, err)
		}
	}
	if err := s.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
}

// amend applies ops to a repository after edit has changed its row.
func amend(t testing.TB, s *store.Store, did, rev string, edit func(*store.Repo), ops ...store.Op) store.Repo {
	t.Helper()
	defer s.Lock(did)()
	r, err := s.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	edit(&r)
	b := s.NewBatch()
	if err := b.Apply(&r, false, rev, ops); err != nil {
		t.Fatal(err)
	}
	data := repo.HashCID([]byte(rev))
	r.Rev, r.Data, r.Commit = rev, data, storetest.Commit(did, rev, data)
	b.ForgeRepo(&r)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	return r
}

// put returns the op that writes a record of some text, drop the op that deletes it, keep the op of
// a sweep.
func put(path, text string) store.Op {
	body := storetest.Text(text)
	return store.Op{Path: []byte(path), CID: repo.HashCID(body), Record: body}
}

func drop(path string) store.Op { return store.Op{Path: []byte(path)} }
func keep(path string) store.Op { return store.Op{Path: []byte(path), Keep: true} }

// spoken returns the events of the log from an id on.
func spoken(t testing.TB, s *store.Store, from uint64) (out []string) {
	t.Helper()
	for from <= s.Head() {
		next, err := s.ReadLog(t.Context(), from, 2, func(e *store.Event) error {
			if e.Kind == store.KindRepo {
				return nil
			}
			out = append(out, fmt.Sprintf("%s %s/%s %.30s", e.Action, e.Collection, e.Rkey, e.Record))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		from = next
	}
	return out
}

// rowsOf returns the record rows of a repository, each with its place.
func rowsOf(t testing.TB, s *store.Store, did string) map[string]string {
	t.Helper()
	r, err := s.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := s.Rows(r.Ordinal)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for rows.Next() {
		row := rows.Row()
		out[string(row.Path)] = map[[2]bool]string{{}: "shown", {true, false}: "hidden", {false, true}: "shelved"}[[2]bool{row.Hidden, row.Shelved}]
		if cid, err := s.RecordCID(&r, row.Path); err != nil || cid != row.CID {
			t.Errorf("record %s: %s, %v", row.Path, cid, err)
		}
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestShelveTransitions: each move of a record from one place to another, with its events.
func TestShelveTransitions(t *testing.T) {
	t.Parallel()
	const path = "app.test.b/1"
	one, two := "\xa1dtextcone", "\xa1dtextctwo"
	for _, row := range []struct {
		name          string
		before, after filter.Config
		held          bool
		op            store.Op
		events        []string
		is            string
	}{
		{"none to shown", filter.Config{}, filter.Config{}, false, put(path, "one"), []string{"create " + path + " " + one}, "shown"},
		{"shown to shown", filter.Config{}, filter.Config{}, true, put(path, "two"), []string{"update " + path + " " + two}, "shown"},
		{"shown, the same", filter.Config{}, filter.Config{}, true, put(path, "one"), nil, "shown"},
		{"shown, kept", filter.Config{}, filter.Config{}, true, keep(path), nil, "shown"},
		{"nothing to keep", filter.Config{}, filter.Config{}, false, keep(path), nil, ""},
		{"shown to none", filter.Config{}, filter.Config{}, true, drop(path), []string{"delete " + path + " "}, ""},
		{"shown to unwanted", filter.Config{}, only("app.test.a", ""), true, keep(path), []string{"delete " + path + " "}, ""},
		{"shown to unwanted by a write", filter.Config{}, only("app.test.a", ""), true, put(path, "two"), []string{"delete " + path + " "}, ""},
		{"shown to unwanted by a deletion", filter.Config{}, only("app.test.a", ""), true, drop(path), []string{"delete " + path + " "}, ""},
		{"none to unwanted", only("app.test.a", ""), only("app.test.a", ""), true, put(path, "two"), nil, ""},
		{"shown to shelved", filter.Config{}, only("app.test.a", "all"), true, keep(path), []string{"delete " + path + " "}, "shelved"},
		{"shown to shelved by a write", filter.Config{}, only("app.test.a", "all"), true, put(path, "two"), []string{"delete " + path + " "}, "shelved"},
		{"none to shelved", only("app.test.a", "all"), only("app.test.a", "all"), false, put(path, "two"), nil, "shelved"},
		{"shelved to shelved", only("app.test.a", "all"), only("app.test.a", "all"), true, put(path, "two"), nil, "shelved"},
		{"shelved, kept", only("app.test.a", "all"), only("app.test.a", "all"), true, keep(path), nil, "shelved"},
		{"shelved to none", only("app.test.a", "all"), only("app.test.a", "all"), true, drop(path), nil, ""},
		{"shelved to unwanted", only("app.test.a", "all"), only("app.test.a", ""), true, keep(path), nil, ""},
		{"shelved to shown", only("app.test.a", "all"), only("app.test.b", ""), true, keep(path), []string{"create " + path + " " + one}, "shown"},
		{"shelved to shown by a write", only("app.test.a", "all"), filter.Config{}, true, put(path, "two"), []string{"create " + path + " " + two}, "shown"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := storetest.Open(t, store.Options{})
			did, m := storetest.DID(1), storetest.Records{}
			if row.held {
				m[path] = storetest.Text("one")
			}
			importBy(t, s, did, m, setFilter(t, s, row.before), storetest.Rev(1))
			from := s.Head() + 1
			after := setFilter(t, s, row.after)
			amend(t, s, did, storetest.Rev(2), func(r *store.Repo) { r.Filter, r.Sweep = after, true }, row.op)
			storetest.Check(t, s)
			if d := cmp.Diff(row.events, spoken(t, s, from)); d != "" {
				t.Errorf("events (-want +got):\n%s", d)
			}
			if is := rowsOf(t, s, did)[path]; is != row.is {
				t.Errorf("is %q, want %q", is, row.is)
			}
			amend(t, s, did, storetest.Rev(3), func(r *store.Repo) { r.Sweep = false })
			r, err := s.Repo(did)
			if err != nil {
				t.Fatal(err)
			}
			collections, err1 := s.Collections(&r)
			records := storetest.List(t, s, &r, "app.test.b", "", 10, false)
			_, err2 := s.Record(&r, "app.test.b", "1")
			shown := map[bool]int{true: 1}[row.is == "shown"]
			if err1 != nil || len(collections) != shown || len(records) != shown || (err2 == nil) != (shown == 1) || s.Counts()["records"] != int64(shown) {
				t.Errorf("collections %v, %v; records %v; %v; %v", collections, err1, records, err2, s.Counts())
			}
		})
	}
}

// only is the filter of one collection.
func only(collection, stored string) filter.Config {
	return filter.Config{Collections: []string{collection}, Store: stored}
}

// TestShelveHidden: a record without a valid path is kept if all records are stored or wanted.
func TestShelveHidden(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did := storetest.DID(1)
	importBy(t, s, did, storetest.Records{"no path": storetest.Text("x"), "app.test.a/1": storetest.Text("x")}, 0, storetest.Rev(1))
	all, wanted := setFilter(t, s, only("app.test.b", "all")), setFilter(t, s, only("app.test.b", ""))
	for i, row := range []struct {
		version uint32
		is      map[string]string
	}{
		{all, map[string]string{"no path": "hidden", "app.test.a/1": "shelved"}},
		{0, map[string]string{"no path": "hidden", "app.test.a/1": "shown"}},
		{wanted, map[string]string{}},
	} {
		amend(t, s, did, storetest.Rev(2+i), func(r *store.Repo) { r.Filter, r.Sweep = row.version, true }, keep("no path"), keep("app.test.a/1"))
		amend(t, s, did, storetest.Rev(10+i), func(r *store.Repo) { r.Sweep = false })
		storetest.Check(t, s)
		if d := cmp.Diff(row.is, rowsOf(t, s, did)); d != "" {
			t.Errorf("by version %d (-want +got):\n%s", row.version, d)
		}
	}
	amend(t, s, did, storetest.Rev(20), func(*store.Repo) {}, put("no path", "y"))
	if n := len(rowsOf(t, s, did)); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// TestImportByFilter: an import keeps what its version wants, by both ways of writing a group.
func TestImportByFilter(t *testing.T) {
	t.Parallel()
	for _, small := range []int64{1 << 20, 1} {
		s := storetest.Open(t, store.Options{SmallBytes: small})
		m := storetest.Records{"no path": storetest.Text("x")}
		for i := range 30 {
			m[fmt.Sprintf("app.test.%c/%d", 'a'+i%3, i)] = storetest.Text(fmt.Sprint("text ", i%7))
		}
		for i, row := range []struct {
			c                                filter.Config
			shown, shelved, hidden, distinct int
		}{
			{only("app.test.a", ""), 10, 0, 0, 7},
			{only("app.test.a", "all"), 10, 20, 1, 8},
			{only("app.other.*", ""), 0, 0, 0, 0},
			{only("app.other.*", "all"), 0, 30, 1, 8},
			{only("app.test.*", ""), 30, 0, 0, 7},
			{filter.Config{}, 30, 0, 1, 8},
		} {
			did, head := storetest.DID(i+1), s.Head()
			version := setFilter(t, s, row.c)
			importBy(t, s, did, m, version, storetest.Rev(i+1))
			r, err := s.Repo(did)
			if err != nil {
				t.Fatal(err)
			}
			if r.Records != int64(row.shown+row.hidden) || r.Shelved != int64(row.shelved) || r.Hidden != uint32(row.hidden) || r.Blocks != int64(row.distinct) || r.Filter != version {
				t.Errorf("%+v: %+v", row, r)
			}
			if n := s.Head() - head; n != uint64(row.shown)+1 { // and that it is synced
				t.Errorf("%+v: %d events", row, n)
			}
			storetest.Check(t, s)
		}
	}
}
