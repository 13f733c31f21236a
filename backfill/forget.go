package backfill

import (
	"context"
	"fmt"
	"slices"

	"cistern/backfill/refilter"
	"cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/store"
)

// disowns says whether the task has found out that its repository is not to be followed. Called under the DID's lock.
func (t *task) disowns(row *store.Repo) (bool, error) {
	if !t.fetching {
		return t.r.store.Filter().Excluded(row.DID), nil
	}
	if t.signal || !refilter.OnSignal(t.filter.Filter, row) {
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
func (t *task) forget(ctx context.Context) (outcome, error) {
	version := t.filter.Version
	if !t.fetching {
		version = t.r.store.Filter().Version
	}
	var unclear error // whether it is to be followed
	f := &refilter.Forget{Store: t.r.store, DID: t.it.did, Version: version, Held: true, Gone: t.closeWindow}
	f.Due = func(row *store.Repo) (goes bool, err error) {
		if t.owns(row) {
			goes, unclear = t.disowns(row)
		}
		return goes, unclear
	}
	wait, err := f.Run(ctx)
	switch {
	case unclear != nil:
		return outcome{}, unclear
	case err != nil:
		return outcome{}, ours(err)
	case wait == nil:
		return outcome{}, store.ErrStale
	}
	if err := ours(wait()); err != nil {
		return outcome{}, err
	}
	return ended(store.Repo{}, resultDropped), nil
}

// passBy, like run, forgets a repository that was not to be had as a network was followed as a whole, which it is no longer. Who was
// fetched, or shows a signal, is not forgotten.
func (r *Runner) passBy(ctx context.Context, did string) (wait func() error, err error) {
	now := r.store.Filter()
	if now.Full() {
		return nil, nil // without asking the host: hundreds a second are due after following a whole network
	}
	wait, err = (&refilter.Forget{Store: r.store, DID: did, Version: now.Version, Due: func(row *store.Repo) (bool, error) {
		return row.State == store.StateGone && row.Ordinal == 0 && row.Tracked == store.ByNetwork && refilter.OnSignal(now.Filter, row), nil
	}}).Run(ctx)
	return wait, ours(err)
}
