package backfill

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/store"
)

// forgetting takes a repository away of which nothing is to be known any more: first its records, with events, then
// its row. One that takes more than one batch is pending and torn meanwhile: live commits are not applied, and if it
// is to be followed after all, its next task fetches it.
type forgetting struct {
	r    *Runner
	did  string
	task *task // that found it out and has it in hand, or nil
	// due says without a task whether the row is to go. Asked under its lock, before anything is deleted.
	due     func(row *store.Repo) (bool, error)
	version uint32 // of the filter that says so: by another it may have to stay

	begun   bool
	attempt uint64
	ordinal store.Ordinal
	seen    string // the row's SeenRev
	waits   waits  // for the parts of a large repository
}

// run deletes the row. wait returns when the deletion is durable; it is nil when the row is to be
// kept after all. A caller that forgets many rows waits for the disk once.
func (f *forgetting) run(ctx context.Context) (wait func() error, err error) {
	wait, err = f.begin()
	if err == nil && wait == nil && f.begun {
		wait, err = f.parts(ctx)
	}
	if err != nil {
		return nil, err
	}
	return wait, nil
}

// begin drops a small repository at once, and has the row of a large one say what is under way.
func (f *forgetting) begin() (wait func() error, err error) {
	dropped := false
	wait, err = f.update(func(b *store.Batch, row *store.Repo) error {
		if row.Records+row.Shelved <= diffOpsMax {
			dropped = true
			ops, err := f.deletions(row)
			if err != nil {
				return err
			}
			return f.drop(b, row, ops)
		}
		switch {
		case f.task != nil:
		case row.Tracked != store.Untracked:
			b.Enqueue(row, store.PriorityRetry)
		default:
			row.Attempt++
		}
		row.Torn, row.Sweep = true, true
		b.PutRepo(row)
		f.begun, f.attempt, f.ordinal, f.seen = true, row.Attempt, row.Ordinal, row.SeenRev
		return nil
	})
	if err == nil && f.begun {
		f.waits.add(wait, 0)
	}
	if err != nil || !dropped {
		return nil, err
	}
	return wait, nil
}

// update calls change if the repository is, still, to go.
func (f *forgetting) update(change func(b *store.Batch, row *store.Repo) error) (wait func() error, err error) {
	var unclear error // about the repository, not the store's
	wait, err = f.r.store.UpdateRepo(f.did, func(b *store.Batch, row *store.Repo) error {
		goes, err := f.goes(row)
		if unclear = err; err != nil || !goes {
			return err
		}
		return change(b, row)
	})
	if unclear != nil {
		return nil, unclear
	}
	return wait, ours(err)
}

// goes reports whether the repository is, still, to be forgotten. Called under its lock.
func (f *forgetting) goes(row *store.Repo) (bool, error) {
	now := f.r.store.Filter()
	switch {
	case now.Version != f.version, !row.Known():
		return false, nil
	case f.task != nil:
		if !f.task.owns(row) {
			return false, nil
		}
		return f.task.disowns(row)
	case f.begun:
		// A commit that came meanwhile was not applied, and may show a signal: then a fetch is to say.
		return row.Attempt == f.attempt && row.Torn && !f.r.store.Fetching(f.did) && (row.SeenRev == f.seen || now.Excluded(f.did)), nil
	}
	return f.due(row)
}

// deletions are of all records of a small repository.
func (f *forgetting) deletions(row *store.Repo) (ops []store.Op, err error) {
	if row.Ordinal == 0 {
		return nil, nil
	}
	rows, err := f.r.store.Rows(row.Ordinal)
	if err != nil {
		return nil, ours(err)
	}
	for rows.Next() {
		ops = append(ops, deletion(rows.Row()))
	}
	return ops, ours(rows.Close())
}

func deletion(row store.Row) store.Op { return store.Op{Path: slices.Clone(row.Path)} }

// parts deletes the records of a large repository. Nobody writes others meanwhile.
func (f *forgetting) parts(ctx context.Context) (wait func() error, err error) {
	rows, err := f.r.store.Rows(f.ordinal)
	if err != nil {
		return nil, ours(err)
	}
	var ops []store.Op
	for more, goes := rows.Next(), true; more && goes && err == nil; {
		if len(ops) == diffOpsMax {
			goes, err = f.part(ops)
			ops = ops[:0]
			err = errors.Join(err, ours(f.waits.bound()), ctx.Err())
		}
		ops = append(ops, deletion(rows.Row()))
		more = rows.Next()
	}
	if err = errors.Join(err, ours(f.waits.settle()), ours(rows.Close())); err != nil {
		return nil, err
	}
	goes := false
	wait, err = f.update(func(b *store.Batch, row *store.Repo) error {
		goes = true
		return f.drop(b, row, ops)
	})
	if err != nil || !goes {
		return nil, err
	}
	return wait, nil
}

