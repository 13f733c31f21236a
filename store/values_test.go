package store_test

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func testCID() repo.CID { return repo.HashCID([]byte("x")) }

// fullRepo returns a row with every field set.
func fullRepo() store.Repo {
	return store.Repo{
		State: store.StateResync, Status: store.StatusDeactivated, Tracked: store.ByNetwork, Attempt: 5, Verified: store.VerifiedHashes,
		Ordinal: 1<<40 - 1, NextBlock: 1<<32 - 1, Rev: "3kaaaaaaaaaaa", Data: testCID(), Commit: []byte{1, 2, 3}, Records: 10, Blocks: 9,
		PDS: "https://pds.test", Handle: "a.test", Key: "zQ3sh",
		Pending: store.PendingKey{Host: 1, Priority: 2, Enqueue: 3},
		Retry:   store.Retry{Kind: store.Transport, Count: 4, Next: 1748693296, Since: 1748690000, Error: "no route"},
		SeenRev: "3kb", Missing: 2, Updated: 1748693290,
		AccountTime: 1748693296000001, IdentityTime: 1748693296000002, Resolved: 1748693291, Breaks: 6, Broken: 1748693292, Recheck: true,
		Listed: 1<<32 - 1, Hidden: 7, Collections: 8, Torn: true, Filter: 3, Sweep: true, Lacks: true, Shelved: 11, Asked: 12, Lapsed: 13,
		FutureDue: 1_700_000_007, TornRev: "3kc",
		Told: store.ConditionFailing, ToldKind: store.Transport, ToldStatus: store.StatusDeactivated,
		Origin: store.OriginRelay, AccountSource: 0xfedcba98, Mark: store.MarkReturning, Withheld: true, Charged: 120_000, ChargedAt: 1748693294,
	}
}

func directSource() store.Source {
	return store.Source{URL: "wss://a.test", PDS: true, Removed: true, Direct: true}
}

func fullProgress() store.Progress {
	return store.Progress{At: 1748693296000001, Dense: 64, Owed: true}
}

func entries() map[string]store.Entry {
	did := store.AppendDID(nil, plc)
	return map[string]store.Entry{
		"entry commit": {Kind: store.EntryCommit, Time: 1748693296000001, DID: did, Live: true, Rev: "3kaaaaaaaaaaa", Ordinal: 7,
			Ops: []store.EntryOp{{Action: store.Create, Path: []byte("a.b.c/1"), Block: 4}, {Action: store.Delete, Path: []byte("a.b.c/2")}}},
		"entry import":  {Kind: store.EntryImport, Time: 1748693296000001, DID: did, Rev: "3kaaaaaaaaaaa", Ordinal: 7, Count: 1 << 20},
		"entry relist":  {Kind: store.EntryRelist, Time: 1748693296000001, DID: did, Rev: "3kaaaaaaaaaaa", Ordinal: 7, First: 1 << 20, Count: 3},
		"entry account": {Kind: store.EntryAccount, Time: 1748693296000001, DID: did, Status: store.StatusDeleted},
		"entry repo": {Kind: store.EntryRepo, Time: 1748693296000001, DID: did, Rev: "3kaaaaaaaaaaa",
			Condition: store.ConditionFailing, Reason: store.Transport, Since: 1748693200, Next: 1748693356},
		"entry identity": {Kind: store.EntryIdentity, Time: 1748693296000001, DID: did, Handle: "a.test", PDS: "https://pds.test"},
	}
}

// listing returns a row whose ops have rising, repeated and explicit blocks.
func listing() (row []byte, ops []store.ListingOp) {
	ops = []store.ListingOp{{"a.b.c/1", 0}, {"a.b.c/2", 1}, {"a.b.d/1", 7}, {"a.b.d/10", 0}, {"a.b.d/11", 1}}
	row = []byte{1}
	var prev store.ListingOp
	for i, op := range ops {
		row = store.AppendListingOp(row, []byte(prev.Path), []byte(op.Path), op.Block, i == 0 || op.Block != prev.Block+1)
		prev = op
	}
	return row, ops
}

func fullTotal() store.Total {
	return store.Total{Repos: 300, Records: 1 << 40, Day: 20788,
		Arrived: store.Arrivals{Created: 5, Updated: 6, Deleted: 1 << 33}}
}

