package durable_test

import (
	"errors"
	"testing"
	"time"

	"cistern/api/durable"
	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"
)

// A connection that is still open when its subscription is deleted writes no row, also if another
// subscription of the same name is made.
func TestDropped(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	r, err := durable.New(durable.Options{Store: s, Log: s})
	if err != nil {
		t.Fatal(err)
	}
	put := func() *durable.Member {
		t.Helper()
		if _, made, err := r.Put(t.Context(), "a", durable.Wanted{}); !made || err != nil {
			t.Fatal(made, err)
		}
		sub, err := r.Find("a")
		if err != nil {
			t.Fatal(err)
		}
		m, err := sub.Attach()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	old := put()
	if err := r.Drop("a"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-old.Gone():
	default:
		t.Error("the connection does not learn of it")
	}
	take := func(*filter.Events, int) ([]durable.Event, uint64) { return []durable.Event{{ID: 1}}, 2 }
	old.Add(time.Now(), take)
	if err := old.Save(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SubscriptionPosition("a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the position was written: %v", err)
	}
	put()
	old.Add(time.Now(), take)
	if err := old.Save(); err != nil {
		t.Fatal(err)
	}
	if p, err := s.SubscriptionPosition("a"); p.Next != 1 || err != nil {
		t.Errorf("the position is %+v, %v", p, err)
	}
}

// Options that cannot work are refused.
func TestOptions(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	for _, o := range []durable.Options{{}, {Store: s}, {Log: s}, {Store: s, Log: s, WindowEvents: -1},
		{Store: s, Log: s, RetryTimeout: -1}} {
		if _, err := durable.New(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

// The snapshot of a subscription has what its filter wants, if there is one.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	r, err := durable.New(durable.Options{Store: s, Log: s})
	if err != nil {
		t.Fatal(err)
	}
	live := true
	for i, row := range []struct {
		filter durable.Filter
		want   string
	}{
		{durable.Filter{}, "/stream?snapshot=true"},
		{durable.Filter{Collections: []string{"app.test.a", "app.test.b.*"}, DIDs: []string{storetest.DID(0)}, Kinds: []string{"record"}},
			"/stream?collections=app.test.a%2Capp.test.b.%2A&dids=did%3Aplc%3Aaaaaaaaaaaaaaaaaaaaaaaaa&kinds=record&snapshot=true"},
		{durable.Filter{Kinds: []string{"account"}}, ""},
		{durable.Filter{Actions: []string{"delete"}}, ""},
		{durable.Filter{Live: &live}, ""},
	} {
		name := string(rune('a' + i))
		if _, _, err := r.Put(t.Context(), name, durable.Wanted{Filter: row.filter}); err != nil {
			t.Fatal(err)
		}
		sub, err := r.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := sub.Snapshot(); got != row.want {
			t.Errorf("%+v: %s", row.filter, got)
		}
	}
}
