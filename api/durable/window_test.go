package durable_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cistern/api/durable"
	"cistern/store"

	"github.com/google/go-cmp/cmp"
)

// naive is what a window is to do, by one entry for each id.
type naive struct {
	next uint64
	sent map[uint64]*naiveEvent // outstanding
}

type naiveEvent struct {
	did string
	due int
}

func (n *naive) ids() (ids []uint64) {
	for id := uint64(0); id < n.next; id++ {
		if n.sent[id] != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// due returns every outstanding event that is late, or behind a late one of its account.
func (n *naive) due(now int) (ids []uint64) {
	for _, id := range n.ids() {
		for _, before := range n.ids() {
			late := n.sent[before].due <= now && (before == id || n.sent[before].did == n.sent[id].did && n.sent[id].did != "")
			if before <= id && late {
				ids = append(ids, id)
				break
			}
		}
	}
	return ids
}

func (n *naive) lost(tail uint64, due int) (from uint64, ok bool) {
	from = n.next
	for _, id := range n.ids() {
		if id < tail {
			from = min(from, id)
			delete(n.sent, id)
		}
	}
	if from >= tail {
		return 0, false
	}
	n.next = max(n.next, tail)
	n.sent[from] = &naiveEvent{due: due}
	return from, true
}

// TestWindowModel compares a window with the naive one over random calls, with restarts.
func TestWindowModel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		windowModel(t, rng)
	}
}

func windowModel(t *testing.T, rng *rand.Rand) {
	t.Helper()
	const retry = 5
	most, now, tail := 1+rng.IntN(12), 0, uint64(0)
	at := func(tick int) time.Time { return time.Unix(int64(tick), 0) }
	n := naive{next: 1 + uint64(rng.IntN(3)), sent: map[uint64]*naiveEvent{}}
	w := durable.NewWindow(store.SubscriptionPosition{Next: n.next}, most, retry*time.Second, at(now))
	for range 200 {
		switch rng.IntN(10) {
		case 0, 1:
			if w.Room() > 0 {
				id, did := n.next+uint64(rng.IntN(3)), fmt.Sprint("did", rng.IntN(3))
				w.Sent(id, did, at(now))
				n.sent[id], n.next = &naiveEvent{did, now + retry}, id+1
			}
		case 2, 3: // in any order, again, and of what was never sent
			id := uint64(rng.IntN(int(n.next) + 2))
			if known := n.sent[id] != nil; w.Settle(id) != known {
				t.Fatalf("settling %d: outstanding is %t", id, known)
			}
			delete(n.sent, id)
		case 4:
			now += rng.IntN(retry)
		case 5, 6:
			windowDue(t, rng, w, &n, now, retry)
		case 7:
			id := n.next + uint64(rng.IntN(3))
			w.Pass(id - 1) // never backwards
			w.Pass(id)
			n.next = id
		case 8:
			if rng.IntN(3) == 0 {
				w.Restart()
				for _, e := range n.sent {
					e.due = 0
				}
			}
		case 9:
			if rng.IntN(3) > 0 {
				tail = max(tail, uint64(rng.IntN(int(n.next)+3)))
				from, ok := w.Lost(tail, at(now))
				if f, o := n.lost(tail, now+retry); f != from || o != ok {
					t.Fatalf("lost before %d from %d, %t; want %d, %t", tail, from, ok, f, o)
				}
				break
			}
			w = durable.NewWindow(w.Position(), most, retry*time.Second, at(now))
			for _, e := range n.sent {
				e.did, e.due = "", 0
			}
		}
		if d := cmp.Diff(store.SubscriptionPosition{Next: n.next, Outstanding: n.ids()}, w.Position()); d != "" {
			t.Fatal(d)
		}
		if got, want := w.Room(), max(0, most-len(n.sent)); got != want {
			t.Fatalf("room %d, want %d", got, want)
		}
	}
}

// windowDue compares what is due, and sends some of it again.
func windowDue(t *testing.T, rng *rand.Rand, w durable.Window, n *naive, now, retry int) {
	t.Helper()
	want := n.due(now)
	if alarm, ok := w.Alarm(); ok != (len(n.sent) > 0) || len(want) > 0 && alarm.After(time.Unix(int64(now), 0)) {
		t.Fatalf("alarm at %s, %t while %d are due", alarm, ok, want)
	}
	got := w.Due(time.Unix(int64(now), 0))
	if !slices.Equal(got, want) {
		t.Fatalf("due %d, want %d", got, want)
	}
	for _, id := range got[:rng.IntN(len(got)+1)] {
		did := n.sent[id].did
		if did == "" {
			did = fmt.Sprint("did", rng.IntN(3))
		}
		w.Again(id, did, time.Unix(int64(now), 0))
		n.sent[id] = &naiveEvent{did, now + retry}
	}
	if w.Again(n.next, "did1", time.Unix(0, 0)) {
		t.Fatal("an event that was not sent is sent again")
	}
}
