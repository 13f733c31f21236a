package backfill

import (
	"context"
	"sync"
	"time"

	"cistern/backfill/hosts"
	"cistern/loop"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// retries makes due rows pending. It sleeps until the next row is due.
type retries struct {
	store    *store.Store
	queued   func(host uint32) // reports a row in the queue of a host
	requeued prometheus.Counter
	now      func() time.Time

	kick chan struct{} // wakes run

	mu   sync.Mutex
	next int64 // mu guards; the time until which run sleeps, 0 while it reads rows
}

// run requeues repositories when they are due. It reads only rows that are due.
func (r *retries) run(ctx context.Context) error {
	for ctx.Err() == nil {
		now := r.now()
		r.setDue(0) // a row written after this wakes the loop; an earlier row is read now
		dids, next, err := r.store.DueRetries(now, retryPage)
		if err != nil {
			return loop.Quiet(ctx, hosts.OfStore(err))
		}
		if err := r.requeue(ctx, dids, now); err != nil {
			return loop.Quiet(ctx, err)
		}
		if len(dids) == retryPage {
			continue
		}
		d := sleepMax
		if !next.IsZero() {
			r.setDue(next.Unix())
			d = min(d, next.Sub(now))
		}
		// If a page is empty although rows are due, this minimum prevents a busy loop.
		loop.Sleep(ctx, max(d, rescanEvery), r.kick)
	}
	return nil
}

// requeue makes all repositories of a page pending, and waits for the disk once.
func (r *retries) requeue(ctx context.Context, dids []string, now time.Time) error {
	var waits []func() error
	requeued := 0
	for _, did := range dids {
		gone, err := r.forgetGone(ctx, did)
		if err != nil {
			return err
		}
		if gone != nil {
			waits = append(waits, gone)
			continue
		}
		wait, host, err := r.requeueOne(did, now)
		if err != nil {
			return err
		}
		if wait != nil {
			waits = append(waits, wait)
			requeued++
			r.queued(host)
		}
	}
	for _, wait := range waits {
		if err := wait(); err != nil {
			return hosts.OfStore(err)
		}
	}
	r.requeued.Add(float64(requeued))
	return nil
}

// requeueOne makes a due repository pending. It keeps the row's retry count, which only a success
// resets.
func (r *retries) requeueOne(
	did string, now time.Time,
) (wait func() error, host uint32, err error) {
	due := false
	wait, err = r.store.UpdateRepo(did, func(b *store.Batch, row *store.Repo) error {
		if due = row.Known() && store.IsDue(row.Due(), now); !due {
			return nil
		}
		if row.State == store.StateSynced {
			row.Recheck = true // the copy is complete: only a new rev is worth a transfer
			row.SeenRev = ""   // not verified: the host's answer will show whether it exists
		}
		row.Retry.Next, row.FutureDue = 0, 0
		if row.Tracked != store.Untracked || row.Unconfirmed() {
			b.Enqueue(row, store.PriorityRetry)
		} else {
			b.Untrack(row)
		}
		b.PutRepo(row)
		host = row.Pending.Host
		return nil
	})
	if err != nil || !due {
		return nil, 0, hosts.OfStore(err)
	}
	return wait, host, nil
}

func (r *retries) setDue(next int64) {
	r.mu.Lock()
	r.next = next
	r.mu.Unlock()
}

// due wakes run if a row is due earlier than run sleeps.
func (r *retries) due(next int64) {
	r.mu.Lock()
	earlier := r.next == 0 || next < r.next
	if earlier {
		r.next = next
	}
	r.mu.Unlock()
	if earlier {
		loop.Wake(r.kick)
	}
}