func codec(t testing.TB) (func(any) ([]byte, error), func([]byte, any) error) {
	t.Helper()
	encode, decode, err := store.Codec()
	if err != nil {
		t.Fatal(err)
	}
	return encode, decode
}

type namedRow struct {
	name  string
	value any
}

// otherRows returns rows that have one form each.
func otherRows() []namedRow {
	return []namedRow{
		{"host", store.HostRow{Banned: true, Limits: store.HostLimits{Concurrency: 1, PerSecond: 2, PerHour: 3, PerDay: 4}, Bytes: 5, Repos: 6,
			Error: "no route", Failing: 1748693290, FirstSeen: 1748693291, LastSeen: 1748693292, ErrorAt: 1748693293}},
		{"selection", store.SelectionRow{Full: true, All: true, Signals: []string{"a.b.*"},
			Collections: []string{"a.b.c"}, Before: 3}},
		{"filter in force", store.InForceRow{Version: 1<<32 - 1, Excludes: []string{plc}, Readmitted: 3, Widened: 4}},
		{"crawl source", store.CrawlSource{Kind: "hosts", URL: "https://relay.test", Removed: true}},
		{"crawl mark", store.CrawlMark{Filter: 1<<32 - 1, Ended: 1748693290, Pages: 2, Named: 3, Before: 4, Thin: 5,
			Cursor: "page 6"}},
		{"crawl mark empty", store.CrawlMark{}},
		{"reconciliation", store.Reconciliation{Stage: store.ReconcileReading, Cursor: "page 6"}},
		{"reconciliation requested", store.Reconciliation{}},
		{"reconciliation listed", store.Reconciliation{Stage: store.ReconcileListed}},
		{"reconciliation of all hosts", store.ReconcileHostsRow{Relay: "https://relay.test"}},
		{"reconciliation of all hosts begun", store.ReconcileHostsRow{Relay: "https://relay.test", Begun: true}},
		{"refilter cursor", store.RefilterCursor{Begun: true, After: plc}},
		{"refilter cursor requested", store.RefilterCursor{}},
		{"verify cursor", store.VerifyCursor{After: plc, Repos: 6, Records: 5, Unproven: 4, Damaged: 3,
			Differences: 7, First: "record a.b.c/d"}},
		{"verify cursor at the start", store.VerifyCursor{}},
		{"describe retry", store.DescribeRetry{Due: 1748693290, Tries: 2}},
		{"subscription", store.SubscriptionRow{Collections: []string{"a.b.*"}, DIDs: []string{plc}, Kinds: []string{"record"},
			Actions: []string{"create"}, Live: "true", Created: 1748693290, Share: "did"}},
		{"subscription to all", store.SubscriptionRow{}},
		{"subscription with a webhook", store.SubscriptionRow{Webhook: &store.WebhookRow{URL: "https://a.test/b", Secrets: [][]byte{{1, 2}, {3}},
			Events: 100, Requests: 4}}},
		{"subscription during a snapshot", store.SubscriptionRow{Begun: &store.BegunRow{Collections: []string{"a.b.*"}, DIDs: []string{plc}}}},
		{"subscription position", store.PositionRow{Steps: []uint64{5, 1, 1 << 40}}},
		{"subscription position after a snapshot", store.PositionRow{Steps: []uint64{5}, Numbered: 1<<52 + 7}},
		{"subscription position in a snapshot", store.PositionRow{Steps: []uint64{5}, Numbered: 1<<52 + 7, Snapshot: &store.SnapshotRow{
			End: 9, DID: plc, Ordinal: 3, Path: []byte("a.b.c/d"), Records: 4, Runs: []store.RecordRun{
				{DID: plc, Steps: []uint64{1<<52 + 5, 1}, Paths: [][]byte{[]byte("a.b.c/c"), []byte("a.b.c/d")}}}}}},
		{"subscription position at the end of a snapshot", store.PositionRow{Steps: []uint64{5}, Numbered: 1<<52 + 7, Snapshot: &store.SnapshotRow{
			End: 9, Read: true, Records: 4, Last: 1<<52 + 7}}},
		{"webhook state", store.WebhookStateRow{Failed: 10, Slowed: 2, Since: 1748693290001, Next: 1748693290002, Error: "HTTP 500",
			Parked: 1748693290003, Reason: "failing"}},
		{"maintenance", store.MaintenanceRow{Began: true, Needs: 2, Behind: []string{"backup"}, Next: true, Waiting: []string{"offload", "export"},
			Ended: 1748693290001, Succeeded: 1748693290000, Error: "no route", Failures: 3, Due: 1748693290002}},
		{"maintenance of an idle operation", store.MaintenanceRow{}},
		{"copies", store.CopiesRow{Copies: []store.CopyRow{
			{Kind: "backup", Destination: "s3://backups/cistern", Began: 1748693290003, Ended: 1748693290002, Succeeded: 1748693290001,
				Generation: "20250531T120810Z-0123456789abcdef", Bytes: 1 << 33, Millis: 61_000, Error: "no space", Failures: 2},
			{Kind: "export", Destination: "/exports/a"}}}},
		{"segment", store.SegmentRow{Next: 9, Events: 7, Time: 1748693296000001, Epoch: "0123456789abcdef", Bytes: 1 << 24, Index: 1 << 12, Sum: make([]byte, 32)}},
		{"ages", store.AgesRow{Age: 1, Wall: 1748693296000001, Bytes: 1 << 33, Marks: []store.AgeMark{{Age: 1, Next: 2, Bytes: 3}}}},
		{"ages with a snapshot", store.AgesRow{Age: 1, Anchors: []store.Anchor{{Age: 1, Head: 2}}}},
	}
}

