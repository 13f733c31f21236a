package backfill

import (
	"context"
	"fmt"
	"slices"

	"cistern/backfill/hosts"
	"cistern/backfill/refilter"
	"cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/store"
)

// mustForget reports whether the repository must not be followed. The lock of its DID is held.
func (t *task) mustForget(row *store.Repo) (bool, error) {
	if !t.win.fetching {
		return t.r.store.Filter().Excluded(row.DID), nil
	}
	if t.land.signal || !refilter.OnSignal(t.win.filter.Filter, row) {
		return false, nil
	}
	return true, t.land.checkNewer(row)
}

// errNewerSignal means that the copy has no record that a signal names, but newer commits may.
var errNewerSignal = fmt.Errorf("the copy shows no signal, but a newer commit may: %w",
	repo.ErrInvalid)

// checkNewer returns an error if a buffered commit that is newer than the copy may have a record
// that a signal names. For the first lagsMax attempts it also returns an error if the host serves
// an older rev than was announced. Forgetting the repository would lose those commits.
func (l *landing) checkNewer(row *store.Repo) error {
	late := row.SeenRev > l.commit.Rev && row.Retry.Count < lagsMax
	var f frame.Frame
	err := l.win.store.BufferedCommits(row.DID, func(rev string, message []byte) error {
		if late || rev <= l.commit.Rev || f.Decode(message) != nil {
			return nil
		}
		late = f.TooBig || slices.ContainsFunc(f.Ops, func(op frame.Op) bool {
			collection, _, valid := repo.SplitPath(op.Path)
			return valid && op.CID.Defined() && l.win.filter.Signal(collection)
		})
		return nil
	})
	if err != nil || !late {
		return hosts.OfStore(err)
	}
	return errNewerSignal
}

// forget ends the task of a repository that must not be followed.
func (t *task) forget(ctx context.Context) (outcome, error) {
	version := t.win.filter.Version
	if !t.win.fetching {
		version = t.r.store.Filter().Version
	}
	var unclear error // why the task cannot tell whether the repository must be followed
	f := &refilter.Forget{Store: t.r.store, DID: t.it.did, Version: version,
		Held: true, Gone: t.win.close}
	f.Due = func(row *store.Repo) (goes bool, err error) {
		if t.win.owns(row) {
			goes, unclear = t.mustForget(row)
		}
		return goes, unclear
	}
	wait, err := f.Run(ctx)
	switch {
	case unclear != nil:
		return outcome{}, unclear
	case err != nil:
		return outcome{}, hosts.OfStore(err)
	case wait == nil:
		return outcome{}, store.ErrStale
	}
	if err := hosts.OfStore(wait()); err != nil {
		return outcome{}, err
	}
	return ended(store.Repo{}, resultDropped), nil
}

// forgetGone forgets an unavailable repository that was found while the whole network was followed,
// if the filter has changed to signals since. It does not ask the host, because hundreds of such
// rows are due each second. A repository that was fetched or shows a signal is kept. Like
// Forget.Run, forgetGone returns a nil wait if it forgot nothing.
func (r *retries) forgetGone(ctx context.Context, did string) (wait func() error, err error) {
	now := r.store.Filter()
	if now.Full() {
		return nil, nil // the whole network is followed
	}
	wait, err = (&refilter.Forget{Store: r.store, DID: did, Version: now.Version,
		Due: func(row *store.Repo) (bool, error) {
			return row.State == store.StateGone && row.Ordinal == 0 && row.Tracked == store.ByNetwork &&
				refilter.OnSignal(now.Filter, row), nil
		}}).Run(ctx)
	return wait, hosts.OfStore(err)
}
