package backfill

import (
	"cmp"
	"fmt"
	"time"

	"cistern/backfill/fetch"
	"cistern/ingest/repo"
	"cistern/store"
)

// landing writes a verified copy, or the host's answer that the stored copy is still the newest,
// and decides the next state of the row. It holds what the task has learnt about the host's commit.
type landing struct {
	win      *window
	doc      *document
	unsigned bool // Options.SkipSignatures
	now      func() time.Time
	delay    func(failures uint32) time.Duration

	commit repo.Commit
	block  []byte // the signed commit
	former bool   // signed by a key that the document no longer names
	signal bool   // the copy has a record in a collection that a signal names
	stated string // the rev that the host reports for the stored commit, "" if it was not asked
	forgot string // the announced rev that is no longer waited for
}

// take copies the commit of a verified copy, and whether the copy has a signal.
func (l *landing) take(c *fetch.Copy) {
	l.commit, l.block, l.former, l.signal = c.Commit, c.Block, c.Former, c.Signal
}

// complete records in the row that the copy is complete. It is called in the batch that writes the
// last part of the copy.
func (l *landing) complete(b *store.Batch, row *store.Repo) {
	held := row.Rev != ""
	row.Rev, row.Data, row.Commit = l.commit.Rev, l.commit.Data, l.block
	row.Torn, row.TornRev = false, ""
	row.Filter, row.Sweep, row.Lacks = l.win.filter.Selection, false, false
	switch {
	case l.unsigned:
		row.Verified = store.VerifiedHashes
	case l.former:
		row.Verified = store.VerifiedFormerKey
	default:
		row.Verified = store.VerifiedFull
	}
	l.conclude(b, row, held)
}

// conclude closes the window, and writes the state and the identity of a repository whose copy is
// complete at row.Rev.
func (l *landing) conclude(b *store.Batch, row *store.Repo, held bool) {
	l.win.close()
	asked := l.win.askedSince(row)
	row.Missing = 0
	row.Pending.Host = l.doc.hostOr(row)
	l.settle(b, row)
	if asked {
		row.Retry, row.Recheck = store.Retry{}, false
		b.Enqueue(row, store.PriorityOperator) // the next fetch includes the buffered commits
		row.Pending.Priority = store.PriorityOperator
	}
	b.Show(row)
	l.doc.putIdentity(b, row, held)
}

// settle chooses the state of a repository whose copy is complete at row.Rev. If commits are
// buffered, the ingest shard that drains them decides whether the copy is behind.
func (l *landing) settle(b *store.Batch, row *store.Repo) {
	before := row.Retry
	behind := row.SeenRev > max(row.Rev, l.stated)
	if !behind {
		row.SeenRev = ""
	}
	draining := l.win.store.Buffered(row.DID) > 0
	if behind && !draining && l.lag(b, row, before) {
		return
	}
	b.Complete(row)
	if behind && draining && before.Lagging {
		row.Retry = store.Retry{Count: before.Count, Since: before.Since,
			Error: before.Error, Lagging: true}
	}
}

// lag handles an announced rev that is higher than the rev of the copy. The commit may have been
// too late for this fetch, or the host may report that rev for the commit that the copy already
// has. The first time, the host is asked again at once. This happens only once, because otherwise
// any sender could keep the Runner busy. If the host still reports an older rev, it is asked up to
// lagsMax times, with growing delays. After that the host is believed, and lag returns false.
func (l *landing) lag(b *store.Batch, row *store.Repo, before store.Retry) bool {
	late := row.SeenRev != l.win.row.SeenRev
	count := uint32(1)
	if before.Lagging {
		count = before.Count + 1
	}
	if !late && count > lagsMax {
		l.forgot, row.SeenRev = row.SeenRev, ""
		return false
	}
	row.Recheck = true // the copy is complete: only a new rev is worth a transfer
	now := l.now()
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
	retry.Kind, retry.Next = store.Generic, now.Add(l.delay(count)).Unix()
	b.Defer(row, retry)
	return true
}

// reveal makes a hidden account with stored data visible again. Readers may have dropped its
// records while the account was hidden, so the records are listed anew. If that is impossible, they
// are wiped, and a new attempt begins (Batch.Relist). The same batch must not change the records.
func reveal(b *store.Batch, row *store.Repo) error {
	if !row.Status.Hidden() {
		return nil
	}
	b.Show(row)
	return b.Relist(row)
}
