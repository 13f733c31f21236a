package backfilltest

import (
	"errors"
	"fmt"

	"cistern/store"
)

// Add tracks repositories by name.
func (w *World) Add(dids ...string) {
	w.T.Helper()
	for _, did := range dids {
		w.ChangeIn(did, func(b *store.Batch, r *store.Repo) {
			if r.Tracked == store.Untracked {
				b.Track(r, store.ByOperator, store.PriorityOperator)
				return
			}
			r.Tracked = store.ByOperator
			b.Enqueue(r, store.PriorityOperator)
			r.Pending.Priority = store.PriorityOperator
		})
	}
	w.Wake()
}

// Change changes a row.
func (w *World) Change(did string, f func(r *store.Repo)) {
	w.T.Helper()
	w.ChangeIn(did, func(_ *store.Batch, r *store.Repo) { f(r) })
}

// ChangeIn changes a row in a batch.
func (w *World) ChangeIn(did string, f func(b *store.Batch, r *store.Repo)) {
	w.T.Helper()
	wait, err := w.Store.UpdateRepo(did, func(b *store.Batch, r *store.Repo) error {
		f(b, r)
		b.PutRepo(r)
		return nil
	})
	if err == nil {
		err = wait()
	}
	if err != nil {
		w.T.Fatal(err)
	}
}

// Publish waits until the log has every event of a row as it is now: reads see a row before its
// events are durable and published. It writes the row anew, in a batch that comes after all others.
func (w *World) Publish(did string) {
	w.T.Helper()
	if r, err := w.Store.Repo(did); err == nil && r.Known() {
		w.Change(did, func(*store.Repo) {})
	}
}

// Know stores an account that is not followed.
func (w *World) Know(did string) {
	w.T.Helper()
	w.ChangeIn(did, func(b *store.Batch, r *store.Repo) {
		b.Track(r, store.ByOperator, 0)
		b.Untrack(r)
	})
}

// Untrack stops following a repository.
func (w *World) Untrack(did string) {
	w.T.Helper()
	w.ChangeIn(did, func(b *store.Batch, r *store.Repo) { b.Untrack(r) })
}

// Row returns the row of a repository.
func (w *World) Row(did string) store.Repo {
	w.T.Helper()
	r, err := w.Store.Repo(did)
	if err != nil {
		w.T.Fatalf("row of %s: %v", did, err)
	}
	return r
}

// Known reports whether the store has a row of a repository.
func (w *World) Known(did string) bool {
	_, err := w.Store.Repo(did)
	return !errors.Is(err, store.ErrNotFound)
}

// Settle waits until a repository has left the queue and its task has ended.
func (w *World) Settle(dids ...string) {
	w.T.Helper()
	for _, did := range dids {
		w.Until(fmt.Sprintf("%s to leave the queue", did), func() bool {
			return w.Row(did).State != store.StatePending && !w.Run.InFlight(did)
		})
	}
}

// Say applies an #account event of a relay as package ingest does.
func (w *World) Say(did string, status store.Status) {
	w.T.Helper()
	w.Change(did, func(r *store.Repo) {
		r.State, r.Status, r.Origin = store.StateGone, status, store.OriginRelay
		r.AccountTime, r.AccountSource = r.AccountTime+1, RelaySource
		r.Attempt++
		r.Recheck, r.Retry = r.Ordinal != 0, store.Retry{Next: w.Clock.Now().Unix()}
	})
	w.Wake()
}

// RelaySource is the source that Say names.
const RelaySource = 7

// Settled waits until the host of an account with an account event has been asked.
func (w *World) Settled(did string, attempt uint64) store.Repo {
	w.T.Helper()
	w.Until("its host to be asked", func() bool {
		r := w.Row(did)
		due := r.State == store.StateGone && r.Retry.Next != 0 && r.Retry.Next <= w.Clock.Now().Unix()
		return r.Attempt != attempt && r.State != store.StatePending && !due && !w.Run.InFlight(did)
	})
	return w.Row(did)
}
