package store_test

import (
	"strings"
	"testing"

	"cistern/store"
	"cistern/store/storetest"
)

// livePatient returns a store to be damaged: DID 1 is draining with two buffered commits and was
// relisted (ops 3 and 4 of its listings); DID 2 is pending with one; there are a cursor and a
// source.
func livePatient(t *testing.T) *store.Store {
	t.Helper()
	s := patient(t)
	w := newWorld()
	w.importRepo(t, s, storetest.DID(11), storetest.Records{"app.test.a/1": storetest.Text("x"), "no path": storetest.Text("y"),
		"app.test.a/2": storetest.Text("z")})
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	setStatus(t, s, storetest.DID(11), store.StatusActive)
	edit(t, s, storetest.DID(11), func(b *store.Batch, r *store.Repo) error {
		b.Buffer(r, storetest.Rev(7), []byte("seven"))
		b.Buffer(r, storetest.Rev(8), []byte("eight"))
		r.State = store.StateDraining
		return nil
	})
	add(t, s, storetest.DID(12))
	buffer(t, s, storetest.DID(12), "m", 9)
	write(t, s, func(b *store.Batch) {
		b.SetCursor(firehose, at(5))
		b.PutSource(store.Source{URL: firehose})
	})
	storetest.Check(t, s)
	return s
}

func bufferKey(did, rev int) []byte {
	return store.BufferKey(nil, storetest.DID(did), storetest.Rev(rev))
}

