package store_test

import (
	"errors"
	"reflect"
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
		Kinds: []string{"record"}, Actions: []string{"create", "delete"}, Live: "false"}, Share: "did"}
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
		{Next: 9, Outstanding: []uint64{5, 4}}, {Next: 9, Outstanding: []uint64{0}}} {
		b := s.NewBatch()
		b.PutSubscriptionPosition("a", bad)
		if err := b.CommitSync(); err == nil {
			t.Errorf("%+v was written", bad)
		}
	}
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
		write(t, s, func(b *store.Batch) { b.PutSubscriptionPosition("a", want) })
		if got, err := s.SubscriptionPosition("a"); !reflect.DeepEqual(got, want) || err != nil {
			t.Fatalf("%+v became %+v, %v", want, got, err)
		}
	}
	write(t, s, func(b *store.Batch) { b.DropSubscription("a") }) // its position was beyond the log
}
