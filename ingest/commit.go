package ingest

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/store"
)

// prepareCommit verifies a #commit or #sync that may be applied. For an event that is not applied
// no key is looked up: there may be millions of such events.
func (it *item) prepareCommit(row *store.Repo) (done bool, err error) {
	switch row.State {
	case store.StatePending, store.StateResync:
		may := it.mayFollow(row)
		if it.rev <= row.Rev || row.State == store.StateResync && it.rev <= row.SeenRev && !may {
			return it.finish(outcomeSkipped)
		}
		if !may {
			break
		}
		if _, known := it.backlog.identify(row, it.now); known && it.check.verify(row) != needNothing {
			it.check.made = false // the key may have changed: the fetch will read it again
		}
	case store.StateGone:
		if it.rev <= max(row.SeenRev, row.Rev) {
			return it.finish(outcomeSkipped)
		}
		if mayRevive(row, it.now) {
			if n := it.check.verify(row); n != needNothing {
				return it.park(n)
			}
		}
	case store.StateDraining:
		it.s.startDrain(it.backlog)
		return it.finish(outcomeAgain)
	case store.StateSynced:
		if it.rev <= row.Rev {
			return it.finish(outcomeSkipped)
		}
		if it.job == jobCommit && it.f.TooBig {
			return false, nil
		}
		if it.e.Broken != nil {
			it.check.made, it.check.bad = true, refuse(refusedFrame, it.e.Broken)
			return false, nil
		}
		if n := it.check.verify(row); n != needNothing {
			return it.park(n)
		}
	}
	return false, nil
}

func (it *item) decideCommit(w *writing, row *store.Repo) error {
	if !row.Known() {
		it.discover(w, row, it.rev)
		return nil
	}
	switch row.State {
	case store.StatePending:
		if it.job == jobCommit && it.e.Broken == nil && it.r.store.Fetching(row.DID) {
			it.buffer(w, row)
			return nil
		}
		return it.followWaiting(w, row)
	case store.StateResync:
		return it.followWaiting(w, row)
	case store.StateGone:
		it.seen(w, row, it.rev)
		if it.outcome == outcomeSeen && it.check.made && it.check.bad == nil && !it.check.unsure &&
			mayRevive(row, it.now) {
			it.revive(w, row)
		}
		if unconfirmed(row) && it.outcome == outcomeSeen {
			row.Pending.Host = 0
			w.b.Enqueue(row, store.PriorityDiscovery)
			w.b.PutRepo(row)
			w.wake = true
		}
	case store.StateDraining:
		it.s.startDrain(it.backlog)
		it.outcome = outcomeAgain
	case store.StateSynced:
		return it.decideSynced(w, row)
	}
	return nil
}

// mayFollow reports whether a commit may be applied to a repository that waits for its host: our
// copy must be complete.
func (it *item) mayFollow(row *store.Repo) bool {
	whole := row.Ordinal != 0 && row.Rev != "" && !row.Torn && !row.Lacks && !row.Status.Hidden() &&
		row.Tracked != store.Untracked
	return whole && it.job == jobCommit && !it.f.TooBig && !it.r.store.Fetching(row.DID)
}

// followWaiting applies a commit that follows our copy although the repository waits for its host.
// A host that imported a repository may announce a rev that no commit has, and the account writes
// meanwhile. If no newer rev was announced, the row is synced again.
func (it *item) followWaiting(w *writing, row *store.Repo) error {
	fit := false
	if it.check.made && it.rev > row.Rev && it.mayFollow(row) {
		v, err := it.check.judge(row)
		if err != nil {
			return err
		}
		fit = v == fits && !it.check.partial
	}
	if !fit {
		it.seen(w, row, it.rev)
		return nil
	}
	it.outcome = outcomeApplied
	if err := it.check.apply(w, row); err != nil {
		return err
	}
	if row.State == store.StateResync && row.SeenRev == "" && row.Mark == store.MarkNone {
		w.b.Complete(row)
	}
	w.b.PutRepo(row)
	return nil
}

// mayRevive reports whether a commit of an inactive account is a reason to ask its host. It is none
// if the host is asked soon anyway, or if a relay, which the host cannot overrule, has hidden it.
func mayRevive(row *store.Repo, now time.Time) bool {
	soon := row.Retry.Next != 0 && row.Retry.Next <= now.Add(reviveSoon).Unix()
	return row.Tracked != store.Untracked && row.Resolved != 0 && !soon && !row.HiddenByRelay()
}

// revive queues a status check at the host of an inactive account, now or when the budget of
// refetches allows: a commit with the account's signature suggests that the account is active.
func (it *item) revive(w *writing, row *store.Repo) {
	it.backlog.learn(w, row)
	due := it.r.budget.spend(row, identity.HostOf(row.PDS), it.now)
	if due.IsZero() {
		due = it.now
	}
	if row.Retry.Next == 0 || due.Unix() < row.Retry.Next {
		row.Retry.Next = due.Unix()
	}
	row.Recheck = row.Ordinal != 0
	w.b.PutRepo(row)
	w.wake = true
}

// unconfirmed reports whether the status of an inactive account comes only from the listing of some
// host, or from the first event about the account, before its host was looked up. If such an
// account commits, its host is asked.
func unconfirmed(row *store.Repo) bool {
	return row.State == store.StateGone && row.Tracked != store.Untracked && row.Ordinal == 0 &&
		row.Resolved == 0 && row.Retry.Next == 0
}

