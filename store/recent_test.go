package store_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// gather reads the log by a function, from a cursor, and returns what it got. It stops after most
// events with an error of its own if stops is true.
func gather(read func(context.Context, uint64, int, func(*store.Event) error) (uint64, error), cursor uint64, ids, most int) (events []store.Event, next uint64, err error) {
	enough := errors.New("enough")
	next, err = read(context.Background(), cursor, ids, func(ev *store.Event) error {
		own := *ev
		own.Collection, own.Rkey, own.Record = bytes.Clone(ev.Collection), bytes.Clone(ev.Rkey), bytes.Clone(ev.Record)
		events = append(events, own)
		if most--; most == 0 {
			return enough
		}
		return nil
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return events, next, err
}

// TestRecentEqualsLog: after each step of a history, of commits, fetches, accounts that are hidden
// and shown, and prunings, the log read with the newest events from memory is the log on disk, from
// every cursor and for pages of any size.
func TestRecentEqualsLog(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	var s *store.Store
	reads, inMemory, skips := 0, 0, 0
	live, err := filter.CompileEvents(filter.EventsConfig{Live: "true"}) // nor repo events
	if err != nil {
		t.Fatal(err)
	}
	compare := func(name string) {
		if s == nil || name != "applied" && name != "synced" && name != "flipped" {
			return
		}
		head := s.Head()
		for range 4 {
			cursor := head - min(uint64(rng.IntN(8)), head)
			if rng.IntN(4) == 0 {
				cursor = uint64(rng.IntN(int(head) + 3))
			}
			ids, most := rng.IntN(5), rng.IntN(4)
			if rng.IntN(2) == 0 {
				ids, most = 1000, 0
			}
			got, next, err := gather(s.ReadLog, cursor, ids, most)
			// the page may end between memory and the engine
			for from := cursor; err == nil && next > from && (most == 0 || len(got) < most) && next-cursor < uint64(ids); {
				var rest []store.Event
				from = next
				rest, next, err = gather(s.ReadLog, next, ids-int(next-cursor), max(0, most-len(got)))
				got = append(got, rest...)
			}
			want, wantNext, werr := gather(s.ReadLogOnDisk, cursor, ids, most)
			reads++
			skipped := s.SkipUnwanted(live, cursor)
			skips += int(skipped - cursor)
			for _, ev := range want {
				if ev.ID < skipped && (ev.Live || ev.Kind != store.KindRecord && ev.Kind != store.KindRepo) {
					t.Fatalf("%s, from %d of %d: event %+v is skipped, but wanted", name, cursor, head, ev)
				}
			}
			if skipped > max(cursor, head+1) {
				t.Fatalf("%s, from %d of %d: skipped to %d", name, cursor, head, skipped)
			}
			if store.InMemory(s, cursor) {
				inMemory++
			}
			if next != wantNext || (err == nil) != (werr == nil) || !cmp.Equal(got, want) {
				t.Fatalf("%s, from %d of %d, %d ids and %d events: next %d %v, want %d %v: %s",
					name, cursor, head, ids, most, next, err, wantNext, werr, cmp.Diff(want, got))
			}
		}
	}
	for range 4 {
		s = nil
		opened := storetest.Open(t, store.Options{FS: vfs.NewMem(), Step: compare})
		s = opened
		r := &liveRun{t: t, s: s, script: newLiveScript(rng, 6, 150), at: newMarks(0), fetched: map[string]copying{}}
		r.play(0, -1)
		r.finish()
	}
	s = nil
	if inMemory < reads/20 || skips < reads/20 {
		t.Errorf("%d of %d reads are from memory, and %d ids were skipped", inMemory, reads, skips)
	}
}
