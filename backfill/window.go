package backfill

import (
	"cistern/backfill/hosts"
	"cistern/store"
)

// window is the time in which a task may change its row. It begins when the task reads the row, and
// the critical section that ends the task closes it. From open to close the store buffers the live
// commits of the repository.
type window struct {
	store *store.Store
	did   string

	row      store.Repo          // as read when the task began; after open, when the fetch began
	filter   store.FilterVersion // in force when the fetch began: it selects the records
	fetching bool                // live commits are buffered: between open and close
}

// open starts buffering the live commits of the repository: the copy that the host sends may or may
// not include them. Every path that ends the task closes the window again, under the lock of the
// DID. fetchedBy returns the filter in force.
func (w *window) open(fetchedBy func(did string) store.FilterVersion) error {
	if w.fetching {
		return nil
	}
	wait, err := w.store.UpdateRepo(w.did, func(b *store.Batch, row *store.Repo) error {
		if !w.owns(row) {
			return store.ErrStale
		}
		if w.store.Buffered(row.DID) > 0 {
			// The buffer is left from an earlier fetch: the repository was queued again before the
			// buffer was drained. Later commits may be missing from it.
			b.DropBuffer(row)
			b.PutRepo(row)
		}
		w.row = *row // includes the highest rev announced before the fetch
		w.filter = fetchedBy(row.DID)
		if w.filter.Excluded(row.DID) {
			return store.ErrStale // the next task forgets the repository
		}
		w.fetching = true
		w.store.BeginFetch(row.DID)
		return nil
	})
	if err == nil {
		err = wait()
	}
	return hosts.OfStore(err)
}

// owns reports whether the row still belongs to this task. Called under the lock of the DID.
func (w *window) owns(row *store.Repo) bool {
	return row.Attempt == w.row.Attempt && row.State == store.StatePending &&
		(row.Tracked != store.Untracked || row.Unconfirmed())
}

// askedSince reports whether the operator requested a fetch after this one began. The copy of this
// fetch may be older than what the operator wants to see.
func (w *window) askedSince(row *store.Repo) bool {
	raised := row.Pending.Priority == store.PriorityOperator &&
		w.row.Pending.Priority != store.PriorityOperator
	return raised || row.Asked != w.row.Asked
}

// update changes the row under its lock, unless the row no longer belongs to the attempt of this
// task (ErrStale). When it returns, the change is durable.
func (w *window) update(change func(b *store.Batch, row *store.Repo) error) (
	row store.Repo, err error) {
	wait, err := w.store.UpdateRepo(w.did, func(b *store.Batch, now *store.Repo) error {
		if !w.owns(now) {
			return store.ErrStale
		}
		err := change(b, now)
		if err == nil {
			b.PutRepo(now)
		}
		row = *now
		return err
	})
	if err == nil {
		err = wait()
	}
	return row, hosts.OfStore(err)
}

// close stops buffering. It is called under the lock of the DID, in the critical section that ends
// the task.
func (w *window) close() {
	if w.fetching {
		w.fetching = false
		w.store.EndFetch(w.did)
	}
}

// abandon closes the window of a task that writes no copy. The buffered commits are dropped,
// because commits before them may be missing; the row keeps the highest rev instead.
func (w *window) abandon() error {
	if !w.fetching {
		return nil
	}
	wait, err := w.store.UpdateRepo(w.did, func(b *store.Batch, row *store.Repo) error {
		w.close()
		if w.store.Buffered(row.DID) > 0 {
			b.DropBuffer(row)
			b.PutRepo(row)
		}
		return nil
	})
	if err == nil {
		err = wait()
	}
	return hosts.OfStore(err)
}
