package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// TestSubscriptions: definitions and positions are kept by name, and end together.
func TestSubscriptions(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	full := store.Subscription{Name: "b", Created: 7, Filter: filter.EventsConfig{Collections: []string{"app.test.*"}, DIDs: []string{plc},
		Kinds: []string{"record"}, Actions: []string{"create", "delete"}, Live: "false"}, Share: "did",
		Begun: &filter.EventsConfig{DIDs: []string{plc, storetest.DID(2)}}}
	position := store.SubscriptionPosition{Next: 1, Outstanding: nil}
	write(t, s, func(b *store.Batch) {
		for _, sub := range []store.Subscription{full, {Name: "a"}, {Name: "c"}} {
			b.PutSubscription(sub)
			b.PutSubscriptionPosition(sub.Name, position)
		}
		b.DropSubscription("c")
	})
	got, err := s.Subscriptions()
	if d := cmp.Diff([]store.Subscription{{Name: "a"}, full}, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if p, err := s.SubscriptionPosition("b"); !reflect.DeepEqual(p, position) || err != nil {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := s.SubscriptionPosition("c"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	b := s.NewBatch()
	b.PutSubscription(store.Subscription{Name: "d", Share: "random"})
	if err := b.CommitSync(); err == nil {
		t.Error("an unknown share was written")
	}
	for _, bad := range []store.SubscriptionPosition{{}, {Next: 3, Outstanding: []uint64{3}}, {Next: 9, Outstanding: []uint64{4, 4}},
		{Next: 9, Outstanding: []uint64{5, 4}}, {Next: 9, Outstanding: []uint64{0}}, {Next: store.NumbersFrom}, {Next: 9, Numbered: 9},
		numbered(store.SubscriptionSnapshot{}, 0), numbered(store.SubscriptionSnapshot{}, 2, 2), numbered(store.SubscriptionSnapshot{}, 2, 1),
		numbered(store.SubscriptionSnapshot{}, 1, 10), numbered(store.SubscriptionSnapshot{Last: store.NumbersFrom + 1}),
		numbered(store.SubscriptionSnapshot{Read: true, Last: store.NumbersFrom + 3}, 1, 2),
		numbered(store.SubscriptionSnapshot{Read: true, Last: store.NumbersFrom + 10})} {
		b := s.NewBatch()
		b.PutSubscriptionPosition("a", bad)
		if err := b.CommitSync(); err == nil {
			t.Errorf("%+v was written", bad)
		}
	}
}

// numbered is a position within a snapshot, with these numbers outstanding.
func numbered(at store.SubscriptionSnapshot, numbers ...uint64) store.SubscriptionPosition {
	for _, n := range numbers {
		at.Outstanding = append(at.Outstanding, store.NumberedRecord{Number: store.NumbersFrom + n,
			RecordName: store.RecordName{DID: plc, Path: "app.test.a/1"}})
	}
	return store.SubscriptionPosition{Next: 1, Numbered: store.NumbersFrom + 9, Snapshot: &at}
}

// TestSubscriptionPositions: a position comes back as it was written.
func TestSubscriptionPositions(t *testing.T) {
	t.Parallel()
	s, rng := storetest.Open(t, store.Options{}), seeded(t)
	write(t, s, func(b *store.Batch) { b.PutSubscription(store.Subscription{Name: "a"}) })
	for range 200 {
		var want store.SubscriptionPosition
		for range rng.IntN(40) {
			want.Next += 1 + near(rng, 40)
			want.Outstanding = append(want.Outstanding, want.Next)
		}
		want.Next += 1 + near(rng, 40)
		if rng.IntN(2) == 0 {
			want.Numbered, want.Snapshot = someSnapshot(rng)
		}
		write(t, s, func(b *store.Batch) { b.PutSubscriptionPosition("a", want) })
		if got, err := s.SubscriptionPosition("a"); !reflect.DeepEqual(got, want) || err != nil {
			t.Fatalf("%+v became %+v, %v", want, got, err)
		}
	}
	write(t, s, func(b *store.Batch) { b.DropSubscription("a") }) // its position was beyond the log
}

// TestPositionsCheckedOnce: writing a position does not decode what it has just encoded.
func TestPositionsCheckedOnce(t *testing.T) { // alone, since it counts allocations
	s := storetest.Open(t, store.Options{})
	const records = 1000
	p := store.SubscriptionPosition{Next: 1, Numbered: store.NumbersFrom + records, Snapshot: &store.SubscriptionSnapshot{}}
	for n := range uint64(records) {
		p.Snapshot.Outstanding = append(p.Snapshot.Outstanding, store.NumberedRecord{Number: store.NumbersFrom + 1 + n,
			RecordName: store.RecordName{DID: storetest.DID(1), Path: "app.test.a/1"}})
	}
	b := s.NewBatch()
	if n := testing.AllocsPerRun(10, func() { b.PutSubscriptionPosition("a", p) }); n > records*3/2 {
		t.Errorf("%g allocations for %d outstanding records", n, records)
	}
}

// TestPositionsThatFall: a position whose ids or numbers do not rise is neither written nor read, and
// the error is short however many it has.
func TestPositionsThatFall(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	many := make([]uint64, 100_000)
	steps := make([]uint64, len(many))
	for i := range many {
		many[i], steps[i] = uint64(i)+1, 1
	}
	many[len(many)-1], steps[len(steps)-1] = 5, 0
	name := strings.Repeat("n", 10_000)
	for i, p := range []store.SubscriptionPosition{
		{Next: 1 << 20, Outstanding: many}, {}, {Next: 5, Outstanding: []uint64{5}}, {Next: store.NumbersFrom}, {Next: 1, Numbered: 7},
		numbered(store.SubscriptionSnapshot{}, 5, 5), numbered(store.SubscriptionSnapshot{}, 10), numbered(store.SubscriptionSnapshot{Last: store.NumbersFrom + 3, Read: true}, 2),
		numbered(store.SubscriptionSnapshot{Last: store.NumbersFrom + 3}), numbered(store.SubscriptionSnapshot{Last: 3, Read: true}),
	} {
		b := s.NewBatch()
		b.PutSubscriptionPosition(name, p)
		if err := b.CommitSync(); err == nil || len(err.Error()) > 300 {
			t.Errorf("position %d: %.400v", i, err)
		}
	}
	encode, _ := codec(t)
	row, err := encode(store.PositionRow{Steps: steps})
	if err != nil {
		t.Fatal(err)
	}
	key := store.SubscriptionKey(nil, store.SpacePosition, "a")
	if err := store.SetRaw(s, key, row); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SubscriptionPosition("a"); !errors.Is(err, store.ErrCorrupt) || len(err.Error()) > 300 {
		t.Errorf("read: %.400v", err)
	}
	if err := store.DeleteRaw(s, key); err != nil {
		t.Fatal(err)
	}
}

// someSnapshot is a snapshot in progress, and the last number that was given.
func someSnapshot(rng *rand.Rand) (numbered uint64, p *store.SubscriptionSnapshot) {
	numbered = store.NumbersFrom
	p = &store.SubscriptionSnapshot{End: store.Ordinal(near(rng, 40)), Records: near(rng, 40), Read: rng.IntN(2) == 0}
	p.At = store.RecordPosition{DID: storetest.DID(rng.IntN(3)), Ordinal: store.Ordinal(near(rng, 40)), Path: []byte("app.test.a/1")}
	for range rng.IntN(40) {
		numbered += 1 + near(rng, 32)
		p.Outstanding = append(p.Outstanding, store.NumberedRecord{Number: numbered,
			RecordName: store.RecordName{DID: storetest.DID(rng.IntN(3)), Path: fmt.Sprint("app.test.a/", rng.IntN(100))}})
	}
	if p.Read && len(p.Outstanding) == 0 {
		numbered++
		p.Last = numbered
	}
	return numbered, p
}
