package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

func eventsFilter(t testing.TB, c filter.EventsConfig) *filter.Events {
	t.Helper()
	f, err := filter.CompileEvents(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// randomEvents returns the filter of one pass.
func randomEvents(t testing.TB, rng *rand.Rand, dids []string) *filter.Events {
	var c filter.EventsConfig
	if rng.IntN(2) == 0 {
		for range 1 + rng.IntN(3) {
			c.Collections = append(c.Collections, []string{"app.test.c0", "app.test.c1", "app.test.c3", "app.test.*", "app.*", "com.none.x"}[rng.IntN(6)])
		}
	}
	if rng.IntN(3) == 0 {
		for range 1 + rng.IntN(3) {
			c.DIDs = append(c.DIDs, dids[rng.IntN(len(dids))])
		}
	}
	return eventsFilter(t, c)
}

// snapshotter is a consumer: it folds the pages of a pass, and then the log.
type snapshotter struct {
	t      testing.TB
	s      *store.Store
	filter *filter.Events
	pass   *store.Pass
	at     store.RecordPosition // of the last record that it has
	next   store.RecordPosition // of the next page
	ended  bool
	last   string // key of the last record in the order of the pass

	out     map[string]storetest.Records
	passed  map[string]int  // at://did/path → how often the pass had it
	changed map[string]bool // at://did/path, or at://did: the log had it
}

func newSnapshotter(t testing.TB, s *store.Store, f *filter.Events) *snapshotter {
	return &snapshotter{t: t, s: s, filter: f, pass: s.BeginSnapshot(f), out: map[string]storetest.Records{},
		passed: map[string]int{}, changed: map[string]bool{}}
}

// page reads one page, which fn may end after some records.
func (n *snapshotter) page(rowsMax, recordsMax int) {
	n.t.Helper()
	next, ended, err := n.s.ReadRecords(context.Background(), n.pass, n.next, rowsMax, func(e *store.Event, at store.RecordPosition) bool {
		n.event(e)
		p := string(e.Collection) + "/" + string(e.Rkey)
		n.passed["at://"+e.DID+"/"+p]++
		key := map[store.PassOrder]string{
			store.ByOrdinal:    fmt.Sprintf("%012d %s", at.Ordinal, p),
			store.ByCollection: fmt.Sprintf("%s %012d %s", e.Collection, at.Ordinal, e.Rkey),
			store.ByDID:        e.DID + " " + p,
		}[n.pass.Order]
		if key <= n.last || string(at.Path) != p || at.DID != e.DID || e.Action != store.Create || e.Rev == "" {
			n.t.Errorf("%+v at %+v: key %q after %q", e, at, key, n.last)
		}
		n.last, n.at = key, at
		n.at.Path = bytes.Clone(at.Path)
		recordsMax--
		return recordsMax > 0
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.next, n.ended = next, ended
}

// resume has the pass go on as another consumer that knows what this one was sent.
func (n *snapshotter) resume(s *store.Store) {
	n.s, n.pass = s, store.NewPass(n.pass.Head, n.pass.End, n.filter)
	n.next = store.RecordPosition{Ordinal: n.at.Ordinal, Path: n.at.Path}
	if n.pass.Order == store.ByDID {
		n.next = store.RecordPosition{DID: n.at.DID, Path: n.at.Path}
	}
}

func (n *snapshotter) event(e *store.Event) {
	p := string(e.Collection) + "/" + string(e.Rkey)
	switch {
	case e.Kind == store.KindAccount && e.Status.Hidden():
		delete(n.out, e.DID)
	case e.Kind != store.KindRecord:
	case e.Action == store.Delete:
		delete(n.out[e.DID], p)
	default:
		if n.out[e.DID] == nil {
			n.out[e.DID] = storetest.Records{}
		}
		n.out[e.DID][p] = bytes.Clone(e.Record)
	}
}

func (n *snapshotter) wants(did, path string) bool {
	collection, _, _ := strings.Cut(path, "/")
	return n.filter.DID(did) && n.filter.Collection([]byte(collection))
}

// finish reads the rest and the log, and compares with what the store has.
func (n *snapshotter) finish(want map[string]storetest.Records) {
	n.t.Helper()
	for !n.ended {
		n.page(1000, 1000)
	}
	for cursor := n.pass.Head + 1; cursor <= n.s.Head(); {
		next, err := n.s.ReadLog(context.Background(), cursor, 1000, func(e *store.Event) error {
			p := string(e.Collection) + "/" + string(e.Rkey)
			switch {
			case e.Kind != store.KindRecord:
				n.changed["at://"+e.DID] = true
				n.event(e)
			case n.wants(e.DID, p):
				n.changed["at://"+e.DID+"/"+p] = true
				n.event(e)
			}
			return nil
		})
		if err != nil {
			n.t.Fatal(err)
		}
		cursor = next
	}
	wanted := map[string]storetest.Records{}
	for did, records := range want {
		wanted[did] = maps.Clone(records)
		maps.DeleteFunc(wanted[did], func(p string, _ []byte) bool { return !n.wants(did, p) })
		for p := range wanted[did] {
			uri := "at://" + did + "/" + p
			if c := n.passed[uri]; c != 1 && !n.changed["at://"+did] && !n.changed[uri] {
				n.t.Errorf("%s did not change since %d, and the pass had it %d times", uri, n.pass.Head, c)
			}
		}
	}
	if d := cmp.Diff(notEmpty(wanted), notEmpty(n.out)); d != "" {
		n.t.Errorf("pass of order %d from %d (-want +got):\n%s", n.pass.Order, n.pass.Head, d)
	}
	for uri := range n.passed {
		did, p, _ := strings.Cut(strings.TrimPrefix(uri, "at://"), "/")
		if !n.wants(did, p) {
			n.t.Errorf("%s is not wanted", uri)
		}
	}
}

// TestSnapshotModel drives random commits, sweeps, fetches, copies, drops, changes of status,
// prunes and restarts between the pages of passes, which begin and are resumed at any time. What a
// consumer folds is what the store answers, and what did not change came once.
func TestSnapshotModel(t *testing.T) {
	t.Parallel()
	for i := range storetest.Seeds(4) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			snapshotModel(t, seeded(t), i%2 == 0)
		})
	}
}

func snapshotModel(t *testing.T, rng *rand.Rand, tables bool) {
	c := newClock()
	o := store.Options{FS: vfs.NewMem(), Dir: "db", Now: c.now, SnapshotRetention: 24 * time.Hour}
	if tables {
		o.SmallBytes = 1
	}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	var shelves []*shelf
	var dids []string
	for n := range 8 {
		h := &shelf{did: storetest.DID(n + 1), all: storetest.Random(rng, rng.IntN(60))}
		h.again(t, s, 0)
		shelves, dids = append(shelves, h), append(dids, h.did)
	}
	var readers []*snapshotter
	for step := range 400 {
		h := shelves[rng.IntN(len(shelves))]
		switch n := rng.IntN(40); {
		case n < 6:
			h.commit(t, s, rng)
		case n < 7:
			setFilter(t, s, randomFilter(rng))
		case n < 9:
			h.refilter(t, s, s.Selections()[rng.IntN(len(s.Selections()))])
		case n < 11:
			h.sweepSome(t, s, rng)
		case n < 12:
			h.fetch(t, s)
		case n < 13:
			setStatus(t, s, h.did, store.StatusDeactivated)
			if len(readers) > 0 { // a page meets the hidden account
				readers[0].page(1+rng.IntN(30), 30)
			}
			setStatus(t, s, h.did, store.StatusActive)
		case n < 14:
			h.again(t, s, s.Filter().Selection)
		case n < 15:
			var ops []store.Op
			for p := range h.shown() {
				ops = append(ops, drop(p))
			}
			dropRepo(t, s, h.did, ops, false)
			h.again(t, s, s.Filter().Selection)
		case n < 17:
			c.tick(time.Minute)
			if err := store.Retain(t.Context(), s, time.Second); err != nil { // prunes all but the anchored
				t.Fatal(err)
			}
		case n < 18:
			if err := store.Collect(s); err != nil {
				t.Fatal(err)
			}
		case n < 19:
			if err := store.Retain(t.Context(), s, 0); err != nil { // saves the anchors
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = store.Open(o); err != nil {
				t.Fatal(err)
			}
			for _, r := range readers {
				r.resume(s)
			}
		case n < 22 && len(readers) < 4:
			readers = append(readers, newSnapshotter(t, s, randomEvents(t, rng, dids)))
		case n < 24 && len(readers) > 0:
			readers[rng.IntN(len(readers))].resume(s)
		case len(readers) > 0:
			readers[rng.IntN(len(readers))].page(1+rng.IntN(40), 1+rng.IntN(30))
		}
		if step%100 == 99 {
			want := held(t, s)
			for _, r := range readers {
				r.finish(want)
			}
			wantCurrent(t, s, rng, shelves)
			readers = nil
			storetest.Check(t, s)
		}
		if t.Failed() {
			break
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSnapshotConcurrent has passes run beside goroutines that import, so that ordinals are flipped
// out of order, change and wipe repositories.
func TestSnapshotConcurrent(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{SmallBytes: 1 << 20, GroupBytes: 4 << 10, GroupAge: 5 * time.Millisecond, MemTableBytes: 256 << 10})
	rng := seeded(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running, writers sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for n := range 3 {
		w := writer{t: t, s: s, rng: rand.New(rand.NewPCG(rng.Uint64(), uint64(n))), world: newWorld(), base: n << 10}
		w.world.revNo = n << 16
		writers.Go(func() { w.run(60) })
	}
	ended := make(chan struct{})
	running.Go(func() { writers.Wait(); close(ended) })
	var readers []*snapshotter
	for open := true; open; {
		select {
		case <-ended:
			open = false
		default:
		}
		n := newSnapshotter(t, s, randomEvents(t, rng, []string{storetest.DID(1), storetest.DID(1<<10 + 1), storetest.DID(2<<10 + 3)}))
		for !n.ended {
			n.page(1+rng.IntN(40), 1+rng.IntN(30))
			if rng.IntN(4) == 0 {
				n.resume(s)
			}
		}
		if readers = append(readers, n); len(readers) > 20 {
			readers = slices.Delete(readers, 5, 6)
		}
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	stop()
	running.Wait()
	storetest.Head(t, s)
	want := held(t, s)
	for _, n := range readers {
		n.finish(want)
	}
}

// TestSnapshotDurable: a page returns when what it saw is durable, as a crash would otherwise take
// it back from a reader that has it.
func TestSnapshotDurable(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did := storetest.DID(1)
	imported(t, s, did, small())
	pass := s.BeginSnapshot(new(filter.Events))
	defer s.Lock(did)()
	r, err := s.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	b.Hide(&r, store.StatusDeactivated, store.OriginHost, store.Retry{})
	b.PutRepo(&r)
	wait, err := b.Commit()
	if err != nil {
		t.Fatal(err)
	}
	read := func(ctx context.Context) (n int, err error) {
		_, _, err = s.ReadRecords(ctx, pass, store.RecordPosition{}, 100, func(*store.Event, store.RecordPosition) bool { n++; return true })
		return n, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := read(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before the state is durable: %v", err)
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if n, err := read(t.Context()); n != 0 || err != nil {
		t.Errorf("%d records of a hidden account, %v", n, err)
	}
}

// TestSnapshotRetention: the events after the beginning of a snapshot stay for the time that is set
// for it, also through a restart, and no longer. Then a pass says so.
func TestSnapshotRetention(t *testing.T) {
	t.Parallel()
	c := newClock()
	o := store.Options{FS: vfs.NewMem(), Dir: "db", Now: c.now, SnapshotRetention: 6 * time.Hour}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	const short = time.Hour
	pass := func(d time.Duration) {
		t.Helper()
		for ; d > 0; d -= 10 * time.Minute {
			c.tick(10 * time.Minute)
			one(t, s, storetest.DID(1), "app.test.a/1", c.now().String())
			if err := store.Retain(t.Context(), s, short); err != nil {
				t.Fatal(err)
			}
		}
	}
	imported(t, s, storetest.DID(1), small())
	pass(2 * time.Hour)
	if s.Tail() == 1 {
		t.Error("nothing is pruned without a snapshot")
	}
	p := s.BeginSnapshot(new(filter.Events))
	pass(3 * time.Hour)
	second := s.BeginSnapshot(new(filter.Events))
	pass(2 * time.Hour)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = store.Open(o); err != nil {
		t.Fatal(err)
	}
	pass(50 * time.Minute)
	if s.Tail() != p.Head+1 {
		t.Errorf("tail %d, the first snapshot began at %d", s.Tail(), p.Head)
	}
	pass(30 * time.Minute)
	if s.Tail() != second.Head+1 {
		t.Errorf("tail %d, the second snapshot began at %d", s.Tail(), second.Head)
	}
	if _, _, err := s.ReadRecords(t.Context(), p, store.RecordPosition{}, 10, nil); !errors.Is(err, store.ErrOutdatedCursor) {
		t.Errorf("pass whose log is pruned: %v", err)
	}
	ahead := store.NewPass(s.Head()+1, p.End, new(filter.Events))
	if _, _, err := s.ReadRecords(t.Context(), ahead, store.RecordPosition{}, 10, nil); !errors.Is(err, store.ErrFutureCursor) {
		t.Errorf("pass from above the head: %v", err)
	}
	pass(3 * time.Hour)
	if s.Tail() <= second.Head+1 {
		t.Errorf("tail %d: the second snapshot, from %d, is kept for ever", s.Tail(), second.Head)
	}
	storetest.Check(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSnapshotEnds: a pass ends although imports go on, and leaves them to the log.
func TestSnapshotEnds(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]*filter.Events{
		"ordinal":    new(filter.Events),
		"collection": eventsFilter(t, filter.EventsConfig{Collections: []string{"app.test.a", "app.test.b"}}),
		"did":        eventsFilter(t, filter.EventsConfig{DIDs: []string{storetest.DID(1), storetest.DID(2), storetest.DID(3)}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := storetest.Open(t, store.Options{})
			m := storetest.Records{"app.test.a/1": storetest.Text("a"), "app.test.b/1": storetest.Text("b")}
			imported(t, s, storetest.DID(1), m)
			imported(t, s, storetest.DID(3), m)
			n := newSnapshotter(t, s, f)
			n.page(2, 2)
			for i := 2; i < 9 && !n.ended; i++ {
				if i != 3 {
					imported(t, s, storetest.DID(i), m)
				}
				n.page(100, 1)
			}
			if len(n.passed) != 4 {
				t.Errorf("passed %v", n.passed)
			}
			n.finish(held(t, s))
		})
	}
}

// TestUnsettledWait: a wait ends with the batches before it, in whatever order callers wait.
func TestUnsettledWait(t *testing.T) {
	t.Parallel()
	var u store.Unsettled
	if u.Wait() != nil {
		t.Error("waits for no batch")
	}
	first, second := u.Add("did:plc:a"), u.Add("did:plc:b")
	wait := u.Wait()
	u.Settle(first)
	select {
	case <-wait:
		t.Error("ended by the first batch of two")
	default:
	}
	u.Settle(second)
	select {
	case <-wait:
	default:
		t.Error("goes on after all batches")
	}
	u.Settle(0) // an empty batch
	if u.Wait() != nil {
		t.Error("waits for durable batches")
	}
}
