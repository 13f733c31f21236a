package backfill

import (
	"container/heap"
	"sync"
	"time"

	"cistern/store"
)

// laters holds the unknown accounts whose host has to be asked again which collections they have,
// by due time. The store holds each as a DescribeRetry. It is in memory so that a page needs no
// read of these rows: latersMax of 150 bytes are 15 MB.
type laters struct {
	mu    sync.Mutex
	known map[string]bool // mu guards: DIDs in the heap, and DIDs being asked about
	queue laterHeap       // mu guards
}

// lateAsk is one account whose host has to be asked.
type lateAsk struct {
	did   string
	due   time.Time
	tries uint32
}

// laterOf is an account as the store holds it.
func laterOf(did string, row store.DescribeRetry) lateAsk {
	return lateAsk{did: did, due: time.Unix(row.Due, 0), tries: row.Tries}
}

// row returns l as the store holds it.
func (l lateAsk) row() store.DescribeRetry {
	return store.DescribeRetry{Due: l.due.Unix(), Tries: l.tries}
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

// put adds an account, and reports whether it is in the list now; false means that the list is
// full. An account that is there already keeps its time.
func (l *laters) put(a lateAsk) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[a.did] {
		return true
	}
	if len(l.known) >= latersMax {
		return false
	}
	l.known[a.did] = true
	heap.Push(&l.queue, a)
	return true
}

// again returns a taken account to the heap.
func (l *laters) again(a lateAsk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	heap.Push(&l.queue, a)
}

// drop removes a taken account for good.
func (l *laters) drop(did string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, did)
}

// take removes the due accounts from the heap and returns them.
func (l *laters) take(now time.Time) (due []lateAsk) {
	for l.wait(now) <= 0 {
		l.mu.Lock()
		due = append(due, heap.Pop(&l.queue).(lateAsk))
		l.mu.Unlock()
	}
	return due
}

// wait returns how long until the next account is due. A time set by a clock that was ahead is due
// now.
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
