package backfill

import "cistern/store"

// openWindow starts buffering the live commits of the repository: the copy that the host sends may
// or may not include them. Every path that ends the task closes the window again, under the lock of
// the DID.
func (t *task) openWindow() error {
	if t.fetching {
		return nil
	}
	wait, err := t.beginFetch()
	if err != nil {
		return err
	}
	return ours(wait())
}

func (t *task) beginFetch() (wait func() error, err error) {
	wait, err = t.r.store.UpdateRepo(t.it.did, func(b *store.Batch, row *store.Repo) error {
		if !t.owns(row) {
			return store.ErrStale
		}
		if t.r.store.Buffered(row.DID) > 0 {
			// The buffer is from an earlier fetch whose repository was queued again before the
			// buffer was drained. Commits behind it may be missing.
			b.DropBuffer(row)
			b.PutRepo(row)
		}
		t.row = *row // includes the highest rev announced before the fetch
		t.filter = t.r.dispatcher.fetchedBy(row.DID)
		if t.filter.Excluded(row.DID) {
			return store.ErrStale // the next task forgets it
		}
		t.fetching = true
		t.r.store.BeginFetch(row.DID)
		return nil
	})
	return wait, ours(err)
}

// owns reports whether the row still waits for this task. Called under the lock of the DID.
func (t *task) owns(row *store.Repo) bool {
	return row.Attempt == t.row.Attempt && row.State == store.StatePending && (row.Tracked != store.Untracked || row.Unconfirmed())
}

// askedSince reports whether the operator requested a fetch after this one began. The copy of this
// fetch may be older than what the operator wants to see.
func (t *task) askedSince(row *store.Repo) bool {
	raised := row.Pending.Priority == store.PriorityOperator && t.row.Pending.Priority != store.PriorityOperator
	return raised || row.Asked != t.row.Asked
}

// closeWindow stops buffering. It is called under the lock of the DID, in the critical section that
// ends the task.
func (t *task) closeWindow() {
	if t.fetching {
		t.fetching = false
		t.r.store.EndFetch(t.it.did)
	}
}

// abandon closes the window of a task that writes no copy. The buffered commits are dropped,
// because commits before them may be missing; the row keeps the highest rev instead.
func (t *task) abandon() error {
	if !t.fetching {
		return nil
	}
	wait, err := t.dropWindow()
	if err != nil {
		return err
	}
	return ours(wait())
}

func (t *task) dropWindow() (wait func() error, err error) {
	wait, err = t.r.store.UpdateRepo(t.it.did, func(b *store.Batch, row *store.Repo) error {
		t.closeWindow()
		if t.r.store.Buffered(row.DID) > 0 {
			b.DropBuffer(row)
			b.PutRepo(row)
		}
		return nil
	})
	return wait, ours(err)
}
