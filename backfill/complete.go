package backfill

import (
	"cmp"
	"fmt"
	"time"

	"cistern/store"
)

// identityMarks are compared to detect that the identity in a row was written after the task
// requested the document.
type identityMarks struct {
	event, resolved int64 // Repo.IdentityTime and Repo.Resolved
}

func marksOf(row *store.Repo) identityMarks { return identityMarks{row.IdentityTime, row.Resolved} }

// know writes the identity that the document states to the row. If the row had another identity, it
// also writes an identity event, even for a repository without a complete copy: readers may have
// received the former identity. An identity that an event brought after the document was requested
// is newer, and is kept.
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

// complete records in the row that the copy is complete. It is called in the batch that writes the
// last part of the copy.
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

// conclude ends the task of a repository whose copy is complete at row.Rev.
func (t *task) conclude(b *store.Batch, row *store.Repo, held bool) {
	t.closeWindow()
	asked := t.askedSince(row)
	row.Missing = 0
	row.Pending.Host = t.hostOr(row)
	t.settle(b, row)
	if asked {
		row.Retry, row.Recheck = store.Retry{}, false
		b.Enqueue(row, store.PriorityOperator) // the next fetch includes the buffered commits
		row.Pending.Priority = store.PriorityOperator
	}
	b.Show(row)
	t.know(b, row, held)
}

// settle chooses the state of a repository whose copy is complete at row.Rev. If commits are
// buffered, the ingest shard that drains them decides whether the copy is behind.
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

// lag handles an announced rev that is higher than the rev of the copy. The commit may have been
// too late for this fetch, or the host may report that rev for the commit that the copy already
// has. The first time, the host is asked again at once; only once, because any sender could
// otherwise keep the Runner busy. If the host still reports an older rev, it is asked up to lagsMax
// times, with growing delays. After that the host is believed, and lag returns false.
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
	row.Recheck = true // the copy is complete: only another rev is worth a transfer
	now := t.r.opts.Now()
	retry := store.Retry{
		Count:   count,
		Since:   cmp.Or(before.Since, now.Unix()),
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

// reveal makes a hidden account visible again whose data is stored. Readers may have dropped its
// records while the account was hidden, so the records are listed anew. If that is impossible, they
// are wiped, with a new attempt (Batch.Relist). The same batch must not change the records.
func reveal(b *store.Batch, row *store.Repo) error {
	if !row.Status.Hidden() {
		return nil
	}
	b.Show(row)
	return b.Relist(row)
}

// done returns the outcome of a task whose copy is complete and durable.
func (t *task) done(row store.Repo) outcome {
	if t.forgot != "" {
		t.r.opts.Logger.Info("dropped an announced rev that the host does not have", "did", t.it.did, "rev", row.Rev, "seen", t.forgot)
	}
	return ended(row, resultSynced)
}

// unixSeconds returns at in Unix seconds, 0 for the zero time.
func unixSeconds(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.Unix()
}