func encoded(t testing.TB, row any) []byte {
	encode, _ := codec(t)
	v, err := encode(row)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func position(t testing.TB, steps ...uint64) []byte {
	return encoded(t, store.PositionRow{Steps: steps})
}

var liveDamages = []damage{
	{"buffered commit lost", func(d surgeon) { d.delete(bufferKey(11, 8)) }, "1 commits of 5 bytes"},
	{"all buffered commits lost", func(d surgeon) { d.delete(bufferKey(12, 9)) }, "is in memory and not on disk"},
	{"buffered commit cut", func(d surgeon) { d.set(bufferKey(11, 8), []byte("e")) }, "2 commits of 6 bytes"},
	{"buffered commit too many", func(d surgeon) { d.set(bufferKey(11, 9), nil) }, "3 commits of 10 bytes"},
	{"buffered commit without a repository", func(d surgeon) { d.set(bufferKey(99, 9), nil) }, "the repository has no row"},
	{"draining said to be synced", func(d surgeon) { d.put(11, func(r *store.Repo) { r.State = store.StateSynced }) }, "is synced with 2 buffered commits"},
	{"synced said to be draining", func(d surgeon) { d.put(2, func(r *store.Repo) { r.State = store.StateDraining }) }, "is draining with 0 buffered commits"},
	{"count of buffered commits", func(d surgeon) { d.set(store.CountKey("buffered"), store.EncodeCount(7)) }, "counter buffered"},
	{"count of draining repositories", func(d surgeon) { d.set(store.CountKey("draining"), store.EncodeCount(7)) }, "counter draining"},
	{"cursor another", func(d surgeon) { d.set(store.CursorKey(firehose), store.EncodeCount(6)) }, "is 6 on disk and 5 in memory"},
	{"cursor lost", func(d surgeon) { d.delete(store.CursorKey(firehose)) }, "is in memory and not on disk"},
	{"cursor too many", func(d surgeon) { d.set(store.CursorKey(mirror), store.EncodeCount(6)) }, "is 6 on disk and 0 in memory"},
	{"cursor negative", func(d surgeon) { d.set(store.CursorKey(firehose), store.EncodeCount(-1)) }, "store is corrupt"},
	{"source unreadable", func(d surgeon) { d.set(store.SourceKey(firehose), []byte{1, 0xff}) }, "source \"wss://relay.test\""},
	{"progress unreadable", func(d surgeon) { d.set(store.ProgressKey(firehose), []byte{1, 0xff}) }, "progress of \"wss://relay.test\""},
	{"source under another URL", func(d surgeon) { d.set(store.SourceKey(mirror), d.get(store.SourceKey(firehose))) }, "holds \"wss://relay.test\""},
	{"mark under a key of no list", func(d surgeon) { d.set([]byte("khosts"), []byte{1, 0xa0}) }, "mark of list"},
	{"reconciliation of no listing", func(d surgeon) { d.set([]byte("C"), []byte{1, 0xa0}) }, "reconciliation of"},
	{"account of no DID to ask about", func(d surgeon) { d.set([]byte("Ddid"), []byte{1, 0xa0}) }, "describe retry of"},
	{"subscription unreadable", func(d surgeon) {
		d.set([]byte("Ea"), []byte{1, 0xff})
		d.set([]byte("Fa"), position(d.t, 1))
	}, "subscription \"a\": "},
	{"subscription with a wrong filter", func(d surgeon) {
		d.set([]byte("Ea"), encoded(d.t, store.SubscriptionRow{Live: "perhaps"}))
		d.set([]byte("Fa"), position(d.t, 1))
	}, "filter of subscription a"},
	{"subscription with a wrong share", func(d surgeon) {
		d.set([]byte("Ea"), encoded(d.t, store.SubscriptionRow{Share: "random"}))
		d.set([]byte("Fa"), position(d.t, 1))
	}, "share \"random\" of subscription a"},
	{"subscription without a position", func(d surgeon) { d.set([]byte("Ea"), []byte{1, 0xa0}) }, "has no position"},
	{"webhook without a secret", func(d surgeon) {
		d.set([]byte("Ea"), encoded(d.t, store.SubscriptionRow{Webhook: &store.WebhookRow{URL: "https://a.test", Events: 1, Requests: 1}}))
		d.set([]byte("Fa"), position(d.t, 1))
	}, "0 secrets"},
	{"state of no webhook", func(d surgeon) {
		d.set([]byte("Ea"), encoded(d.t, store.SubscriptionRow{}))
		d.set([]byte("Fa"), position(d.t, 1))
		d.set([]byte("Ha"), encoded(d.t, store.WebhookStateRow{Failed: 1}))
	}, "there is no such webhook"},
	{"empty state of a webhook", func(d surgeon) {
		d.set([]byte("Ea"), encoded(d.t, store.SubscriptionRow{Webhook: &store.WebhookRow{URL: "https://a.test", Secrets: [][]byte{{1}}, Events: 1, Requests: 1}}))
		d.set([]byte("Fa"), position(d.t, 1))
		d.set([]byte("Ha"), encoded(d.t, store.WebhookStateRow{}))
	}, "its state is empty"},
	{"state of a webhook unreadable", func(d surgeon) { d.set([]byte("Ha"), []byte("x")) }, "webhook of subscription \"a\": "},
	{"maintenance unreadable", func(d surgeon) { d.set([]byte("Iprune"), []byte("x")) }, "maintenance: operation \"prune\": "},
	{"maintenance without a name", func(d surgeon) { d.set([]byte("I"), encoded(d.t, store.MaintenanceRow{})) }, "maintenance: key \"I\""},
	{"maintenance needed without a run", func(d surgeon) {
		d.set([]byte("Iprune"), encoded(d.t, store.MaintenanceRow{Behind: []string{"backup"}}))
	}, "maintenance: operation \"prune\" has the state"},
	{"maintenance with negative needs", func(d surgeon) {
		d.set([]byte("Iprune"), encoded(d.t, store.MaintenanceRow{Began: true, Needs: -1}))
	}, "maintenance: operation \"prune\" needed others -1 times"},
	{"maintenance with negative failures", func(d surgeon) { d.set([]byte("Iprune"), encoded(d.t, store.MaintenanceRow{Failures: -1})) },
		"maintenance: operation \"prune\" needed others 0 times and failed -1 times"},
	{"copies unreadable", func(d surgeon) { d.set([]byte("acopies"), []byte("x")) }, "copies: meta copies: "},
	{"copies with a negative number", func(d surgeon) {
		d.set([]byte("acopies"), encoded(d.t, store.CopiesRow{Copies: []store.CopyRow{{Kind: "backup", Destination: "/b", Bytes: -1}}}))
	}, "copies: backup to /b has a negative number"},
	{"segment unreadable", func(d surgeon) { d.set(store.SegmentKey(nil, 1), []byte("x")) }, "segments: segment 1: "},
	{"segment without a sum", func(d surgeon) {
		d.set(store.SegmentKey(nil, 1), encoded(d.t, store.SegmentRow{Next: 2, Epoch: "a", Bytes: 1, Index: 1}))
	}, "segments: segment 1: sum"},
	{"segment of nothing", func(d surgeon) { d.set(store.SegmentKey(nil, 1), segmentRow(d.t, 1, 0)) }, "impossible numbers"},
	{"segment beyond the log", func(d surgeon) { d.set(store.SegmentKey(nil, 1), segmentRow(d.t, 1<<40, 0)) }, "one ends before event"},
	{"segments with a hole", func(d surgeon) {
		d.set(store.SegmentKey(nil, 1), segmentRow(d.t, 2, 0))
		d.set(store.SegmentKey(nil, 3), segmentRow(d.t, 4, 0))
	}, "segment of events 3 to 3, until time 0, does not follow the one up to event 1"},
	{"segments whose times fall", func(d surgeon) {
		d.set(store.SegmentKey(nil, 1), segmentRow(d.t, 2, 5))
		d.set(store.SegmentKey(nil, 2), segmentRow(d.t, 3, 4))
	}, "segment of events 2 to 2, until time 4, does not follow the one up to event 1, until time 5"},
	{"position of no subscription", func(d surgeon) { d.set([]byte("Fa"), position(d.t, 1)) }, "there is no such subscription"},
	{"position of steps that do not rise", func(d surgeon) {
		d.set([]byte("Ea"), []byte{1, 0xa0})
		d.set([]byte("Fa"), position(d.t, 1, 0, 1))
	}, "do not rise"},
	{"position beyond the log", func(d surgeon) {
		d.set([]byte("Ea"), []byte{1, 0xa0})
		d.set([]byte("Fa"), position(d.t, 1<<40))
	}, "the next event is"},
	{"hidden rows miscounted", func(d surgeon) { d.put(11, func(r *store.Repo) { r.Hidden = 0 }) }, "1 hidden rows, its row says 0"},
	{"collections miscounted", func(d surgeon) { d.put(11, func(r *store.Repo) { r.Collections = 2 }) }, "1 collections, its row says 2"},
	{"listings behind the next", func(d surgeon) { d.put(11, func(r *store.Repo) { r.Listed = 3 }) }, "lists ops 2 to 4, the next op is 3"},
	{"relist lost", func(d surgeon) { d.delete(d.numbered(store.SpaceListing, 11, 2)) }, "the listing has 0 ops, the entry says 2"},
	{"relist moved", func(d surgeon) {
		d.set(d.numbered(store.SpaceListing, 11, 3), d.get(d.numbered(store.SpaceListing, 11, 2)))
		d.delete(d.numbered(store.SpaceListing, 11, 2))
	}, "a listing row starts at op 1, not 0"},
	{"listing of no entry", func(d surgeon) {
		d.put(11, func(r *store.Repo) { r.Listed = 9 })
		d.set(d.numbered(store.SpaceListing, 11, 6), d.get(d.numbered(store.SpaceListing, 11, 2)))
	}, "listing rows, entries name"},
	{"cached row another", func(d surgeon) { r := d.repo(2); r.SeenRev = storetest.Rev(9); store.CacheRow(d.s, r) }, "cached row of " + storetest.DID(2)},
	{"cached row loaded from another", func(d surgeon) {
		r := d.repo(2)
		r.State = store.StateIdle
		store.CacheRow(d.s, r)
		d.put(2, func(*store.Repo) {})
	}, "cached row of " + storetest.DID(2)},
	{"cached row without a repository", func(d surgeon) { store.CacheRow(d.s, store.Repo{DID: storetest.DID(99)}) }, "cached row of " + storetest.DID(99)},
	{"cached count another", func(d surgeon) { store.CacheCount(d.s, d.ordinal(1), "app.test.b", 2) }, "cached count app.test.b"},
	{"cached count of nothing", func(d surgeon) { store.CacheCount(d.s, d.ordinal(1), "app.test.z", 1) }, "is 0 instead of 1"},
	{"next event another", func(d surgeon) { d.set(store.MetaKey("next"), []byte("3")) }, "next event is 3 after"},
	{"time of the newest event another", func(d surgeon) { d.set(store.MetaKey("time"), []byte("3")) }, "after time 3 on disk"},
	{"enqueue ids given again", func(d surgeon) { d.set(store.MetaKey("enqueue"), []byte("1")) }, "the next enqueue id is 1"},
	{"ordinals given again", func(d surgeon) { d.set(store.MetaKey("ordinal"), []byte("1")) }, "the next ordinal is 1"},
	{"host ids given again", func(d surgeon) { d.host(); d.set(store.MetaKey("host"), []byte("1")) }, "host pds.test: has id 00000001"},
	{"host without its name", func(d surgeon) { d.host(); d.delete(store.HostNameKey(1)) }, "name of host 00000001"},
}

// host makes a host known.
func (d surgeon) host() {
	d.t.Helper()
	if id, err := d.s.HostID("pds.test"); err != nil || id != 1 {
		d.t.Fatal(id, err)
	}
}

func TestCheckFindsLiveDamage(t *testing.T) {
	t.Parallel()
	for _, row := range liveDamages {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := livePatient(t)
			row.do(surgeon{t, s})
			var said []string
			n, err := s.Check(t.Context(), func(d string) { said = append(said, d) })
			if err != nil || n == 0 || n != len(said) || !strings.Contains(strings.Join(said, "\n"), row.report) {
				t.Errorf("%d differences, %v, want %q:\n%s", n, err, row.report, strings.Join(said, "\n"))
			}
		})
	}
}

func segmentRow(t testing.TB, next uint64, time int64) []byte {
	return encoded(t, store.SegmentRow{Next: next, Time: time, Epoch: "a", Bytes: 1, Index: 1, Sum: make([]byte, 32)})
}
