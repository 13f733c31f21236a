package backfill

import (
	"fmt"
	"time"

	"cistern/store"
)

// identityMarks tell whether others wrote a row's identity since its document was asked for.
type identityMarks struct {
	event, resolved int64 // Repo.IdentityTime and Repo.Resolved
}

func marksOf(row *store.Repo) identityMarks { return identityMarks{row.IdentityTime, row.Resolved} }

// know notes in the row what the document said, with an event if it said something else before: readers
// may have been told that, even of a repository that was never whole. What an identity event brought
// since the document was asked for is newer, and stays.
func (t *task) know(b *store.Batch, row *store.Repo, held bool) {
	overtaken := marksOf(row) != t.marks
	if t.ident.DID == "" || overtaken && row.Key != "" {
		return
	}
	known := held || row.Key != ""
	moved := row.Handle != t.ident.Handle || row.PDS != t.ident.PDS || row.Key != t.ident.Key
	row.PDS, row.Handle, row.Key = t.ident.PDS, t.ident.Handle, t.ident.Key
	row.Resolved = unixSeconds(t.looked)
	if overtaken {
		row.Resolved = 0
	}
	if known && moved {
		b.Identity(row)
	}
}

// complete makes the row say that the copy is whole. Called by the batch that writes its last part.
func (t *task) complete(b *store.Batch, row *store.Repo) {
	held := row.Rev != ""
	row.Rev, row.Data, row.Commit, row.Torn, row.TornRev = t.commit.Rev, t.commit.Data, t.block, false, ""
	row.Filter, row.Sweep, row.Lacks = t.filter.Selection, false, false
	switch {
	case t.r.opts.SkipSignatures:
		row.Verified = store.VerifiedHashes
	case t.former:
		row.Verified = store.VerifiedFormerKey
	default:
		row.Verified = store.VerifiedFull
	}
	t.conclude(b, row, held)
}

// conclude ends the task of a repository that is whole at row.Rev.
func (t *task) conclude(b *store.Batch, row *store.Repo, held bool) {
	t.closeWindow()
	asked := t.askedSince(row)
	row.Missing = 0
	row.Pending.Host = t.hostOr(row)
	t.settle(b, row)
	if asked {
		row.Retry, row.Recheck = store.Retry{}, false
		b.Enqueue(row, store.PriorityOperator) // the next fetch brings the buffered commits
		row.Pending.Priority = store.PriorityOperator
	}
	b.Show(row)
	t.know(b, row, held)
}

// settle finds the state of a repository that is whole at row.Rev. With commits buffered, its shard
// has the last word.
func (t *task) settle(b *store.Batch, row *store.Repo) {
	before := row.Retry
	behind := row.SeenRev > max(row.Rev, t.stated)
	if !behind {
		row.SeenRev = ""
	}
	draining := t.r.store.Buffered(row.DID) > 0
	if behind && !draining && t.lag(b, row, before) {
		return
	}
	b.Complete(row)
	if behind && draining && before.Lagging {
		row.Retry = store.Retry{Count: before.Count, Since: before.Since, Error: before.Error, Lagging: true}
	}
}

// lag decides what to do about an announced rev that is higher than the copy's. The commit may have
// come too late for this fetch, or the host names that rev for the very commit that we hold now:
// then the host is asked at once, but only once, since any sender could otherwise keep us busy.
// Else the host has no such rev, or not yet: it is asked up to lagsMax times more, and then
// believed: then lag returns false.
func (t *task) lag(b *store.Batch, row *store.Repo, before store.Retry) bool {
	late := row.SeenRev != t.row.SeenRev
	count := uint32(1)
	if before.Lagging {
		count = before.Count + 1
	}
	if !late && count > lagsMax {
		t.forgot, row.SeenRev = row.SeenRev, ""
		return false
	}
	row.Recheck = true // what we hold is whole: only another rev is worth a transfer
	now := t.r.opts.Now()
	retry := store.Retry{
		Count:   count,
		Since:   defaultTo(before.Since, now.Unix()),
		Error:   fmt.Sprintf("the host has rev %s, %s was seen", row.Rev, row.SeenRev),
		Lagging: true,
	}
	if count == 1 {
		row.Retry = retry
		b.Enqueue(row, store.PriorityRetry)
		return true
	}
	retry.Kind, retry.Next = store.Generic, now.Add(t.r.delay(count)).Unix()
	b.Defer(row, retry)
	return true
}

// reveal shows an account again of which we hold data. Its records were hidden, so that readers may
// have dropped them: they are listed anew, or wiped, with a new attempt, when that cannot be (Batch.Relist).
// Not in one batch with changes to them.
func reveal(b *store.Batch, row *store.Repo) error {
	if !row.Status.Hidden() {
		return nil
	}
	b.Show(row)
	return b.Relist(row)
}

// done returns the outcome of a task whose repository is whole, durably.
func (t *task) done(row store.Repo) outcome {
	if t.forgot != "" {
		t.r.opts.Logger.Info("a rev that its host does not have is forgotten", "did", t.it.did, "rev", row.Rev, "seen", t.forgot)
	}
	return ended(row, resultSynced)
}

// unixSeconds is 0 for the zero time.
func unixSeconds(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.Unix()
}
