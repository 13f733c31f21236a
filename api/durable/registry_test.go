package durable_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
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

// A replay drops what is outstanding, is on disk when it returns, and is not undone by what the
// former connection does. It cannot go below the tail.
func TestReplay(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	b := s.NewBatch()
	for range 5 {
		b.Identity(&store.Repo{DID: storetest.DID(1), Handle: "a.test"})
	}
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	r, err := durable.New(durable.Options{Store: s, Log: s})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Put(t.Context(), "a", durable.Wanted{Start: durable.Start{Oldest: true}}); err != nil {
		t.Fatal(err)
	}
	attach := func() *durable.Member {
		t.Helper()
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
	add := func(m *durable.Member) {
		id, _, _ := m.Next()
		m.Add(time.Now(), func(*filter.Events, int) (events []durable.Event, next uint64) {
			for ; id <= 5; id++ {
				events = append(events, durable.Event{ID: id, DID: storetest.DID(1)})
			}
			return events, 6
		})
	}
	old := attach()
	old.Add(time.Now(), func(*filter.Events, int) ([]durable.Event, uint64) {
		return []durable.Event{{ID: 1, DID: storetest.DID(1)}, {ID: 4, DID: storetest.DID(1)}}, 6
	})
	for _, row := range []struct {
		at   durable.Start
		next uint64
	}{{durable.Start{}, 6}, {durable.Start{ID: 3}, 3}} {
		st, err := r.Replay(t.Context(), "a", row.at)
		if err != nil || st.Next != row.next || st.Outstanding != 0 {
			t.Errorf("%+v: %+v, %v", row.at, st, err)
		}
		if p, err := s.SubscriptionPosition("a"); p.Next != row.next || len(p.Outstanding) != 0 || err != nil {
			t.Errorf("%+v: the position is %+v, %v", row.at, p, err)
		}
	}
	select {
	case <-old.Gone():
	default:
		t.Error("the former connection goes on")
	}
	now := attach()
	add(now)
	old.Acknowledge(4)
	if err := errors.Join(old.Save(), now.Save()); err != nil || !old.Replayed() || now.Replayed() {
		t.Error(err, old.Replayed(), now.Replayed())
	}
	if p, err := s.SubscriptionPosition("a"); p.Next != 6 || !slices.Equal(p.Outstanding, []uint64{3, 4, 5}) || err != nil {
		t.Errorf("the position is %+v, %v", p, err)
	}
	if _, err := r.Replay(t.Context(), "a", durable.Start{ID: 8}); !errors.Is(err, store.ErrFutureCursor) {
		t.Error(err)
	}
	if _, err := r.Replay(t.Context(), "b", durable.Start{}); err == nil {
		t.Error("there is no such subscription")
	}
}

// Every member saves every 100 ms: that costs nothing while there is nothing new.
func TestSaveIdle(t *testing.T) {
	s := storetest.Open(t, store.Options{})
	r, err := durable.New(durable.Options{Store: s, Log: s})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Put(t.Context(), "a", durable.Wanted{}); err != nil {
		t.Fatal(err)
	}
	sub, err := r.Find("a")
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10, func() {
		if err := sub.Save(); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("a Save without a change allocates %v times", n)
	}
}

// While the store is frozen, acknowledgements stay in memory, over the end of a connection, and are
// written by the Save that follows the thaw. No subscription can be changed.
func TestSaveFrozen(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	r, err := durable.New(durable.Options{Store: s, Log: s})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Put(t.Context(), "a", durable.Wanted{}); err != nil {
		t.Fatal(err)
	}
	sub, err := r.Find("a")
	if err != nil {
		t.Fatal(err)
	}
	m, err := sub.Attach()
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	b.Identity(&store.Repo{DID: storetest.DID(0)})
	b.Identity(&store.Repo{DID: storetest.DID(0)})
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	if err := s.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Add(time.Now(), func(*filter.Events, int) ([]durable.Event, uint64) {
		return []durable.Event{{ID: 1, DID: storetest.DID(0)}, {ID: 2, DID: storetest.DID(0)}}, 3
	})
	m.Take(2, time.Now())
	m.Acknowledge(1)
	if err := m.Save(); err != nil {
		t.Fatal(err)
	}
	m.Detach()
	if p, err := s.SubscriptionPosition("a"); p.Next != 1 || err != nil {
		t.Errorf("while frozen, the position is %+v, %v", p, err)
	}
	for what, err := range map[string]error{
		"put":    func() error { _, _, err := r.Put(t.Context(), "b", durable.Wanted{}); return err }(),
		"replay": func() error { _, err := r.Replay(t.Context(), "a", durable.Start{Oldest: true}); return err }(),
		"drop":   r.Drop("a"),
		"resume": func() error { _, err := r.Resume("a"); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "suspended") {
			t.Errorf("%s while frozen: %v", what, err)
		}
	}
	s.Thaw()
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	if p, err := s.SubscriptionPosition("a"); p.Next != 3 || !slices.Equal(p.Outstanding, []uint64{2}) || err != nil {
		t.Errorf("after the thaw, the position is %+v, %v", p, err)
	}
}

// The numbers of records are reserved on disk: while the store is frozen that waits, and holds up
// nothing that has an end.
func TestReserveFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, store.Options{})
		r, err := durable.New(durable.Options{Store: s, Log: s, WindowEvents: durable.Ahead})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Put(t.Context(), "a", durable.Wanted{Start: durable.Start{Snapshot: true}}); err != nil {
			t.Fatal(err)
		}
		sub, err := r.Find("a")
		if err != nil {
			t.Fatal(err)
		}
		m, err := sub.Attach()
		if err != nil {
			t.Fatal(err)
		}
		defer m.Detach()
		if err := s.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- m.Reserve(ctx) }()
		synctest.Wait()
		if err := m.Save(); err != nil {
			t.Error(err) // it does not wait for Reserve
		}
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("reserved at a frozen store: %v", err)
		}
		go func() { result <- m.Reserve(t.Context()) }()
		synctest.Wait()
		if len(result) > 0 {
			t.Errorf("reserved at a frozen store: %v", <-result)
		}
		s.Thaw()
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}
