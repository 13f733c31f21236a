package store_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// outpatient returns a store with repositories whose records make the roots of their commits: DID 1
// has a block that two records share, a hidden record and a superseded block; DID 2 has one record.
func outpatient(t *testing.T) (*store.Store, *world) {
	t.Helper()
	s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "db", SmallBytes: 1, GroupAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w := newWorld()
	w.importRepo(t, s, storetest.DID(1), storetest.Records{"app.test.a/1": storetest.Text("same"),
		"app.test.a/2": storetest.Text("same"), "app.test.b/1": storetest.Text("old"),
		"no path": storetest.Text("hidden")})
	w.importRepo(t, s, storetest.DID(2), storetest.Records{"app.test.a/1": storetest.Text("x")})
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	w.records[storetest.DID(1)]["app.test.b/1"] = storetest.Text("new")
	w.copied(t, s, storetest.DID(1))
	storetest.Check(t, s)
	for n := range 2 {
		if x := examine(t, s, n+1); x.Differences > 0 || !x.Tree {
			t.Fatalf("DID %d: %q, whole tree: %v", n+1, x.Texts, x.Tree)
		}
	}
	return s, w
}

// copied writes the difference between a repository and its true records, as a fetch does.
func (w *world) copied(t *testing.T, s *store.Store, did string) {
	t.Helper()
	m, rev := w.records[did], w.rev()
	edit(t, s, did, func(b *store.Batch, r *store.Repo) error {
		rows, err := s.Rows(r.Ordinal)
		if err != nil {
			return err
		}
		var ops []store.Op
		has := map[string]bool{}
		for rows.Next() {
			row := rows.Row()
			p := string(row.Path)
			has[p] = true
			op := store.Op{Path: []byte(p), Keep: true}
			if body, ok := m[p]; !ok {
				op.Keep = false
			} else if repo.HashCID(body) != row.CID {
				op.Keep, op.CID, op.Record = false, repo.HashCID(body), body
			}
			ops = append(ops, op)
		}
		for _, p := range m.Paths() {
			if !has[p] {
				ops = append(ops, store.Op{Path: []byte(p), CID: repo.HashCID(m[p]), Record: m[p]})
			}
		}
		r.Torn = true
		if err := errors.Join(rows.Close(), b.Apply(r, false, rev, ops)); err != nil {
			return err
		}
		r.Torn, r.Rev, r.Data = false, rev, m.Root()
		r.Commit = storetest.Commit(did, rev, r.Data)
		if r.State != store.StateSynced {
			b.Complete(r)
		}
		return nil
	})
	w.revs[did] = rev
}

