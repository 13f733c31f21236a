package backfill

import (
	"container/heap"
	"sync"
	"time"
)

// laters is who is to be asked again what an account holds, as the crawl cursors below laterPrefix say, in order of time. It
// is kept in memory so that nothing is read again for each page: latersMax of 150 bytes are 15 MB.
type laters struct {
	mu    sync.Mutex
	known map[string]bool // mu guards: those in the heap, and those being asked
	queue laterHeap       // mu guards
}

// lateAsk is one account that is to be asked about.
type lateAsk struct {
	name  string // of its crawl cursor
	due   time.Time
	tries int
}

type laterHeap []lateAsk

func (q laterHeap) Len() int           { return len(q) }
func (q laterHeap) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q laterHeap) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *laterHeap) Push(x any)        { *q = append(*q, x.(lateAsk)) }
func (q *laterHeap) Pop() any {
	old := *q
	l := old[len(old)-1]
	*q = old[:len(old)-1]
	return l
}

func newLaters() *laters { return &laters{known: map[string]bool{}} }

// put adds an account, and reports whether it is in the list now: not when that is full. One that is there already keeps its time.
func (l *laters) put(name string, due time.Time, tries int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[name] {
		return true
	}
	if len(l.known) >= latersMax {
		return false
	}
	l.known[name] = true
	heap.Push(&l.queue, lateAsk{name, due, tries})
	return true
}

// again puts back an account that was taken.
func (l *laters) again(a lateAsk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	heap.Push(&l.queue, a)
}

// drop forgets an account that was taken.
func (l *laters) drop(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, name)
}

// take gives the accounts that are due.
func (l *laters) take(now time.Time) (due []lateAsk) {
	for l.wait(now) <= 0 {
		l.mu.Lock()
		due = append(due, heap.Pop(&l.queue).(lateAsk))
		l.mu.Unlock()
	}
	return due
}

// wait is how long until the next account is due. What a clock that was ahead meant is due now.
func (l *laters) wait(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return sleepMax
	}
	d := l.queue[0].due.Sub(now)
	if d > 2*laterMax {
		return 0
	}
	return d
}
