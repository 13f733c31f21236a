package main

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"
)

// consumer reads the whole log of a store that keeps events only, and has the log pruned up to where
// it has read.
type consumer struct {
	rng   *rand.Rand
	state logged
	next  uint64            // of its position
	extra int               // records that were deleted unseen
	gone  int               // changes of records that the store had no more
	wrote map[string]uint64 // by DID and path, the last event of each record
	swept uint64            // events before it have left nothing
}

// options has every event pruned that the consumer has read: the rows of segments, which state that
// events are kept elsewhere, are its position.
func (c *consumer) options(o *store.Options) {
	o.Ephemeral, o.Archive, o.RetentionBytes, o.PruneEvery = true, true, 1, 1
}

// read reads up to the head, and records the position.
func (c *consumer) read(m *model) {
	m.t.Helper()
	next, err := readLog(m.store, c.next, c.apply)
	if err != nil {
		m.t.Fatalf("read from %d: %v", c.next, err)
	}
	if next == c.next {
		return
	}
	seg := store.Segment{First: c.next, Next: next, Epoch: m.store.Epoch(), Bytes: 1, Index: 1}
	if err := m.store.AddSegment(seg); err != nil {
		m.t.Fatal(err)
	}
	c.next = next
}

func (c *consumer) apply(e *store.Event) error {
	if e.Kind == store.KindRecord {
		name := e.DID + string(e.Collection) + "/" + string(e.Rkey)
		if e.Live && e.Action != store.Create && c.wrote[name] < c.swept {
			c.gone++
		}
		c.wrote[name] = e.ID
	}
	return c.state.apply(e)
}

// prune has some of what was read pruned.
func (c *consumer) prune(m *model) {
	m.t.Helper()
	nothing := func(int64, int64) {}
	if c.rng.IntN(3) == 0 { // let events come
		time.Sleep(time.Duration(c.rng.IntN(20)) * time.Millisecond)
	}
	if c.rng.IntN(2) == 0 {
		c.read(m)
	}
	if err := m.store.Prune(m.t.Context(), nothing); err != nil {
		m.t.Fatal(err)
	}
	if c.rng.IntN(2) == 0 {
		if err := m.store.CollectGarbage(m.t.Context(), nothing); err != nil {
			m.t.Fatal(err)
		}
		c.swept = m.store.Tail()
	}
}

// end compares what the consumer holds with the network, and prunes everything.
func (c *consumer) end(m *model) {
	t := m.t
	t.Helper()
	c.read(m)
	c.state.wantTruth(m)
	for i := 0; i < 3 || m.store.Tail()+4 < m.store.Head(); i++ {
		if i > 100 {
			t.Fatalf("the tail stays at %d, the head is %d", m.store.Tail(), m.store.Head())
		}
		// Bytes are what the log is pruned for.
		b := m.store.NewBatch()
		b.Identity(&store.Repo{DID: storetest.DID(1)})
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
		c.read(m)
		c.prune(m)
	}
	if err := m.store.CollectGarbage(t.Context(), func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	if n := m.store.Counts(); n["records"] != 0 || n["blocks"] != 0 || n["collections"] != 0 {
		t.Errorf("when everything is pruned: %v", n)
	}
}

// forgive drops what the consumer holds of records that were deleted unseen.
func (c *consumer) forgive(_ string, held, want map[string]repo.CID) {
	for path := range held {
		if _, ok := want[path]; !ok {
			delete(held, path)
			c.extra++
		}
	}
}

// TestModelEphemeral is TestModel for a store that keeps events only: a consumer of all events holds
// what the network has, although the store keeps a few records only, but for records that were
// deleted while events were missed. Once everything is pruned, the store has no record.
//
// Variables are those of TestModel.
func TestModelEphemeral(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	first, seeds := testNumber(t, "CISTERNTEST_SEED", 1), testNumber(t, "CISTERNTEST_SEEDS", storetest.Seeds(60))
	var gone, extra atomic.Int64
	t.Cleanup(func() {
		t.Logf("%d changes of records that had gone, %d records deleted unseen", gone.Load(), extra.Load())
		if seeds >= 60 && (gone.Load() == 0 || extra.Load() == 0) {
			t.Error("the histories do not meet what the store has no more")
		}
	})
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("CISTERNTEST_SEED=%d", seed), func(t *testing.T) {
			t.Parallel()
			m := newModel(t, seed)
			m.consumer = &consumer{rng: rand.New(rand.NewPCG(seed, 3)), state: newLogged(), next: 1,
				wrote: map[string]uint64{}}
			m.consumer.state.relisted = true
			m.play()
			gone.Add(int64(m.consumer.gone))
			extra.Add(int64(m.consumer.extra))
		})
	}
}
