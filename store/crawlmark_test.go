package store_test

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// TestCrawlMarks: each list has its mark, and a source has those of its own lists only, also beside
// a source whose name begins like it.
func TestCrawlMarks(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	of := func(kind, url, part string) store.CrawlList {
		return store.CrawlList{Kind: kind, URL: url, Part: part}
	}
	own := map[store.CrawlList]store.CrawlMark{
		of("hosts", "https://a", ""):          {Filter: 1, Pages: 2, Named: 3, Cursor: "3"},
		of("hosts", "https://a", "https://b"): {},
		of("hosts", "https://a", "https://c"): {Ended: 1_700_000_000, Before: 5, Thin: 1},
	}
	write(t, s, func(b *store.Batch) {
		for l, m := range own {
			b.PutCrawlMark(l, m)
		}
		for _, l := range []store.CrawlList{of("hosts", "https://a.b", ""), of("hosts", "https://", "x"), of("repos", "https://a", "")} {
			b.PutCrawlMark(l, store.CrawlMark{Pages: 9})
		}
		b.PutCrawlMark(of("hosts", "https://a", "https://d"), store.CrawlMark{Pages: 9})
	})
	write(t, s, func(b *store.Batch) {
		b.DropCrawlMark(of("hosts", "https://a", "https://d"))
		b.DropCrawlMark(of("hosts", "https://a", "none"))
	})
	got, err := s.CrawlMarks("hosts", "https://a")
	if d := cmp.Diff(own, got); d != "" || err != nil {
		t.Error(d, err)
	}
	for l, want := range own {
		if m, err := s.CrawlMark(l); m != want || err != nil {
			t.Errorf("%s: %+v, %v", l, m, err)
		}
	}
	if m, err := s.CrawlMark(of("hosts", "https://none", "")); m != (store.CrawlMark{}) || err != nil {
		t.Errorf("a list that was never read: %+v, %v", m, err)
	}
}

// TestCrawlListRefused: a list whose key could not be parsed is not written.
func TestCrawlListRefused(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	for _, l := range []store.CrawlList{{}, {Kind: "hosts"}, {URL: "https://a"}, {Kind: "hosts\x00", URL: "https://a"}, {Kind: "hosts", URL: "\x00"}} {
		b := s.NewBatch()
		b.PutCrawlMark(l, store.CrawlMark{})
		if err := b.CommitSync(); err == nil {
			t.Errorf("the mark of %q was written", l.String())
		}
	}
}

// TestReconciliations: each base URL has its own, beside the request to compare all hosts.
func TestReconciliations(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	want := map[string]store.Reconciliation{
		"https://a":      {},
		"https://a/base": {Stage: store.ReconcileReading, Cursor: "7"},
		"http://b":       {Stage: store.ReconcileReading},
		"http://c":       {Stage: store.ReconcileListed},
	}
	write(t, s, func(b *store.Batch) {
		for url, r := range want {
			b.PutReconciliation(url, r)
		}
		b.PutReconciliation("http://d", store.Reconciliation{})
		b.PutReconcileHosts("https://a")
	})
	write(t, s, func(b *store.Batch) { b.DropReconciliation("http://d"); b.DropReconciliation("none") })
	got, err := s.Reconciliations()
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	for url, r := range want {
		if got, ok, err := s.Reconciliation(url); got != r || !ok || err != nil {
			t.Errorf("%s: %+v, %v, %v", url, got, ok, err)
		}
	}
	if _, ok, err := s.Reconciliation("http://d"); ok || err != nil {
		t.Errorf("one that has ended: %v, %v", ok, err)
	}
	if relay, ok, err := s.ReconcileHosts(); relay != "https://a" || !ok || err != nil {
		t.Errorf("all hosts: %q, %v, %v", relay, ok, err)
	}
}