// TestValuesGolden: the bytes on disk are those of the format's version. A change here is
// a change of the format: it needs a new version and a line in CHANGELOG.md.
func TestValuesGolden(t *testing.T) {
	t.Parallel()
	encode, _ := codec(t)
	var b strings.Builder
	put := func(name string, v []byte) { fmt.Fprintf(&b, "%s %x\n", name, v) }
	put("record", store.RecordRow{Block: 0x01020304, CID: testCID(), Rev: "3kaaaaaaaaaaa"}.Append(nil))
	put("record hidden", store.RecordRow{Hidden: true, Block: 1, CID: testCID()}.Append(nil))
	row, _ := listing()
	put("record shelved", store.RecordRow{Shelved: true, Block: 1, CID: testCID()}.Append(nil))
	put("listing", row)
	put("count", store.EncodeCount(258))
	v, err := encode(fullRepo())
	if err != nil {
		t.Fatal(err)
	}
	put("repo", v)
	if v, err = encode(store.Repo{State: store.StatePending}); err != nil {
		t.Fatal(err)
	}
	put("repo empty", v)
	if v, err = encode(store.Source{URL: "wss://a.test", PDS: true}); err != nil {
		t.Fatal(err)
	}
	put("source", v)
	if v, err = encode(directSource()); err != nil {
		t.Fatal(err)
	}
	put("source direct", v)
	if v, err = encode(fullProgress()); err != nil {
		t.Fatal(err)
	}
	put("progress", v)
	for _, row := range otherRows() {
		if v, err = encode(row.value); err != nil {
			t.Fatal(err)
		}
		put(row.name, v)
	}
	put("host counts", store.AppendHostCounts(nil, store.HostCounts{Accounts: 300, Queued: 2}))
	put("total", fullTotal().Append(nil))
	put("arrivals", store.AppendArrivals(nil, fullTotal().Arrived))
	for _, name := range []string{"entry commit", "entry import", "entry relist", "entry account", "entry identity", "entry repo"} {
		if v, err = encode(entries()[name]); err != nil {
			t.Fatal(err)
		}
		put(name, v)
	}
	const file = "testdata/values.golden"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
}