// decideSynced applies an event to a complete repository: the event either follows our copy or
// shows that we lack something.
func (it *item) decideSynced(w *writing, row *store.Repo) error {
	switch {
	case it.rev <= row.Rev:
		return nil
	case it.job == jobCommit && it.f.TooBig:
		it.desync(w, row, it.rev, true, "commit %s is marked tooBig and has no operations", it.rev)
		it.outcome = outcomeDesynced
		return nil
	case !it.check.made:
		it.outcome = outcomeAgain // the row was not synced when the item was prepared
		return nil
	case it.job == jobSync:
		it.decideSync(w, row)
		return nil
	}
	return it.advance(w, row)
}

// advance applies a prepared commit to a complete repository. If the commit does not fit, the
// repository is fetched again.
func (it *item) advance(w *writing, row *store.Repo) error {
	v, err := it.check.judge(row)
	if err != nil {
		return err
	}
	if v == fits && it.check.partial && row.State == store.StateSynced &&
		it.r.budget.rested(row, it.now) {
		v = unproven
	}
	if v != fits {
		it.fail(w, row, v)
		return nil
	}
	it.outcome = outcomeApplied
	if err := it.check.apply(w, row); err != nil {
		return err
	}
	w.b.PutRepo(row)
	return nil
}

// fail has the repository fetched again.
func (it *item) fail(w *writing, row *store.Repo, v verdict) {
	rev := it.rev
	switch v {
	case breaks:
		it.outcome = outcomeDesynced
		it.desync(w, row, rev, false, "commit %s does not follow %s", rev, row.Rev)
	case invalid:
		it.outcome = outcomeRejected
		it.reason = reasonOf(it.check.bad)
		it.r.tally.rejected.WithLabelValues(it.reason).Inc()
		it.desync(w, row, rev, true, "commit %s: %v", rev, it.check.bad)
	case unproven:
		// A host that leaves out the proof may leave out operations too. At most one full copy an
		// hour reveals that. Until then the row states that the copy is unproven (VerifiedOps).
		it.outcome = outcomeDesynced
		it.desync(w, row, rev, false, "commit %s lacks the proof that its operations are complete", rev)
	case unsure:
		it.outcome = outcomeFailed
		it.desync(w, row, rev, true, "commit %s: the identity could not be read: %v", rev, it.backlog.err)
	}
}

// desync queues a complete repository for a fetch, now or when the budget allows. If recheck is
// set, the fetch first asks the host whether it has a newer rev: the event may be wrong or not from
// the host.
func (it *item) desync(
	w *writing, row *store.Repo, rev string, recheck bool, why string, args ...any,
) {
	b := w.b
	it.backlog.learn(w, row)
	due := it.r.budget.spend(row, identity.HostOf(row.PDS), it.now)
	row.SeenRev = max(row.SeenRev, rev)
	row.Recheck = recheck
	label := "now"
	if due.After(it.now) {
		label = "later"
		retry := row.Retry
		retry.Kind, retry.Next = store.Generic, due.Unix()
		retry.Since = cmp.Or(retry.Since, it.now.Unix())
		retry.Error = fmt.Sprintf(why, args...)
		b.Defer(row, retry)
	} else {
		b.Enqueue(row, store.PriorityRetry)
	}
	b.PutRepo(row)
	w.wake = true
	it.r.tally.refetches.WithLabelValues(label).Inc()
	it.r.opts.Logger.Debug("repository is fetched again", "did", row.DID, "rev", rev,
		"err", fmt.Sprintf(why, args...))
}

// buffer stores a commit until the copy in flight is complete. The commit is verified then.
func (it *item) buffer(w *writing, row *store.Repo) {
	if it.rev <= row.Rev {
		return
	}
	it.outcome = outcomeBuffered
	if b := w.b; !b.Buffer(row, it.rev, it.e.Message) {
		it.outcome = outcomeSeen
		b.PutRepo(row)
	}
}

// seen records in the row that the host has a newer rev than our copy.
func (it *item) seen(w *writing, row *store.Repo, rev string) {
	if rev <= max(row.SeenRev, row.Rev) {
		return
	}
	it.outcome = outcomeSeen
	row.SeenRev = rev
	w.b.PutRepo(row)
}

// decideCoalesced handles the commits that were dropped because the backlog was full.
func (it *item) decideCoalesced(w *writing, row *store.Repo) error {
	pds := row.PDS
	if l := it.backlog; l.got != needNothing && l.err == nil {
		pds = l.ident.PDS
	}
	rev := it.backlog.coalesced.rev(identity.HostOf(pds))
	if !row.Known() && rev != "" {
		it.discover(w, row, rev)
		return nil
	}
	if row.Tracked == store.Untracked || rev <= row.Rev {
		return nil
	}
	if row.State != store.StateSynced && row.State != store.StateDraining {
		it.seen(w, row, rev)
		return nil
	}
	it.s.stopDrain(it.backlog)
	it.outcome = outcomeFailed
	it.desync(w, row, rev, true, "commit %s: too many events wait for an identity", rev)
	return nil
}

var (
	errIdentity = fmt.Errorf("no usable identity: %w", repo.ErrInvalid)
	errLimit    = fmt.Errorf("more collections or hidden keys than a repository may have: %w",
		repo.ErrInvalid)
)

func reasonOf(err error) string {
	switch {
	case errors.Is(err, errIdentity):
		return reasonIdentity
	case errors.Is(err, errLimit):
		return reasonLimit
	}
	return rejection(err)
}
