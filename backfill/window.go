package backfill

import "cistern/store"

// openWindow has the live commits of the repository buffered from now on: what the host sends after
// this may hold them or not. Whatever ends the task closes the window again, under the DID's lock.
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
			// Of an earlier fetch, queued again before it was drained: others may be missing behind it.
			b.DropBuffer(row)
			b.PutRepo(row)
		}
		t.row = *row // with the highest rev seen before the fetch
		t.filter = t.r.workingBy(row.DID)
		if t.filter.Excluded(row.DID) {
			return store.ErrStale // the next task forgets it
		}
		t.fetching = true
		t.r.store.BeginFetch(row.DID)
		return nil
	})
	return wait, ours(err)
}

// owns says whether the row still waits for this task. Called under the DID's lock.
func (t *task) owns(row *store.Repo) bool {
	return row.Attempt == t.row.Attempt && row.State == store.StatePending && (row.Tracked != store.Untracked || row.Unconfirmed())
}

// askedSince reports whether the operator asked for a fetch after this one began. What it brings may be older than what the
// operator wants to see.
func (t *task) askedSince(row *store.Repo) bool {
	raised := row.Pending.Priority == store.PriorityOperator && t.row.Pending.Priority != store.PriorityOperator
	return raised || row.Asked != t.row.Asked
}

// closeWindow is called under the DID's lock, in the critical section that ends the task.
func (t *task) closeWindow() {
	if t.fetching {
		t.fetching = false
		t.r.store.EndFetch(t.it.did)
	}
}

// abandon closes the window of a task that writes nothing itself. What was buffered is of no use,
// since nobody knows what will be missing before it: the row remembers the rev instead.
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

// workingBy is the filter in force, by which a DID in flight is fetched from now on.
func (r *Runner) workingBy(did string) store.FilterVersion {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.store.Filter() // under mu, so that worksBefore knows of those that read an older one
	r.versions[did] = f.Version
	return f
}

// worksBefore says whether a task is under way that works by an older filter than that version.
func (r *Runner) worksBefore(version uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range r.versions {
		if v < version {
			return true
		}
	}
	return false
}