// TestValuesRead: the golden file has the bytes that stores on disk hold; they are read back.
func TestValuesRead(t *testing.T) {
	t.Parallel()
	_, decode := codec(t)
	golden, err := os.ReadFile("testdata/values.golden")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(golden)) {
		at := strings.LastIndexByte(line, ' ')
		name := line[:at]
		v, err := hex.DecodeString(strings.TrimSpace(line[at+1:]))
		if err != nil {
			t.Fatal(err)
		}
		var got, want any
		switch name {
		case "record":
			got, err = store.ParseRecordRow(v)
			want = store.RecordRow{Block: 0x01020304, CID: testCID(), Rev: "3kaaaaaaaaaaa"}
		case "record hidden":
			got, err = store.ParseRecordRow(v)
			want = store.RecordRow{Hidden: true, Block: 1, CID: testCID()}
		case "record shelved":
			got, err = store.ParseRecordRow(v)
			want = store.RecordRow{Shelved: true, Block: 1, CID: testCID()}
		case "listing":
			got, err = store.ReadListing(v)
			_, want = listing()
		case "count":
			continue
		case "host counts":
			got, err = store.ParseHostCounts(v)
			want = store.HostCounts{Accounts: 300, Queued: 2}
		case "total":
			got, err = store.ParseTotal(v)
			want = fullTotal()
		case "arrivals":
			got, err = store.ParseArrivals(v)
			want = fullTotal().Arrived
		case "repo", "repo empty":
			r := store.Repo{}
			err = decode(v, &r)
			got, want = r, map[string]store.Repo{"repo": fullRepo(), "repo empty": {State: store.StatePending}}[name]
		case "progress":
			p := store.Progress{}
			err = decode(v, &p)
			got, want = p, fullProgress()
		case "source direct":
			src := store.Source{}
			err = decode(v, &src)
			got, want = src, directSource()
		case "source":
			src := store.Source{}
			err = decode(v, &src)
			got, want = src, store.Source{URL: "wss://a.test", PDS: true}
		default:
			want = entries()[name]
			for _, row := range otherRows() {
				if row.name == name {
					want = row.value
				}
			}
			into := reflect.New(reflect.TypeOf(want))
			err = decode(v, into.Interface())
			got = into.Elem().Interface()
		}
		if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(store.Repo{}, store.EntryOp{}, store.AgeMark{}), cmpopts.EquateEmpty()); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
}

// TestRepoFieldsStored: every exported field of a row except its key comes back from disk,
// so that a new field without a tag is noticed.
func TestRepoFieldsStored(t *testing.T) {
	t.Parallel()
	encode, decode := codec(t)
	r := fullRepo()
	for i, v := 0, reflect.ValueOf(r); i < v.NumField(); i++ {
		if f := v.Type().Field(i); f.IsExported() && f.Name != "DID" && v.Field(i).IsZero() {
			t.Errorf("fullRepo does not set %s", f.Name)
		}
	}
	b, err := encode(r)
	if err != nil {
		t.Fatal(err)
	}
	var got store.Repo
	if err := decode(b, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, got, cmpopts.IgnoreUnexported(store.Repo{})); d != "" {
		t.Error(d)
	}
}

// TestValuesRefused: another version byte, missing bytes and bytes left over are corruption.
func TestValuesRefused(t *testing.T) {
	t.Parallel()
	encode, decode := codec(t)
	v, err := encode(fullRepo())
	if err != nil {
		t.Fatal(err)
	}
	row, _ := listing()
	record := store.RecordRow{Block: 1, CID: testCID()}.Append(nil)
	other := func(b []byte, first byte) []byte { return append([]byte{first}, b[1:]...) }
	for name, read := range map[string]func(b []byte) error{
		"repo":    func(b []byte) error { return decode(b, &store.Repo{}) },
		"entry":   func(b []byte) error { return decode(b, &store.Entry{}) },
		"record":  func(b []byte) error { _, err := store.ParseRecordRow(b); return err },
		"listing": func(b []byte) error { _, err := store.ReadListing(b); return err },
		"count":   func(b []byte) error { _, err := store.ParseCountValue(b); return err },
	} {
		rows := map[string][][]byte{
			"repo":    {nil, {}, {1}, other(v, 0), other(v, 2), v[:len(v)-1], append(v[:len(v):len(v)], 0)},
			"entry":   {nil, {1}, other(v, 2), {1, 0x80}},
			"record":  {nil, record[:len(record)-1], other(record, 0), other(record, 2), append([]byte{1, 3}, record[2:]...), append([]byte{1, 4}, record[2:]...)},
			"listing": {nil, other(row, 2), row[:len(row)-1], {1, 1}, {1, 1, 5, 1, 'a', 0}, {1, 2, 0, 0}, {1, 1, 0, 200, 'a'}, {1, 1, 0, 1, 'a', 0xff, 0xff, 0xff, 0xff, 0x7f}},
			"count":   {nil, {0}, {1, 1}, {0x80}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}},
		}[name]
		for _, b := range rows {
			if err := read(b); !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("%s %x: %v", name, b, err)
			}
		}
	}
}

