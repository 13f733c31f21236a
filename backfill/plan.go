package backfill

import (
	"context"
	"errors"

	"cistern/backfill/refilter"
	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/store"
)

// plan states what an attempt asks the host. It is made before the first request. The questions are
// asked in the order of the fields, and an answer may make later questions needless. The plan does
// not state whether a fetch asks for the whole repository or for parts: package fetch decides that
// by the quotas that earlier answers have announced.
type plan struct {
	status      bool // only whether the account is available: it must not be fetched
	latest      bool // for the latest commit: if it is the stored one, nothing is fetched
	collections bool // for the collections: if a signal names none of them, nothing is fetched
}

// planOf returns the plan for a row, as it was when its fetch began, and for the filter of the
// fetch. filterAt returns the filter of a selection. whole reports whether to fetch a repository
// without queries before the fetch.
func planOf(row *store.Repo, by store.FilterVersion,
	filterAt func(selection uint32) (*filter.Filter, error), whole func(did string) bool) plan {
	// Either a relay hides the account, or the account is not followed, its deletion was announced,
	// and its data is stored.
	if row.HiddenByRelay() || row.Tracked == store.Untracked {
		return plan{status: true}
	}
	// The repository was found while the whole network was followed, was never fetched, and the
	// filter has signals now. Without the query millions of such repositories would be fetched only
	// to be forgotten.
	unseen := row.Ordinal == 0 && row.Tracked == store.ByNetwork && refilter.OnSignal(by.Filter, row)
	return plan{
		latest:      row.Recheck && enough(row, by, filterAt),
		collections: unseen && !whole(row.DID),
	}
}

// enough reports whether the stored rev has all records that the filter wants. If the filter
// differs in other ways, the refilter pass updates the repository without a fetch.
func enough(row *store.Repo, by store.FilterVersion,
	filterAt func(selection uint32) (*filter.Filter, error)) bool {
	if row.Rev == "" || row.Torn || row.Lacks {
		return false
	}
	if row.Filter == by.Selection {
		return true // the usual case; comparing 10,000 patterns would take milliseconds
	}
	old, err := filterAt(row.Filter)
	if err != nil {
		return false // the selection was deleted: the row changed while its fetch was prepared
	}
	rel := refilter.Relate(old, by.Filter)
	return !rel.Lacks && (!rel.Judges || rel.Sees || !refilter.OnSignal(by.Filter, row))
}

// attempt asks the host as planned, and writes the copy that it sends.
func (t *task) attempt(ctx context.Context) (outcome, error) {
	if err := t.win.open(t.r.dispatcher.fetchedBy); err != nil {
		return outcome{}, err
	}
	t.path.Step("request")
	p := t.ask.plan()
	if p.status {
		return t.confirm(ctx)
	}
	if p.latest {
		if out, err := t.recheck(ctx); out.ended || err != nil {
			return out, err
		}
	}
	if p.collections {
		if out, err := t.describe(ctx); out.ended || err != nil {
			return out, err
		}
	}
	c, err := t.ask.copy(ctx)
	if err != nil {
		return outcome{}, errors.Join(err, t.fetchWholeNext(err))
	}
	t.land.take(c)
	// The host has finished its part.
	t.permit.Fetched()
	t.r.dispatcher.judge(t.claim, verdict{spoke: true})
	t.r.dispatcher.release(t.claim, false)
	out, err := t.write(ctx, c)
	if cerr := c.Close(); err == nil && !out.ended && !t.passed {
		err = cerr
	}
	return out, err
}

// recheck asks the host for its latest commit, and ends the task if that is the stored commit.
func (t *task) recheck(ctx context.Context) (outcome, error) {
	l, err := t.ask.latestCommit(ctx)
	switch {
	case err != nil && inconclusive(err):
		return outcome{}, nil // the fetch decides
	case err != nil:
		return outcome{}, err
	case l.CID != repo.HashCID(t.win.row.Commit).String():
		return outcome{}, nil
	}
	// The commit is the stored one. Hosts that imported a repository report a later rev than that
	// of the commit.
	t.land.stated = l.Rev
	t.r.dispatcher.judge(t.claim, verdict{spoke: true})
	row, err := t.win.update(func(b *store.Batch, row *store.Repo) error {
		if err := reveal(b, row); err != nil || row.Ordinal == 0 {
			return err
		}
		t.land.conclude(b, row, true)
		return nil
	})
	if err == nil && row.Ordinal == 0 {
		err = store.ErrStale // wiped: the next attempt is a first copy
	}
	if err != nil {
		return outcome{}, err
	}
	return t.done(row), nil
}

// confirm asks the host about an account that must not be fetched: either a relay hides it, or it
// is not followed, its deletion was announced, and its data is stored. It ends the task if the host
// reports the account as active.
func (t *task) confirm(ctx context.Context) (outcome, error) {
	_, err := t.ask.latestCommit(ctx)
	if err != nil && !(t.win.row.HiddenByRelay() && inconclusive(err)) {
		return outcome{}, err
	}
	t.r.dispatcher.judge(t.claim, verdict{spoke: true})
	row, err := t.win.update(func(b *store.Batch, row *store.Repo) error {
		t.win.close()
		b.DropBuffer(row)
		switch {
		case t.overtaken(row):
			row.Attempt++ // still pending: the host is asked again
		case !row.HiddenByRelay():
			row.Retry, row.Missing = store.Retry{}, 0
			b.Untrack(row)
			return reveal(b, row)
		case t.r.opts.Follows(row.AccountSource):
			t.hide(b, row, stillHidden(row, "active"), t.r.opts.Now())
		default: // the relay is not followed, so a change of its decision would go unnoticed
			row.Origin = store.OriginHost
			row.Attempt++
		}
		return nil
	})
	if err != nil {
		return outcome{}, err
	}
	return ended(row, resultGone), nil
}

// describe asks the host for the collections of the repository, and ends the task if a signal names
// none of them.
func (t *task) describe(ctx context.Context) (outcome, error) {
	if signalless, err := t.ask.signalless(ctx); !signalless || err != nil {
		return outcome{}, err
	}
	t.land.commit.Rev = t.win.row.SeenRev // so that the answer is not older than the announced rev
	t.land.signal = false
	t.r.dispatcher.judge(t.claim, verdict{spoke: true})
	t.r.dispatcher.release(t.claim, true)
	return t.forget(ctx)
}