func examine(t *testing.T, s *store.Store, n int) store.Examination {
	t.Helper()
	x, err := s.Examine(t.Context(), storetest.DID(n), nil)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// healed repairs a repository as far as the store can, and reports whether it was queued.
func healed(t *testing.T, s *store.Store, n int) (queued bool) {
	t.Helper()
	for range 8 {
		x := examine(t, s, n)
		if x.Differences == 0 {
			return queued
		}
		needs := x.NeedsCopy()
		did, wait, err := s.Repair(&x)
		if err != nil {
			t.Fatal(err)
		}
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if needs != (did == store.RepairQueued) || did == store.RepairNone {
			t.Fatalf("repair %d, needs a copy: %v, of %q", did, needs, x.Texts)
		}
		queued = queued || needs
	}
	x := examine(t, s, n)
	t.Fatalf("differs after eight repairs: %q", x.Texts)
	return false
}

// harm is one fault in the rows of DID 1 or 2, which Examine must name.
type harm struct {
	name   string
	n      int
	do     func(d surgeon)
	report string
	queued bool // only another copy repairs it
}

var harms = []harm{
	{"record lost", 1, func(d surgeon) { d.delete(d.record(1, "app.test.a/1")) },
		"the records make the root", true},
	{"only record lost", 2, func(d surgeon) { d.delete(d.record(2, "app.test.a/1")) },
		"the records make the root", true},
	{"record too many", 1, func(d surgeon) {
		d.set(d.record(1, "app.test.a/9"), d.get(d.record(1, "app.test.a/1")))
	}, "the records make the root", true},
	{"record of another CID", 2, func(d surgeon) {
		d.editRecord(2, "app.test.a/1", func(r *store.RecordRow) { r.CID[3] ^= 1 })
	}, "record app.test.a/1: its body hashes to", true},
	// The body and its CID agree, so that only the root tells.
	{"record replaced", 2, func(d surgeon) {
		body := storetest.Text("forged")
		d.editRecord(2, "app.test.a/1", func(r *store.RecordRow) { r.CID = repo.HashCID(body) })
		d.set(d.numbered(store.SpaceBlock, 2, 0), body)
	}, "the records make the root", true},
	{"record of another block", 1, func(d surgeon) {
		d.editRecord(1, "app.test.b/1", func(r *store.RecordRow) { r.Block = 0 })
	}, "record app.test.b/1: its body hashes to", true},
	{"record of a superseded block", 1, func(d surgeon) {
		d.editRecord(1, "app.test.b/1", func(r *store.RecordRow) { r.Block = 1 })
	}, "record app.test.b/1: its body hashes to", true},
	{"record of a block that was never assigned", 1, func(d surgeon) {
		d.editRecord(1, "app.test.b/1", func(r *store.RecordRow) { r.Block = 1 << 31 })
	}, "record app.test.b/1: block 2147483648 is missing", true},
	{"record hidden", 1, func(d surgeon) {
		d.editRecord(1, "app.test.b/1", func(r *store.RecordRow) { r.Hidden = true })
	}, "record app.test.b/1: hidden is true", true},
	{"record shelved", 1, func(d surgeon) {
		d.editRecord(1, "app.test.b/1", func(r *store.RecordRow) { r.Shelved = true })
	}, "record app.test.b/1: is shelved, by its filter it is shown", true},
	{"body changed", 1, func(d surgeon) { d.set(d.numbered(store.SpaceBlock, 1, 0), storetest.Text("z")) },
		"record app.test.a/1: its body hashes to", true},
	{"body lost", 1, func(d surgeon) { d.delete(d.numbered(store.SpaceBlock, 1, 0)) },
		"record app.test.a/1: block 0 is missing", true},
	{"superseded body lost", 1, func(d surgeon) { d.delete(d.numbered(store.SpaceBlock, 1, 1)) },
		"3 blocks, its row says 4", false},
	{"block too many", 2, func(d surgeon) {
		d.set(d.numbered(store.SpaceBlock, 2, 9), storetest.Text("z"))
	}, "the next block number is 1", false},
	{"ref lost", 1, func(d surgeon) { d.delete(d.numbered(store.SpaceRef, 1, 0)) },
		"block 0: 2 records refer to it and it has no references", false},
	{"ref wrong", 1, func(d surgeon) { d.set(d.numbered(store.SpaceRef, 1, 0), []byte{3}) },
		"block 0: its references are 3", false},
	{"ref too many", 2, func(d surgeon) { d.set(d.numbered(store.SpaceRef, 2, 0), []byte{1}) },
		"block 0: its references are 1", false},
	{"collection lost", 1, func(d surgeon) { d.delete(d.collection(1, "app.test.a")) },
		"collection app.test.a: 2 records, its count is 0", false},
	{"collection wrong", 1, func(d surgeon) { d.set(d.collection(1, "app.test.a"), []byte{9}) },
		"collection app.test.a: 2 records, its count is 9", false},
	{"records of the row", 2, func(d surgeon) { d.put(2, func(r *store.Repo) { r.Records = 5 }) },
		"1 records, its row says 5", false},
	{"blocks of the row", 2, func(d surgeon) { d.put(2, func(r *store.Repo) { r.Blocks = 5 }) },
		"1 blocks, its row says 5", false},
	{"collections of the row", 1, func(d surgeon) { d.put(1, func(r *store.Repo) { r.Collections = 7 }) },
		"2 collections, its row says 7", false},
	{"hidden records of the row", 1, func(d surgeon) { d.put(1, func(r *store.Repo) { r.Hidden = 0 }) },
		"1 records of no valid path, its row says 0", false},
	{"commit of another root", 2, func(d surgeon) {
		d.put(2, func(r *store.Repo) { r.Data[4] ^= 1 })
	}, "are not those of its commit", true},
}

// TestExamine damages one row at a time. Examine names it, the other repository has no difference,
// and after the repair and the copy that it asks for nothing differs, also for Check.
func TestExamine(t *testing.T) {
	t.Parallel()
	for _, row := range harms {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s, w := outpatient(t)
			row.do(surgeon{t, s})
			store.ForgetCaches(s)
			x := examine(t, s, row.n)
			if said := strings.Join(x.Texts, "\n"); !strings.Contains(said, row.report) {
				t.Errorf("want %q:\n%s", row.report, said)
			}
			if x := examine(t, s, 3-row.n); x.Differences > 0 {
				t.Errorf("the other repository: %q", x.Texts)
			}
			if queued := healed(t, s, row.n); queued != row.queued {
				t.Errorf("queued: %v, want %v", queued, row.queued)
			}
			if r := (surgeon{t, s}).repo(row.n); row.queued != (r.State == store.StatePending && r.Torn) {
				t.Errorf("is %s, torn: %v", r.State, r.Torn)
			}
			if row.queued {
				w.copied(t, s, storetest.DID(row.n))
			}
			if _, err := s.RepairCounters(func() error { return nil }); err != nil {
				t.Fatal(err)
			}
			if x := examine(t, s, row.n); x.Differences > 0 || !x.Tree {
				t.Errorf("after the repair: %q", x.Texts)
			}
			storetest.Check(t, s)
			w.compare(t, s)
		})
	}
}

