package deliver_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/store"
)

// nextOf returns the next event from id on that parameters want, 0 if they want no later event.
func nextOf(events []store.Event, from uint64, collections, kinds string) uint64 {
	for id := from; id <= uint64(len(events)); id++ {
		if ev := &events[id-1]; ev.Kind != 0 && wants(ev, collections, "", kinds, "", "") {
			return id
		}
	}
	return 0
}

// TestStreamSparse: a stream of few collections that replays the log reads only their events until
// it is near the head, and gets them all. A change of its filter holds from the id that the answer
// names, wherever the pages end.
func TestStreamSparse(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	events := mixed(rnd, 60_000)
	for i := range events {
		// From time to time a run of events that the filters do not want.
		if events[i].Kind == store.KindRecord && i/3000%2 == 0 {
			events[i].Collection = []byte("app.test.b.c")
		}
	}
	log := delivertest.NewLog(events...)
	srv := serveLog(t, log, deliver.Options{PageBytes: 3000})
	for _, row := range []struct{ collections, kinds, then string }{
		{"app.test.a", "record", "com.test.*"},
		{"com.test.*", "record,account", "app.test.a"},
		{"none.at.all", "record,identity", "app.test.b"},
	} {
		from := uint64(1 + rnd.IntN(5000))
		ws := delivertest.Follow(t, srv.URL, fmt.Sprintf("?cursor=%d&collections=%s&kinds=%s", from, row.collections, row.kinds))
		expect := func(m delivertest.Message, collections, kinds string) {
			t.Helper()
			if want := nextOf(events, from, collections, kinds); m.ID != want {
				t.Fatalf("%s from %d: got %d, want %d", collections, from, m.ID, want)
			}
			from = m.ID + 1
		}
		for range 1000 {
			if nextOf(events, from, row.collections, row.kinds) == 0 {
				break
			}
			expect(delivertest.Next(t, ws), row.collections, row.kinds)
		}
		if err := ws.WriteJSON(map[string]any{"type": "update", "collections": []string{row.then}, "kinds": []string{"record"}}); err != nil {
			t.Fatal(err)
		}
		for {
			m := delivertest.Next(t, ws)
			if m.Type == "updated" {
				if want := nextOf(events, from, row.collections, row.kinds); m.ID < from || want > 0 && want < m.ID {
					t.Fatalf("the update holds from %d, %d was expected, wanted by the former filter: %d", m.ID, from, want)
				}
				from = m.ID
				break
			}
			expect(m, row.collections, row.kinds)
		}
		for nextOf(events, from, row.then, "record") > 0 {
			expect(delivertest.Next(t, ws), row.then, "record")
		}
		_ = ws.Close()
	}
	if reads, sparse := log.Readings(); sparse == 0 || reads > 3*60_000/(3000/250) {
		t.Errorf("%d sparse readings, %d readings", sparse, reads)
	}
}

// TestWholeStreamsShare: a stream whose filter leaves out no records by kind or collection reads the
// pages that all share.
func TestWholeStreamsShare(t *testing.T) {
	t.Parallel()
	log := delivertest.NewLog(delivertest.Identities(40_000)...)
	srv := serveLog(t, log, deliver.Options{})
	for _, query := range []string{"?cursor=1", "?cursor=1&kinds=record,identity", "?cursor=39000&collections=app.test.a"} {
		ws := delivertest.Follow(t, srv.URL, query)
		delivertest.Next(t, ws)
		_ = ws.Close()
	}
	if _, sparse := log.Readings(); sparse > 0 {
		t.Errorf("%d sparse readings", sparse)
	}
}

// TestStreamSkipsBackfills: a stream that wants live events only does not read the events of a
// backfill before it gets to them, however many, and gets all the others.
func TestStreamSkipsBackfills(t *testing.T) {
	t.Parallel()
	events := delivertest.Posts(20_000)
	var live []uint64
	for i := range events {
		events[i].Live = i%10_000 < 2 || i == len(events)-1
		if events[i].Live {
			live = append(live, uint64(i+1))
		}
	}
	log := delivertest.NewLog(events...)
	srv := serveLog(t, log, deliver.Options{PageEvents: 100})
	ws := delivertest.Follow(t, srv.URL, "?cursor=1&live=true")
	for _, want := range live {
		if m := delivertest.Next(t, ws); m.ID != want {
			t.Fatalf("got %d, want %d", m.ID, want)
		}
	}
	if log.Reads > 6 { // of 200 pages: one from each run of live events, and the check of the cursor
		t.Errorf("%d readings", log.Reads)
	}
}
