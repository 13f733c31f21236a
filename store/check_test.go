package store_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// patient returns a store with a row of every kind to be damaged: DID 1 is imported, with a block
// that two records share, a hidden record and a superseded block; DID 2 is imported; DID 3 is
// pending; DID 4 waits for its retry; DID 5 is known and was wiped.
func patient(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(store.Chunked(store.Options{FS: vfs.NewMem(), Dir: "db", SmallBytes: 1, GroupAge: time.Hour}, 2, 3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w := newWorld()
	w.importRepo(t, s, storetest.DID(1), storetest.Records{"app.test.a/1": storetest.Text("same"), "app.test.a/2": storetest.Text("same"),
		"app.test.b/1": storetest.Text("old"), "no path": storetest.Text("hidden")})
	w.importRepo(t, s, storetest.DID(2), storetest.Records{"app.test.a/1": storetest.Text("x")})
	w.importRepo(t, s, storetest.DID(5), storetest.Records{"app.test.a/1": storetest.Text("y")})
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	edit(t, s, storetest.DID(1), func(b *store.Batch, r *store.Repo) error {
		body := storetest.Text("new")
		return b.Apply(r, true, r.Rev, []store.Op{{Path: []byte("app.test.b/1"), CID: repo.HashCID(body), Record: body}})
	})
	add(t, s, storetest.DID(3))
	add(t, s, storetest.DID(4))
	edit(t, s, storetest.DID(4), func(_ *store.Batch, r *store.Repo) error {
		r.State, r.Retry = store.StateResync, store.Retry{Kind: store.Transport, Count: 1, Next: 1 << 40}
		return nil
	})
	w.wipe(t, s, storetest.DID(5)) // last, so that no event is kept in memory
	storetest.Check(t, s)
	return s
}

// edit changes a repository's row in one batch.
func edit(t testing.TB, s *store.Store, did string, fn func(b *store.Batch, r *store.Repo) error) store.Repo {
	t.Helper()
	unlock := s.Lock(did)
	defer unlock()
	r, err := s.RepoOrNew(did)
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	if err := fn(b, &r); err != nil {
		t.Fatal(err)
	}
	b.ForgeRepo(&r)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	return r
}

// surgeon damages single rows.
type surgeon struct {
	t *testing.T
	s *store.Store
}

func (d surgeon) repo(n int) store.Repo {
	d.t.Helper()
	r, err := d.s.Repo(storetest.DID(n))
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

func (d surgeon) ordinal(n int) store.Ordinal { d.t.Helper(); return d.repo(n).Ordinal }

func (d surgeon) set(key, value []byte) {
	d.t.Helper()
	if err := store.SetRaw(d.s, key, value); err != nil {
		d.t.Fatal(err)
	}
}

func (d surgeon) get(key []byte) []byte {
	d.t.Helper()
	v, err := store.GetRaw(d.s, key)
	if err != nil {
		d.t.Fatalf("%x: %v", key, err)
	}
	return v
}

func (d surgeon) delete(key []byte) {
	d.t.Helper()
	d.get(key)
	if err := store.DeleteRaw(d.s, key); err != nil {
		d.t.Fatal(err)
	}
}

// put writes a repository's row and nothing else.
func (d surgeon) put(n int, fn func(r *store.Repo)) {
	d.t.Helper()
	r := d.repo(n)
	fn(&r)
	d.value(store.RepoKey(nil, r.DID), r)
}

func (d surgeon) value(key []byte, v any) {
	d.t.Helper()
	encode, _ := codec(d.t)
	b, err := encode(v)
	if err != nil {
		d.t.Fatal(err)
	}
	d.set(key, b)
}

// entry changes the log's entry at id.
func (d surgeon) entry(id uint64, fn func(e *store.Entry)) {
	d.t.Helper()
	_, decode := codec(d.t)
	var e store.Entry
	if err := decode(d.get(store.EventKey(nil, id)), &e); err != nil {
		d.t.Fatal(err)
	}
	fn(&e)
	d.value(store.EventKey(nil, id), e)
}

func (d surgeon) record(n int, path string) []byte {
	return store.RecordKey(nil, d.ordinal(n), []byte(path))
}

// editRecord changes a record's row.
func (d surgeon) editRecord(n int, path string, fn func(r *store.RecordRow)) {
	d.t.Helper()
	r, err := store.ParseRecordRow(d.get(d.record(n, path)))
	if err != nil {
		d.t.Fatal(err)
	}
	fn(&r)
	d.set(d.record(n, path), r.Append(nil))
}

func (d surgeon) numbered(space byte, n int, number uint32) []byte {
	return store.NumberedKey(nil, space, d.ordinal(n), number)
}

func (d surgeon) collection(n int, name string) []byte {
	return store.CollectionKey(nil, []byte(name), d.ordinal(n))
}

const noRepo = store.Ordinal(1 << 30)

// damage is one fault of a store, and what Check must report.
type damage struct {
	name   string
	do     func(d surgeon)
	report string
}

// The import of DID 1 has blocks 0 (shared by app.test.a/1 and /2), 1 (superseded) and 2
// (hidden); the live commit wrote block 3. The log: 1-3 its import, 4 that it is synced, 5 to 8 the
// other imports, 9 its commit, 10 that DID 4 is failing, 11 and 12 that DID 5 is deleted and gone.
var rowDamages = []damage{
	{"commit of another rev", func(d surgeon) { d.put(1, func(r *store.Repo) { r.Rev = storetest.Rev(9) }) }, "are not those of its commit"},
	{"commit of another DID", func(d surgeon) { c := d.repo(2).Commit; d.put(1, func(r *store.Repo) { r.Commit = c }) }, "are not those of its commit"},
	{"data without an ordinal", func(d surgeon) { d.put(3, func(r *store.Repo) { r.Records = 1 }) }, "but no ordinal"},
	{"an import without its listing", func(d surgeon) { d.put(2, func(r *store.Repo) { r.Listed = 0 }) },
		"its row has no listing"},
	{"fewer hidden rows", func(d surgeon) { d.put(1, func(r *store.Repo) { r.Hidden = 0 }) },
		"1 hidden rows, its row says 0"},
	{"fewer collections", func(d surgeon) { d.put(1, func(r *store.Repo) { r.Collections = 0 }) },
		"collections, its row says 0"},
	{"pending row lost", func(d surgeon) { d.delete(store.PendingRowKey(nil, d.repo(3).Pending)) }, "pending row of " + storetest.DID(3)},
	{"pending row of another", func(d surgeon) {
		d.set(store.PendingRowKey(nil, d.repo(3).Pending), store.AppendDID(nil, storetest.DID(4)))
	}, "pending row of " + storetest.DID(3)},
	{"pending row too many", func(d surgeon) {
		d.set(store.PendingRowKey(nil, store.PendingKey{Host: 7}), store.AppendDID(nil, storetest.DID(3)))
	}, "pending row {Host:7"},
	{"pending row without a repository", func(d surgeon) {
		d.set(store.PendingRowKey(nil, store.PendingKey{Host: 7}), store.AppendDID(nil, storetest.DID(99)))
	}, "pending row names repository " + storetest.DID(99)},
	{"retry row lost", func(d surgeon) { d.delete(store.RetryKey(nil, 1<<40, storetest.DID(4))) }, "retry row of " + storetest.DID(4)},
	{"retry row too many", func(d surgeon) { d.set(store.RetryKey(nil, 1, storetest.DID(4)), nil) }, "retry row at 1 names"},
	{"retry row without a repository", func(d surgeon) { d.set(store.RetryKey(nil, 1, storetest.DID(99)), nil) }, "retry row names repository " + storetest.DID(99)},
	{"owner row lost", func(d surgeon) { d.delete(store.OrdinalKey(nil, store.SpaceOwner, d.ordinal(1))) }, "owner row of " + storetest.DID(1)},
	{"owner row of another", func(d surgeon) {
		d.set(store.OrdinalKey(nil, store.SpaceOwner, d.ordinal(1)), store.AppendDID(nil, storetest.DID(2)))
	}, "owner row of " + storetest.DID(1)},
	{"owner row too many", func(d surgeon) {
		d.set(store.OrdinalKey(nil, store.SpaceOwner, noRepo), store.AppendDID(nil, storetest.DID(2)))
	}, "which has ordinal"},
	{"owner row without a repository", func(d surgeon) {
		d.set(store.OrdinalKey(nil, store.SpaceOwner, noRepo), store.AppendDID(nil, storetest.DID(99)))
	}, "names repository " + storetest.DID(99)},
	{"repository row lost", func(d surgeon) { d.delete(store.RepoKey(nil, storetest.DID(2))) }, "names repository " + storetest.DID(2)},
	{"repository row too many", func(d surgeon) { d.value(store.RepoKey(nil, storetest.DID(99)), store.Repo{State: store.StateIdle}) }, "counter repos is 5, the rows make 6"},
	{"state without its gauge", func(d surgeon) { d.put(2, func(r *store.Repo) { r.State = store.StateIdle }) }, "counter idle"},
	{"error kind without its gauge", func(d surgeon) { d.put(4, func(r *store.Repo) { r.Retry.Kind = store.Generic }) }, "counter error_generic"},
	{"counter on disk", func(d surgeon) { d.set(store.CountKey("records"), store.EncodeCount(77)) }, "is 77 on disk"},
	{"counter lost", func(d surgeon) { d.delete(store.CountKey("records")) }, "counter records"},
	{"counter malformed", func(d surgeon) { d.set(store.CountKey("records"), []byte{1}) }, "counter records"},
}

var bulkDamages = []damage{
	{"record lost", func(d surgeon) { d.delete(d.record(1, "app.test.a/1")) }, "records, its row says"},
	{"record too many", func(d surgeon) {
		d.set(d.record(1, "app.test.a/9"), d.get(d.record(1, "app.test.a/1")))
	}, "records, its row says"},
	{"record hidden", func(d surgeon) { d.editRecord(1, "app.test.a/1", func(r *store.RecordRow) { r.Hidden = true }) }, "hidden is true"},
	{"record not hidden", func(d surgeon) { d.editRecord(1, "no path", func(r *store.RecordRow) { r.Hidden = false }) }, "hidden is false"},
	{"record of another body", func(d surgeon) { d.editRecord(2, "app.test.a/1", func(r *store.RecordRow) { r.CID[3] ^= 1 }) }, "body hashes to"},
	{"record of another block", func(d surgeon) { d.editRecord(1, "app.test.a/1", func(r *store.RecordRow) { r.Block = 3 }) }, "body hashes to"},
	{"body changed", func(d surgeon) { d.set(d.numbered(store.SpaceBlock, 2, 0), storetest.Text("z")) }, "body hashes to"},
	{"body lost", func(d surgeon) { d.delete(d.numbered(store.SpaceBlock, 2, 0)) }, "app.test.a/1 of " + storetest.DID(2) + ": block 0 is missing"},
	{"superseded body lost", func(d surgeon) { d.delete(d.numbered(store.SpaceBlock, 1, 1)) }, "blocks, its row says"},
	{"block too many", func(d surgeon) { d.set(d.numbered(store.SpaceBlock, 2, 9), storetest.Text("z")) }, "the next block number is 1"},
	{"block that nothing holds", func(d surgeon) {
		d.delete(store.SupersededKey(nil, 9, d.ordinal(1), 1))
	}, "no record refers to it and it is not superseded"},
	{"block held and superseded", func(d surgeon) { d.set(store.SupersededKey(nil, 9, d.ordinal(2), 0), nil) }, "is superseded, and 1 records refer to it"},
	{"superseded in the future", func(d surgeon) { d.set(store.SupersededKey(nil, 1<<40, d.ordinal(1), 1), nil) }, "is not assigned yet"},
	{"superseded block that is not there", func(d surgeon) {
		d.set(store.SupersededKey(nil, 9, d.ordinal(1), 77), nil)
	}, "block 77 of " + storetest.DID(1) + ": is superseded and missing"},
	{"superseded twice", func(d surgeon) { d.set(store.SupersededKey(nil, 8, d.ordinal(1), 1), nil) }, "superseded twice"},
	{"ref lost", func(d surgeon) { d.delete(d.numbered(store.SpaceRef, 1, 0)) }, "it has no ref row"},
	{"ref wrong", func(d surgeon) { d.set(d.numbered(store.SpaceRef, 1, 0), []byte{3}) }, "its ref row has 3, 2 records refer to it"},
	{"ref too many", func(d surgeon) { d.set(d.numbered(store.SpaceRef, 2, 0), []byte{1}) }, "its ref row has 1"},
	{"collection lost", func(d surgeon) { d.delete(d.collection(1, "app.test.a")) }, "collection count app.test.a"},
	{"collection wrong", func(d surgeon) { d.set(d.collection(1, "app.test.a"), binary.AppendUvarint(nil, 9)) }, "is 9 instead of 2"},
	{"collection too many", func(d surgeon) { d.set(d.collection(1, "app.test.z"), []byte{1}) }, "collection rows: 4, the records make 3"},
	{"collection without a repository", func(d surgeon) { d.set(store.CollectionKey(nil, []byte("app.test.z"), noRepo), []byte{1}) }, "collection rows"},
	{"counts of the row", func(d surgeon) { d.put(2, func(r *store.Repo) { r.Records = 5 }) }, "1 records, its row says 5"},
	{"blocks of the row", func(d surgeon) { d.put(2, func(r *store.Repo) { r.Blocks = 5 }) }, "1 blocks, its row says 5"},
	{"stray record", func(d surgeon) {
		d.set(store.RecordKey(nil, noRepo, []byte("app.test.a/1")), d.get(d.record(2, "app.test.a/1")))
	}, "records of ordinal 1073741824: no repository has this ordinal"},
	{"stray block", func(d surgeon) { d.set(store.NumberedKey(nil, store.SpaceBlock, noRepo, 0), []byte{1}) }, "blocks of ordinal 1073741824: no repository has this ordinal"},
	{"stray ref", func(d surgeon) { d.set(store.NumberedKey(nil, store.SpaceRef, noRepo, 0), []byte{2}) }, "refs of ordinal 1073741824: no repository has this ordinal"},
	{"stray listing", func(d surgeon) { d.set(store.NumberedKey(nil, store.SpaceListing, noRepo, 0), []byte{1}) }, "listings of ordinal 1073741824: no repository has this ordinal"},
}

var logDamages = []damage{
	{"event lost", func(d surgeon) { d.delete(store.EventKey(nil, 4)) }, "event 5 follows the entry that ends before 4"},
	{"first event lost", func(d surgeon) { d.delete(store.EventKey(nil, 1)) }, "log begins at 4, its tail is 1"},
	{"last event lost", func(d surgeon) { d.delete(store.EventKey(nil, 12)) }, "log ends before 12, the next id is 13"},
	{"event counted twice", func(d surgeon) { d.set(store.EventKey(nil, 2), d.get(store.EventKey(nil, 4))) }, "event 2 follows"},
	{"time falls", func(d surgeon) { d.entry(4, func(e *store.Entry) { e.Time = 5 }) }, "event 4: time 5 is not after"},
	{"listing lost", func(d surgeon) { d.delete(d.numbered(store.SpaceListing, 1, 0)) }, "the listing has 0 ops, the entry says 3"},
	{"listing moved", func(d surgeon) {
		row := d.get(d.numbered(store.SpaceListing, 1, 0))
		d.delete(d.numbered(store.SpaceListing, 1, 0))
		d.set(d.numbered(store.SpaceListing, 1, 1), row)
	}, "a listing row starts at op 1, not 0"},
	{"listing cut", func(d surgeon) { d.entry(1, func(e *store.Entry) { e.Count = 4 }) }, "the listing has 3 ops, the entry says 4"},
	{"listing names no block", func(d surgeon) {
		row := store.AppendListingOp([]byte{1}, nil, []byte("app.test.a/1"), 9, true)
		d.set(d.numbered(store.SpaceListing, 2, 0), row)
	}, "event 5: block 9, which it names, is missing"},
	{"commit names no block", func(d surgeon) { d.entry(9, func(e *store.Entry) { e.Ops[0].Block = 99 }) }, "event 9: block 99, which it names, is missing"},
	{"a repository is told of as failing", func(d surgeon) {
		d.entry(4, func(e *store.Entry) { e.Condition, e.Reason = store.ConditionFailing, store.Generic })
	}, "repository " + storetest.DID(1) + ": the log tells"},
	{"a dropped repository is told of as synced", func(d surgeon) {
		d.entry(6, func(e *store.Entry) { e.DID = store.AppendDID(nil, storetest.DID(99)) })
	}, "repository " + storetest.DID(99) + ": the log tells"},
	{"consumers know better", func(d surgeon) {
		d.put(2, func(r *store.Repo) { r.Told = store.ConditionGone })
	}, "and consumers were told"},
}

// postings has the key of the postings of app.test.a in a chunk.
func (d surgeon) postings(bucket, first uint64) []byte {
	return store.PostingKey(nil, bucket, store.AppendList(nil, store.KindRecord, []byte("app.test.a")), first)
}

// Chunks have four ids: events 1 and 2 are those of app.test.a in the first, and 5 and 7 in the
// second; the fourth is open.
var postingDamages = []damage{
	{"postings lost", func(d surgeon) { d.delete(d.postings(0, 0)) }, "are missing"},
	{"postings lack an event", func(d surgeon) {
		d.set(d.postings(0, 0), store.AppendPostings(0, [][2]uint64{{1, 2}}))
	}, "lack event 2"},
	{"postings have another event", func(d surgeon) {
		d.set(d.postings(0, 0), store.AppendPostings(0, [][2]uint64{{1, 4}}))
	}, "have event 3, the log has not"},
	{"postings of an open chunk", func(d surgeon) {
		d.set(d.postings(1, 12), store.AppendPostings(12, [][2]uint64{{12, 13}}))
	}, "are of no chunk"},
	{"postings of another bucket", func(d surgeon) {
		d.set(d.postings(1, 0), store.AppendPostings(0, [][2]uint64{{1, 3}}))
	}, "are of no chunk"},
	{"postings malformed", func(d surgeon) { d.set(d.postings(0, 0), []byte{1, 0x80}) }, "postings behind event 0"},
}

// TestCheckFindsDamage damages one row at a time and expects a report: a check that never fails
// proves nothing.
func TestCheckFindsDamage(t *testing.T) {
	t.Parallel()
	for _, kind := range [][]damage{rowDamages, bulkDamages, logDamages, filterDamages, postingDamages} {
		for _, row := range kind {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				s := patient(t)
				row.do(surgeon{t, s})
				var said []string
				n, err := s.Check(t.Context(), func(d string) { said = append(said, d) })
				if err != nil || n == 0 || n != len(said) || !strings.Contains(strings.Join(said, "\n"), row.report) {
					t.Errorf("%d differences, %v, want %q:\n%s", n, err, row.report, strings.Join(said, "\n"))
				}
			})
		}
	}
}

// TestCheckMalformed: rows that cannot be read end the check with an error or are reported;
// they never make it panic, whatever their length.
func TestCheckMalformed(t *testing.T) {
	t.Parallel()
	for space, name := range store.SpaceNames {
		for _, row := range []struct{ key, value []byte }{
			{[]byte{space}, nil},                // a key of its prefix only
			{[]byte{space, 1, 2, 3}, []byte{1}}, // a key that ends too early
			// an ordinal's key with a value of one byte
			{append([]byte{space}, make([]byte, 5)...), []byte{1}},
		} {
			t.Run(fmt.Sprintf("%s/%x", name, row.key), func(t *testing.T) {
				t.Parallel()
				s := patient(t)
				surgeon{t, s}.set(row.key, row.value)
				n, err := s.Check(t.Context(), func(string) {})
				switch name { // rows with names, from which no other row derives
				case "meta", "counts", "hosts", "host_names", "crawls":
					return
				}
				if err == nil && n == 0 {
					t.Error("was not noticed")
				}
			})
		}
	}
}