// compare compares the stored records with the true ones.
func (w *world) compare(t *testing.T, s *store.Store) {
	t.Helper()
	for did, m := range w.records {
		r, err := s.Repo(did)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Paths() {
			collection, rkey, ok := repo.SplitPath([]byte(p))
			if !ok {
				continue
			}
			rec, err := s.Record(&r, string(collection), string(rkey))
			if err != nil || !bytes.Equal(rec.Record, m[p]) {
				t.Errorf("record %s of %s: %x, %v", p, did, rec.Record, err)
			}
		}
	}
}

// TestExamineCounters: counters that no row makes are corrected, in memory and on disk.
func TestExamineCounters(t *testing.T) {
	t.Parallel()
	s, _ := outpatient(t)
	d := surgeon{t, s}
	d.put(2, func(r *store.Repo) { r.Mark = store.MarkReturning })
	store.ForgetCaches(s)
	got, err := s.RepairCounters(func() error { return nil })
	if err != nil || len(got) != 1 || got[0] != "counter returning is 0, the rows make 1" {
		t.Errorf("differences %q, %v", got, err)
	}
	storetest.Check(t, s)
	if got, err := s.RepairCounters(func() error { return nil }); err != nil || len(got) != 0 {
		t.Errorf("once more: %q, %v", got, err)
	}
}

// TestExamineStale: a change between two pages ends an examination, and a change after it prevents
// the repair.
func TestExamineStale(t *testing.T) {
	t.Parallel()
	s, w := outpatient(t)
	big := storetest.Records{}
	for n := range 5000 {
		big["app.test.a/"+storetest.Rev(n)] = storetest.Text("text")
	}
	w.importRepo(t, s, storetest.DID(3), big)
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	pauses := 0
	x, err := s.Examine(t.Context(), storetest.DID(3), func(context.Context) error {
		pauses++
		return nil
	})
	if err != nil || x.Differences > 0 || !x.Tree || pauses != 1 || x.Records != 5000 {
		t.Errorf("%d differences of %d records, tree: %v, %d pauses, %v", x.Differences, x.Records,
			x.Tree, pauses, err)
	}
	_, err = s.Examine(t.Context(), storetest.DID(3), func(context.Context) error {
		delete(big, "app.test.a/"+storetest.Rev(4000))
		w.copied(t, s, storetest.DID(3))
		return nil
	})
	if !errors.Is(err, store.ErrStale) {
		t.Errorf("changed in between: %v", err)
	}
	d := surgeon{t, s}
	d.set(d.numbered(store.SpaceBlock, 2, 0), storetest.Text("z"))
	x = examine(t, s, 2)
	w.copied(t, s, storetest.DID(2))
	if did, _, err := s.Repair(&x); did != store.RepairNone || !errors.Is(err, store.ErrStale) {
		t.Errorf("changed before the repair: %d, %v", did, err)
	}
	if healed(t, s, 2) {
		w.copied(t, s, storetest.DID(2))
	}
	storetest.Check(t, s)
}

// TestExamineNothing: a repository without a copy has nothing to examine, and one whose records are
// not the whole tree has no root to compare.
func TestExamineNothing(t *testing.T) {
	t.Parallel()
	s, _ := outpatient(t)
	if x := examine(t, s, 9); x.Repo.Ordinal != 0 || x.Differences > 0 {
		t.Errorf("unknown: %+v", x)
	}
	add(t, s, storetest.DID(4))
	if x := examine(t, s, 4); x.Repo.Ordinal != 0 || x.Differences > 0 {
		t.Errorf("never imported: %+v", x)
	}
	for name, change := range map[string]func(r *store.Repo){
		"torn":     func(r *store.Repo) { r.Torn = true },
		"lacking":  func(r *store.Repo) { r.Lacks = true },
		"unproven": func(r *store.Repo) { r.Verified = store.VerifiedOps },
	} {
		was := (surgeon{t, s}).repo(2)
		edit(t, s, storetest.DID(2), func(_ *store.Batch, r *store.Repo) error {
			change(r)
			r.Data = repo.HashCID([]byte(name))
			r.Commit = storetest.Commit(r.DID, r.Rev, r.Data)
			return nil
		})
		if x := examine(t, s, 2); x.Tree || x.Differences > 0 || x.Records != 1 {
			t.Errorf("%s: tree %v, %q", name, x.Tree, x.Texts)
		}
		edit(t, s, storetest.DID(2), func(_ *store.Batch, r *store.Repo) error {
			r.Torn, r.Lacks, r.Verified = was.Torn, was.Lacks, was.Verified
			r.Data, r.Commit = was.Data, was.Commit
			return nil
		})
	}
	storetest.Check(t, s)
}
