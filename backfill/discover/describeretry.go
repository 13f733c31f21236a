package discover

import (
	"container/heap"
	"sync"
	"time"

	"cistern/store"
)

// describeRetries holds, by due time, the unknown accounts whose host must be asked again for their
// collections. The store holds each as a DescribeRetry. They are in memory so that a page does not
// read these rows: describeRetriesMax of 150 bytes are 15 MB.
type describeRetries struct {
	mu    sync.Mutex
	known map[string]bool   // mu guards: DIDs in the heap, and DIDs being asked about
	queue describeRetryHeap // mu guards
}

// describeRetry is one account whose host must be asked.
type describeRetry struct {
	did   string
	due   time.Time
	tries uint32
}

// describeRetryOf returns the account of a stored row.
func describeRetryOf(did string, row store.DescribeRetry) describeRetry {
	return describeRetry{did: did, due: time.Unix(row.Due, 0), tries: row.Tries}
}

// row returns l as the store holds it.
func (l describeRetry) row() store.DescribeRetry {
	return store.DescribeRetry{Due: l.due.Unix(), Tries: l.tries}
}

type describeRetryHeap []describeRetry

func (q describeRetryHeap) Len() int           { return len(q) }
func (q describeRetryHeap) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q describeRetryHeap) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *describeRetryHeap) Push(x any)        { *q = append(*q, x.(describeRetry)) }
func (q *describeRetryHeap) Pop() any {
	old := *q
	l := old[len(old)-1]
	*q = old[:len(old)-1]
	return l
}

func newDescribeRetries() *describeRetries { return &describeRetries{known: map[string]bool{}} }

// put adds an account, and reports whether it is in the list now; false means that the list is
// full. An account that is there already keeps its time.
func (l *describeRetries) put(a describeRetry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[a.did] {
		return true
	}
	if len(l.known) >= describeRetriesMax {
		return false
	}
	l.known[a.did] = true
	heap.Push(&l.queue, a)
	return true
}

// again returns a taken account to the heap.
func (l *describeRetries) again(a describeRetry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	heap.Push(&l.queue, a)
}

// drop removes a taken account for good.
func (l *describeRetries) drop(did string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, did)
}

// take removes the due accounts from the heap and returns them.
func (l *describeRetries) take(now time.Time) (due []describeRetry) {
	for l.wait(now) <= 0 {
		l.mu.Lock()
		due = append(due, heap.Pop(&l.queue).(describeRetry))
		l.mu.Unlock()
	}
	return due
}

// wait returns how long until the next account is due. A time set by a clock that was ahead is due
// now.
func (l *describeRetries) wait(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return sleepMax
	}
	d := l.queue[0].due.Sub(now)
	if d > 2*describeRetryMax {
		return 0
	}
	return d
}
