package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/api/deliver/format"
	"cistern/api/durable"
	"cistern/store"
)

// feeder sends what a feed has in requests of several events, some of which fail.
type feeder struct {
	*shared
	rng  *rand.Rand
	most int
}

// member begins a member of the subscription, with its feed.
func (s *shared) member() (*durable.Member, *deliver.Feed) {
	s.t.Helper()
	sub, err := s.subs.Find("a")
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := sub.Attach()
	if err != nil {
		s.t.Fatal(err)
	}
	formats, err := format.NewSet("epoch1", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return m, s.Feed(m, formats.Cistern(format.Variant{}))
}

// run sends until ctx ends.
func (f *feeder) run(ctx context.Context, m *durable.Member, feed *deliver.Feed) error {
	defer m.Detach()
	var running sync.WaitGroup
	running.Go(func() { _ = feed.Run(ctx) })
	defer running.Wait()
	seen := map[uint64]bool{} // by this member
	for {
		batch, err := feed.Next(ctx, f.most, 400)
		if err != nil {
			return err
		}
		if len(batch) == 0 || len(batch) > f.most {
			return fmt.Errorf("a request of %d events, at most %d", len(batch), f.most)
		}
		var ids []uint64
		size := 0
		for _, msg := range batch {
			if size >= 400 {
				return fmt.Errorf("%d events of %d bytes", len(batch), size)
			}
			size += len(msg.Body)
			parsed, err := delivertest.Parse(msg.Body)
			if err != nil || parsed.ID != msg.ID || parsed.Identity.DID != msg.DID {
				return fmt.Errorf("%+v, %w", msg, err)
			}
			if err := f.inOrder(msg, seen); err != nil {
				return err
			}
			ids = append(ids, msg.ID)
		}
		if f.rng.IntN(4) == 0 {
			m.Release(time.Now().Add(time.Duration(f.rng.IntN(200))*time.Millisecond), ids...)
			continue
		}
		f.mu.Lock()
		for _, id := range ids {
			f.acked[id] = true
			f.came[id]++
		}
		f.mu.Unlock()
		m.Acknowledge(ids...)
	}
}

// inOrder checks that the earlier events of the account came to the same member, or are acknowledged.
func (s *shared) inOrder(msg deliver.Message, seen map[uint64]bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acked[msg.ID] {
		return fmt.Errorf("event %d came again after it was acknowledged", msg.ID)
	}
	for id := uint64(1); id < msg.ID; id++ {
		if s.log.DID(id) == msg.DID && !s.acked[id] && !seen[id] {
			return fmt.Errorf("event %d came before %d of the same account", msg.ID, id)
		}
	}
	seen[msg.ID] = true
	return nil
}

// Senders with requests get everything, in order, whether requests succeed, fail and are made again
// later, or are cut off.
func TestFeedRequests(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	var events []store.Event
	for range 500 {
		events = append(events, delivertest.Identity(rng.IntN(30)))
	}
	s := newShared(t, durable.Options{WindowEvents: 80}, events...)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var senders sync.WaitGroup
	for i := range 4 {
		m, feed := s.member()
		f := &feeder{shared: s, rng: rand.New(rand.NewPCG(seed, uint64(i))), most: 1 + rng.IntN(8)}
		ctx := ctx
		if i == 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			senders.Go(func() { // once it has had something
				s.until(t, "passed", func(st durable.Status) bool { return st.Next > 200 })
				cancel()
			})
		}
		senders.Go(func() {
			if err := f.run(ctx, m, feed); !errors.Is(err, context.Canceled) {
				t.Errorf("sender %d: %v", i, err)
				stop()
			}
		})
	}
	s.drained()
	stop()
	senders.Wait()
}

// A released event comes at its time, with the later ones of its account behind it; other accounts
// do not wait.
func TestFeedRelease(t *testing.T) {
	t.Parallel()
	s := newShared(t, durable.Options{}, byAccount(1, 2, 1, 2)...)
	m, feed := s.member()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = feed.Run(ctx) })
	defer func() { stop(); running.Wait(); m.Detach() }()
	next := func(most int) (ids []uint64) {
		t.Helper()
		batch, err := feed.Next(ctx, most, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, msg := range batch {
			ids = append(ids, msg.ID)
		}
		return ids
	}
	want := func(got []uint64, want ...uint64) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Fatalf("%d, want %d", got, want)
		}
	}
	want(next(1), 1)
	at := time.Now().Add(200 * time.Millisecond)
	m.Release(at, 1)
	want(next(9), 2, 4)
	s.log.Add(byAccount(1, 3)...)
	want(next(9), 6)
	want(next(9), 1, 3, 5)
	if now := time.Now(); now.Before(at) {
		t.Errorf("it comes %s before its time", at.Sub(now))
	}
	m.Acknowledge(1, 2, 3, 4, 5, 6)
	s.log.Prune(7)
	s.log.Add(byAccount(1)...)
	want(next(9), 7)
	s.log.Add(byAccount(1, 1)...)
	s.log.Prune(9)
	batch, err := feed.Next(ctx, 9, 1)
	if err != nil || len(batch) != 1 || batch[0].ID != 7 && batch[0].ID != 8 || batch[0].GapTo != 8 ||
		!strings.Contains(string(batch[0].Body), `"type":"gap"`) {
		t.Fatalf("%+v, %v", batch, err)
	}
	if err := s.subs.Drop("a"); err != nil {
		t.Fatal(err)
	}
	for {
		_, err := feed.Next(ctx, 9, 1)
		if err == nil {
			continue // what was to be sent already
		}
		if !errors.Is(err, deliver.ErrDropped) {
			t.Fatal(err)
		}
		return
	}
}
