package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"cistern/backfill/hosts"
	"cistern/backfill/refilter"
	"cistern/ingest/repo"
	"cistern/store"
)

// latest is an answer of getLatestCommit.
type latest struct {
	CID string `json:"cid"`
	Rev string `json:"rev"`
}

// enough reports whether the stored rev has all records that the filter wants. If the filter
// differs in other ways, the refilter pass updates the repository without a fetch.
func (t *task) enough() bool {
	row := &t.win.row
	if row.Rev == "" || row.Torn || row.Lacks {
		return false
	}
	if row.Filter == t.win.filter.Selection {
		return true // the usual case, and cheap: comparing 10,000 patterns takes milliseconds
	}
	old, err := t.r.store.FilterAt(row.Filter)
	if err != nil {
		return false // deleted: the row changed while its fetch was prepared
	}
	rel := refilter.Relate(old, t.win.filter.Filter)
	return !rel.Lacks && (!rel.Judges || rel.Sees || !refilter.OnSignal(t.win.filter.Filter, row))
}

// recheck asks the host for its latest commit, and ends the task if that is the stored commit.
func (t *task) recheck(ctx context.Context) (outcome, error) {
	l, err := t.latestCommit(ctx)
	switch {
	case err != nil && saysNothing(err):
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

// confirm asks the host about an account that must not be fetched: because a relay hides it, or
// because it is not followed, its deletion was announced, and its data is stored. It ends the task
// if the host reports the account as active.
func (t *task) confirm(ctx context.Context) (outcome, error) {
	_, err := t.latestCommit(ctx)
	if err != nil && !(t.win.row.HiddenByRelay() && saysNothing(err)) {
		return outcome{}, err
	}
	t.r.dispatcher.judge(t.claim, verdict{spoke: true})
	row, err := t.win.update(func(b *store.Batch, row *store.Repo) error {
		t.win.close()
		b.DropBuffer(row)
		switch {
		case t.toldSince(row):
			row.Attempt++ // still pending: the host is asked again
		case !row.HiddenByRelay():
			row.Retry, row.Missing = store.Retry{}, 0
			b.Untrack(row)
			return reveal(b, row)
		case t.r.opts.Follows(row.AccountSource):
			t.hideAs(b, row, row.Status, store.OriginRelay, "a relay reports "+row.Status.String()+", the account's host active", t.r.opts.Now())
		default: // that relay is not followed, so a change of its decision would go unnoticed
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

// passedOver reports whether a repository must be forgotten without a fetch. It was found while its
// whole network was followed, which is no longer the case, it was never fetched, and its host
// reports no collection that a signal names. Without this query millions of repositories would be
// fetched only to be forgotten. If the host does not answer the query, the repository is fetched.
func (t *task) passedOver(ctx context.Context) (bool, error) {
	if t.win.row.Ordinal != 0 || t.win.row.Tracked != store.ByNetwork || !refilter.OnSignal(t.win.filter.Filter, &t.win.row) || t.r.copier.FetchesWhole(t.it.did) {
		return false, nil
	}
	answer, err := t.query(ctx, "com.atproto.repo.describeRepo", "&repo="+url.QueryEscape(t.it.did), hosts.DescribeBodyMax)
	var a *hosts.AnswerError
	switch {
	case errors.As(err, &a) && a.Code != http.StatusTooManyRequests, hosts.QueriesSpent(err):
		return false, nil // the fetch decides
	case err != nil:
		return false, err
	}
	if holds, err := hosts.HoldsAny(answer, t.it.did, t.win.filter.Signal); err != nil || holds {
		return false, nil // the fetch decides
	}
	t.land.commit.Rev = t.win.row.SeenRev // counts as no older than the announced rev
	t.land.signal = false
	return true, nil
}

func (t *task) latestCommit(ctx context.Context) (l latest, err error) {
	b, err := t.query(ctx, "com.atproto.sync.getLatestCommit", "", latestBodyMax)
	if err == nil && json.Unmarshal(b, &l) != nil {
		l = latest{} // not an answer: no rev
	}
	return l, err
}

// saysNothing reports whether an error leaves open whether the repository is available, and does
// not ask for a pause. The host may not support the query, or its quota of queries may be spent
// while its quota of fetches is not.
func saysNothing(err error) bool {
	var answer *hosts.AnswerError
	if !errors.As(err, &answer) {
		return errors.Is(err, repo.ErrInvalid) || hosts.QueriesSpent(err)
	}
	if answer.Code == http.StatusNotImplemented {
		return true
	}
	return answer.Code < 500 && answer.Code != http.StatusTooManyRequests && !strings.HasPrefix(answer.Name, "Repo")
}
