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

// enough says whether the records of the rev that we hold are all that the filter wants of it. What else it wants
// is then done without a fetch, by whoever brings repositories to it.
func (t *task) enough() bool {
	row := &t.row
	if row.Rev == "" || row.Torn || row.Lacks {
		return false
	}
	if row.Filter == t.filter.Selection {
		return true // as of most: comparing 10,000 patterns takes milliseconds
	}
	old, err := t.r.store.FilterAt(row.Filter)
	if err != nil {
		return false // deleted, since the row has changed while its fetch was prepared
	}
	rel := refilter.Relate(old, t.filter.Filter)
	return !rel.Lacks && (!rel.Judges || rel.Sees || !refilter.OnSignal(t.filter.Filter, row))
}

// recheck asks the host whether it has anything but what we hold, and ends the task if it has not.
func (t *task) recheck(ctx context.Context) (outcome, error) {
	l, err := t.latestCommit(ctx)
	switch {
	case err != nil && saysNothing(err):
		return outcome{}, nil // the fetch will tell
	case err != nil:
		return outcome{}, err
	case l.CID != repo.HashCID(t.row.Commit).String():
		return outcome{}, nil
	}
	// The very commit we hold. Hosts that imported a repository name a later rev than the commit's own.
	t.stated = l.Rev
	t.r.judge(t, verdict{spoke: true})
	row, err := t.update(func(b *store.Batch, row *store.Repo) error {
		if err := reveal(b, row); err != nil || row.Ordinal == 0 {
			return err
		}
		t.conclude(b, row, true)
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

// confirm asks the host of an account that is not to be fetched, whatever the host says: because a relay hides it, or because
// it is not followed, said to be deleted, and its data held. It ends the task if the host says that the account is active.
func (t *task) confirm(ctx context.Context) (outcome, error) {
	_, err := t.latestCommit(ctx)
	if err != nil && !(t.row.HiddenByRelay() && saysNothing(err)) {
		return outcome{}, err
	}
	t.r.judge(t, verdict{spoke: true})
	row, err := t.update(func(b *store.Batch, row *store.Repo) error {
		t.closeWindow()
		b.DropBuffer(row)
		switch {
		case t.toldSince(row):
			row.Attempt++ // still pending: the host is asked again
		case !row.HiddenByRelay():
			row.Retry, row.Missing = store.Retry{}, 0
			b.Untrack(row)
			return reveal(b, row)
		case t.r.opts.Follows(row.AccountSource):
			t.hideAs(b, row, row.Status, store.OriginRelay, "a relay says "+row.Status.String()+", its host active", t.r.opts.Now())
		default: // nobody would tell us when that relay changes its mind: the host has the last word
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

// passedOver says whether a repository was found in a network that is followed no longer as a whole, never fetched, and holds
// nothing that a signal names, as its host says: millions of them need no copy to be judged. Who does not say is fetched.
func (t *task) passedOver(ctx context.Context) (bool, error) {
	if t.row.Ordinal != 0 || t.row.Tracked != store.ByNetwork || !refilter.OnSignal(t.filter.Filter, &t.row) || t.r.copier.FetchesWhole(t.it.did) {
		return false, nil
	}
	answer, err := t.query(ctx, "com.atproto.repo.describeRepo", "&repo="+url.QueryEscape(t.it.did), hosts.DescribeBodyMax)
	var a *hosts.AnswerError
	switch {
	case errors.As(err, &a) && a.Code != http.StatusTooManyRequests, hosts.QueriesSpent(err):
		return false, nil // the fetch will tell
	case err != nil:
		return false, err
	}
	if holds, err := hosts.HoldsAny(answer, t.it.did, t.filter.Signal); err != nil || holds {
		return false, nil // the fetch will tell
	}
	t.commit.Rev = t.row.SeenRev // no older
	t.signal = false
	return true, nil
}

func (t *task) latestCommit(ctx context.Context) (l latest, err error) {
	b, err := t.query(ctx, "com.atproto.sync.getLatestCommit", "", latestBodyMax)
	if err == nil && json.Unmarshal(b, &l) != nil {
		l = latest{} // no rev
	}
	return l, err
}

// saysNothing: the host answered, but neither that the account is not to be had nor that we should
// leave it alone. It may not know the question, or its quota of queries may be spent while that of fetches is not.
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