// TestReconcileHosts: a request ends when it was begun and not made again since. A request that was
// begun before a crash is begun again.
func TestReconcileHosts(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	request := func(relay string) { write(t, s, func(b *store.Batch) { b.PutReconcileHosts(relay) }) }
	begin := func(relay string) {
		t.Helper()
		if got, ok, err := s.BeginReconcileHosts(); got != relay || ok != (relay != "") || err != nil {
			t.Errorf("begun: %q, %v, %v; want %q", got, ok, err, relay)
		}
	}
	end := func(left string) {
		t.Helper()
		if err := s.EndReconcileHosts(); err != nil {
			t.Error(err)
		}
		if got, ok, err := s.ReconcileHosts(); got != left || ok != (left != "") || err != nil {
			t.Errorf("left: %q, %v, %v; want %q", got, ok, err, left)
		}
	}
	begin("")
	end("")
	request("https://a")
	end("https://a") // not begun
	begin("https://a")
	request("https://a") // the same row but for Begun
	end("https://a")
	begin("https://a")
	begin("https://a") // as after a crash
	end("")
}

// TestDescribeRetries: accounts of every form of DID come back.
func TestDescribeRetries(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	want := map[string]store.DescribeRetry{plc: {Due: 7, Tries: 1}, "did:web:a.test": {}}
	write(t, s, func(b *store.Batch) {
		for did, d := range want {
			b.PutDescribeRetry(did, d)
		}
		b.PutDescribeRetry(storetest.DID(1), store.DescribeRetry{})
	})
	write(t, s, func(b *store.Batch) { b.DropDescribeRetry(storetest.DID(1)) })
	got, err := s.DescribeRetries()
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

// markRows returns rows of the progress of some work, each with the values that its reader refuses.
func markRows(t *testing.T) map[string]struct {
	key  []byte
	read func(s *store.Store) error
	bad  []any
} {
	t.Helper()
	l := store.CrawlList{Kind: "hosts", URL: "https://a"}
	return map[string]struct {
		key  []byte
		read func(s *store.Store) error
		bad  []any
	}{
		"mark of list": {store.CrawlKey(nil, l), func(s *store.Store) error {
			_, one := s.CrawlMark(l)
			_, all := s.CrawlMarks(l.Kind, l.URL)
			return both(one, all)
		}, []any{store.CrawlMark{Ended: -1}, store.CrawlMark{Pages: -1}, store.CrawlMark{Named: -1}, store.CrawlMark{Before: -1}}},
		"reconciliation of": {store.ReconcileKey(nil, "https://a"), func(s *store.Store) error {
			_, _, one := s.Reconciliation("https://a")
			_, all := s.Reconciliations()
			return both(one, all)
		}, []any{store.Reconciliation{Stage: 3}, store.Reconciliation{Cursor: "7"}, store.Reconciliation{Stage: store.ReconcileListed, Cursor: "7"}}},
		"reconciliation of all": {store.MetaKey("reconcile_hosts"), func(s *store.Store) error {
			_, _, err := s.ReconcileHosts()
			return err
		}, nil},
		"account": {store.DescribeKey(nil, plc), func(s *store.Store) error {
			_, err := s.DescribeRetries()
			return err
		}, nil},
		"refilter cursor": {store.MetaKey("refilter"), func(s *store.Store) error {
			_, _, err := s.RefilterCursor()
			return err
		}, []any{store.RefilterCursor{After: plc}}},
	}
}

// both returns an error unless neither or both of two are errors.
func both(a, b error) error {
	if (a == nil) != (b == nil) {
		return errors.New("one reader refuses what the other takes")
	}
	return a
}

// TestMarkCorrupt: a row that cannot be read is corruption, for its readers and for Check. It never
// means the beginning.
func TestMarkCorrupt(t *testing.T) {
	t.Parallel()
	encode, _ := codec(t)
	rows := markRows(t)
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		row := rows[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			values := [][]byte{{}, {1}, {0, 0xa0}, {2, 0xa0}, {1, 0xa1}, {1, 0xa0, 0}, []byte("3 0 12 345 67 2 page 7 of 9")}
			for _, bad := range row.bad {
				v, err := encode(bad)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, v)
			}
			s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "db"})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for _, v := range values {
				surgeon{t, s}.set(row.key, v)
				if err := row.read(s); !errors.Is(err, store.ErrCorrupt) {
					t.Errorf("%x: %v", v, err)
				}
				var said []string
				if n, err := s.Check(t.Context(), func(d string) { said = append(said, d) }); n != 1 || err != nil {
					t.Errorf("%x: check says %q, %v", v, said, err)
				}
			}
		})
	}
}