func (f *forgetting) part(ops []store.Op) (goes bool, err error) {
	var n int64
	wait, err := f.update(func(b *store.Batch, row *store.Repo) error {
		goes = true
		if err := b.Apply(row, false, f.rev(row), ops); err != nil {
			return err
		}
		b.PutRepo(row)
		n = b.Bytes()
		return nil
	})
	if err == nil {
		f.waits.add(wait, n)
	}
	return goes, err
}

// drop deletes what is left, and the row. Readers who were told that the account is not active, and so hold nothing of it, are
// told otherwise last: if it is ever found again, nobody else will.
func (f *forgetting) drop(b *store.Batch, row *store.Repo, ops []store.Op) error {
	row.Sweep = true // whatever is held goes
	if len(ops) > 0 {
		if err := b.Apply(row, false, f.rev(row), ops); err != nil {
			return err
		}
	}
	activate(b, row)
	b.DropBuffer(row)
	if err := b.DropRepo(row); err != nil {
		return err
	}
	if f.task != nil {
		f.task.closeWindow()
	}
	return nil
}

// rev is that of the deletions: none told of the repository is higher.
func (f *forgetting) rev(row *store.Repo) string {
	return max(row.Rev, row.TornRev)
}

// disowns says whether the task has found out that its repository is not to be followed. Called under the DID's lock.
func (t *task) disowns(row *store.Repo) (bool, error) {
	if !t.fetching {
		return t.r.store.Filter().Excluded(row.DID), nil
	}
	if t.signal || !onSignal(t.filter.Filter, row) {
		return false, nil
	}
	return true, t.outdone(row)
}

// errOutdone: a copy has no record that a signal names, and what was seen besides may be one.
var errOutdone = fmt.Errorf("the copy shows no signal, and a commit that it is without may: %w", repo.ErrInvalid)

// outdone is an error if the copy is of before a commit that shows a signal, or the host older than what was seen of it
// some times. To forget the repository would lose that commit.
func (t *task) outdone(row *store.Repo) error {
	late := row.SeenRev > t.commit.Rev && row.Retry.Count < lagsMax
	var f frame.Frame
	err := t.r.store.BufferedCommits(row.DID, func(rev string, message []byte) error {
		if late || rev <= t.commit.Rev || f.Decode(message) != nil {
			return nil
		}
		late = f.TooBig || slices.ContainsFunc(f.Ops, func(op frame.Op) bool {
			collection, _, valid := repo.SplitPath(op.Path)
			return valid && op.CID.Defined() && t.filter.Signal(collection)
		})
		return nil
	})
	if err != nil || !late {
		return ours(err)
	}
	return errOutdone
}

// forget ends the task of a repository that is not to be followed.
func (t *task) forget(ctx context.Context) error {
	f := &forgetting{r: t.r, did: t.it.did, task: t, version: t.filter.Version}
	if !t.fetching {
		f.version = t.r.store.Filter().Version
	}
	wait, err := f.run(ctx)
	switch {
	case err == nil && wait == nil:
		err = store.ErrStale
	case err == nil:
		err = ours(wait())
	}
	if err != nil {
		return err
	}
	t.r.metrics.tasks.WithLabelValues(resultDropped).Inc()
	t.r.leave(t)
	return nil
}

// passBy, like run, forgets a repository that was not to be had as a network was followed as a whole, which it is no longer. Who was
// fetched, or shows a signal, is not forgotten.
func (r *Runner) passBy(ctx context.Context, did string) (wait func() error, err error) {
	now := r.store.Filter()
	if now.Full() {
		return nil, nil // without asking the host: hundreds a second are due after following a whole network
	}
	return (&forgetting{r: r, did: did, version: now.Version, due: func(row *store.Repo) (bool, error) {
		return row.State == store.StateGone && row.Ordinal == 0 && row.Tracked == store.ByNetwork && onSignal(now.Filter, row), nil
	}}).run(ctx)
}