// TestHostileText: text that comes from hosts is kept readable whatever its bytes are, cut
// in the middle of a letter too.
func TestHostileText(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	for i, text := range []string{"\xff\xfe", strings.Repeat("é", store.ErrorBytesMax), "a" + strings.Repeat("é", store.ErrorBytesMax), "\x00"} {
		did := storetest.DID(i + 1)
		r := add(t, s, did)
		r.Retry.Error = text
		b := s.NewBatch()
		b.ForgeRepo(&r)
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
		got, err := s.Repo(did)
		if err != nil {
			t.Errorf("%.20q: %v", text, err)
		}
		if len(got.Retry.Error) > store.ErrorBytesMax || got.Retry.Error != strings.ToValidUTF8(got.Retry.Error, "") {
			t.Errorf("%.20q: kept as %q", text, got.Retry.Error)
		}
	}
}

func FuzzParseRecordRow(f *testing.F) {
	f.Add(store.RecordRow{Block: 1, CID: testCID(), Rev: "3k"}.Append(nil))
	f.Add(store.RecordRow{Hidden: true}.Append(nil))
	f.Add(store.RecordRow{Shelved: true}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := store.ParseRecordRow(b)
		if err != nil {
			if !errors.Is(err, store.ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		if again := r.Append(nil); string(again) != string(b) {
			t.Errorf("%x is %+v, which is written as %x", b, r, again)
		}
	})
}

func FuzzListing(f *testing.F) {
	row, _ := listing()
	f.Add(row)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		ops, err := store.ReadListing(b)
		if err != nil && !errors.Is(err, store.ErrCorrupt) {
			t.Error(err)
		}
		row := []byte{1}
		prev := ""
		for _, op := range ops {
			row = store.AppendListingOp(row, []byte(prev), []byte(op.Path), op.Block, true)
			prev = op.Path
		}
		if again, err := store.ReadListing(row); err != nil || !cmp.Equal(again, ops) {
			t.Errorf("%x: %v, written again %v, %v", b, ops, again, err)
		}
	})
}

// TestPostingsGolden: runs of one id take one number, and runs that touch become one.
func TestPostingsGolden(t *testing.T) {
	t.Parallel()
	for want, runs := range map[string][][2]uint64{
		"0100":     {{64, 65}},
		"01010e0a": {{64, 80}, {85, 86}},
		"01010374": {{64, 66}, {66, 69}, {127, 128}},
	} {
		if row := store.AppendPostings(64, runs); hex.EncodeToString(row) != want {
			t.Errorf("%v: %x, want %s", runs, row, want)
		}
	}
}

func FuzzPostings(f *testing.F) {
	f.Add(store.AppendPostings(64, [][2]uint64{{64, 65}, {70, 80}, {127, 128}}))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		runs, err := store.ReadPostings(b, 64, 128)
		if err != nil && !errors.Is(err, store.ErrCorrupt) {
			t.Error(err)
		}
		last := uint64(64)
		for _, r := range runs {
			if r[0] < last || r[1] <= r[0] || r[1] > 128 {
				t.Fatalf("%x: %v", b, runs)
			}
			last = r[1]
		}
		if len(runs) == 0 {
			return
		}
		row := store.AppendPostings(64, runs)
		again, err := store.ReadPostings(row, 64, 128)
		if twice := store.AppendPostings(64, again); err != nil || string(twice) != string(row) {
			t.Errorf("%x: %v, written again %x, %v", b, runs, row, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	encode, decode := codec(f)
	seeds := []any{fullRepo(), store.Repo{}}
	for _, e := range entries() {
		seeds = append(seeds, e)
	}
	for _, v := range seeds {
		b, err := encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []func() any{func() any { return new(store.Repo) }, func() any { return new(store.Entry) }} {
			x, y := v(), v()
			if err := decode(b, x); err != nil {
				if !errors.Is(err, store.ErrCorrupt) {
					t.Error(err)
				}
				continue
			}
			again, err := encode(x)
			if err != nil {
				t.Fatalf("%x: %+v cannot be written: %v", b, x, err)
			}
			if err := decode(again, y); err != nil || !cmp.Equal(x, y, cmpopts.IgnoreUnexported(store.Repo{}, store.EntryOp{}, store.AgeMark{}), cmpopts.EquateEmpty()) {
				t.Errorf("%x: %+v, written again %+v, %v", b, x, y, err)
			}
		}
	})
}
