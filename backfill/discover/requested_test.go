package discover_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"cistern/backfill/discover"
	"cistern/ingest/simnet"
	"cistern/store"
)

// waitsForLock reports whether a goroutine that runs a function waits for a mutex.
func waitsForLock(function string) bool {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for one := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(one, function) && strings.Contains(one, "sync.(*Mutex).Lock") {
			return true
		}
	}
	return false
}

// TestRequestWhileAPassMoves: a listing that is requested while its pass moves the cursor is read
// from the beginning: the pass does not overwrite the request.
func TestRequestWhileAPassMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 1}})
	w.Stop()
	const url = "http://moves.test"
	put := func(row store.Reconciliation) {
		b := w.Store.NewBatch()
		b.PutReconciliation(url, row)
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
	}
	put(store.Reconciliation{Stage: store.ReconcileReading, Cursor: "2"})
	// The pass has read its row, and found that it may move.
	unlock := w.Store.LockReconciliation(url)
	requested := make(chan error, 1)
	go func() {
		requested <- discover.RequestReconciliations(w.crawl, url, "http://another.test", url)
	}()
	for len(requested) == 0 && !waitsForLock("discover_test.TestRequestWhileAPassMoves.func") {
		time.Sleep(time.Millisecond)
	}
	put(store.Reconciliation{Stage: store.ReconcileReading, Cursor: "4"})
	unlock()
	if err := <-requested; err != nil {
		t.Fatal(err)
	}
	for url, row := range w.passes() {
		if row != (store.Reconciliation{}) {
			t.Errorf("%s is at %+v, want a request", url, row)
		}
	}
	if n := len(w.passes()); n != 2 {
		t.Errorf("%d listings to be compared, want 2", n)
	}
}

// TestListedTwice: a listing was requested again, and read to its end once more before the
// repositories absent from the first reading were queued. It must stay requested until the
// repositories absent from the second reading are queued, too. A crash between the two must not
// lose them.
func TestListedTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 1}})
	w.Stop()
	const url = "http://twice.test"
	var conclude []func() error
	for range 2 {
		w.gap(url)
		done, err := discover.EndListing(w.crawl, url)
		if err != nil {
			t.Fatal(err)
		}
		conclude = append(conclude, done)
	}
	for i, want := range []int{1, 0} {
		if err := conclude[i](); err != nil {
			t.Fatal(err)
		}
		if p := w.passes(); len(p) != want {
			t.Errorf("after reading %d was concluded: %+v", i+1, p)
		}
	}
}
