package firehose_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"cistern/ingest/firehose"

	"pgregory.net/rapid"
)

// orderModel is the tracker as a list of everything that was ever begun.
type orderModel struct {
	first, last int64 // what stands before the first event; newest seq
	events      []orderEvent
}

type orderEvent struct {
	number, seq int64
	done        bool
}

func (m *orderModel) mark() int64 {
	mark := m.first
	for _, e := range m.events {
		if !e.done {
			return mark
		}
		mark = e.seq
	}
	return m.last
}

func (m *orderModel) waiting() (numbers []int64) {
	for _, e := range m.events {
		if !e.done {
			numbers = append(numbers, e.number)
		}
	}
	return numbers
}

func TestTrackerFollowsItsModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cursor := rapid.Int64Range(-1, 5).Draw(t, "cursor")
		tracker, model := firehose.NewTracker(cursor), orderModel{first: cursor, last: cursor}
		newest, given := int64(0), []int64{0} // numbers ever given, and one that never was
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "events") {
					seq := model.last + rapid.Int64Range(-2, 5).Draw(t, "step")
					number, ok := tracker.Begin(seq)
					if ok != (seq > model.last) {
						t.Fatalf("begin %d after %d: %t", seq, model.last, ok)
					}
					if !ok {
						continue
					}
					if number <= newest {
						t.Fatalf("number %d after %d", number, newest)
					}
					newest, given = number, append(given, number)
					if model.last < 0 {
						model.first = seq - 1
					}
					model.last, model.events = seq, append(model.events, orderEvent{number: number, seq: seq})
				}
			},
			"finish": func(t *rapid.T) {
				var numbers []int64
				for range rapid.IntRange(0, 30).Draw(t, "numbers") {
					numbers = append(numbers, rapid.SampledFrom(given).Draw(t, "number"))
				}
				if rapid.Bool().Draw(t, "oldest") {
					numbers = append(numbers, model.waiting()[:min(len(model.waiting()), 20)]...)
				}
				for i, e := range model.events {
					for _, n := range numbers {
						model.events[i].done = model.events[i].done || e.number == n
					}
				}
				if mark := tracker.Finish(numbers...); mark != model.mark() {
					t.Fatalf("finish gave %d, want %d", mark, model.mark())
				}
			},
			"reset": func(t *rapid.T) {
				cursor := rapid.Int64Range(-1, 5).Draw(t, "cursor")
				tracker.Reset(cursor)
				model = orderModel{first: cursor, last: cursor} // earlier numbers do nothing
			},
			"": func(t *rapid.T) {
				if mark, want := tracker.Mark(), model.mark(); mark != want {
					t.Fatalf("mark %d, want %d", mark, want)
				}
				if n, want := tracker.Waiting(), len(model.waiting()); n != want {
					t.Fatalf("%d waiting, want %d", n, want)
				}
				if tracker.Last() != model.last {
					t.Fatalf("last %d, want %d", tracker.Last(), model.last)
				}
			},
		})
	})
}

// TestTrackerHoldsOnlyWhatWaits: one event that takes an hour must not make us remember that hour.
func TestTrackerHoldsOnlyWhatWaits(t *testing.T) {
	t.Parallel()
	tracker := firehose.NewTracker(-1)
	stuck, _ := tracker.Begin(1)
	for seq := int64(2); seq <= 200_000; seq++ {
		number, _ := tracker.Begin(seq)
		if mark := tracker.Finish(number); mark != 0 {
			t.Fatalf("mark %d while 1 waits", mark)
		}
	}
	if size := tracker.Size(); size > 64 {
		t.Errorf("%d places for one event", size)
	}
	if mark := tracker.Finish(stuck); mark != 200_000 {
		t.Errorf("mark %d at the end", mark)
	}
}

// TestTrackerIsMonotone has many finish at once: no mark may pass an event that waits, nor go back.
func TestTrackerIsMonotone(t *testing.T) {
	t.Parallel()
	const events, workers = 20_000, 8
	tracker := firehose.NewTracker(0)
	type begun struct{ seq, number int64 }
	queue := make(chan begun, 256)
	var mu sync.Mutex
	waiting := map[int64]bool{}
	var g sync.WaitGroup
	for w := range workers {
		g.Go(func() {
			rng, last, held := rand.New(rand.NewPCG(1, uint64(w))), int64(0), []begun{}
			finish := func() {
				var numbers []int64
				mu.Lock()
				for _, b := range held {
					numbers = append(numbers, b.number)
					delete(waiting, b.seq)
				}
				mu.Unlock()
				held = held[:0]
				mark := tracker.Finish(numbers...)
				if mark < last {
					t.Errorf("mark went from %d to %d", last, mark)
				}
				last = mark
				mu.Lock()
				defer mu.Unlock()
				for seq := range waiting {
					if seq <= mark {
						t.Errorf("mark %d passed %d", mark, seq)
					}
				}
			}
			for b := range queue {
				if held = append(held, b); rng.IntN(6) == 0 {
					finish()
				}
			}
			finish()
		})
	}
	for seq := int64(1); seq <= events; seq++ {
		mu.Lock()
		waiting[seq] = true
		mu.Unlock()
		number, ok := tracker.Begin(seq)
		if !ok {
			t.Fatalf("begin %d was refused", seq)
		}
		queue <- begun{seq, number}
	}
	close(queue)
	g.Wait()
	if mark := tracker.Mark(); mark != events {
		t.Errorf("mark %d at the end", mark)
	}
}

func BenchmarkTracker(b *testing.B) {
	tracker, window := firehose.NewTracker(0), make([]int64, 1024)
	for i := range b.N {
		at := i % len(window)
		tracker.Finish(window[at])
		window[at], _ = tracker.Begin(int64(i) + 1)
	}
}
