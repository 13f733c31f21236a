package ingest

import (
	"time"

	"cistern/ingest/firehose"
	"cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/store"
)

// job is the work of an item for its backlog.
type job uint8

const (
	jobCommit job = iota
	jobSync
	jobIdentity
	jobAccount
	jobDrain     // take a buffered commit
	jobRefresh   // read an identity that could not be read for an #identity
	jobCoalesced // handle events of which only the highest rev or the newest was kept
	jobs
	jobNothing = jobs
)

var jobNames = [jobs]string{"commit", "sync", "identity", "account",
	"drained", "refresh", "coalesced"}

// item is one step of one backlog. It is prepared without a lock, with a row that may be outdated,
// and decided under the lock, with the current row.
type item struct {
	s       *shard
	r       *Runner
	backlog *backlog
	job     job
	e       *firehose.Event // nil if the step concerns no event of the backlog
	f       *frame.Frame    // of e, or of the buffered commit
	rev     string          // of f
	now     time.Time

	outcome outcome
	reason  string // why the event was rejected
	need    need   // set if the outcome is outcomePark

	check  check     // used for a #commit or #sync
	future bool      // its rev is in the future by our clock
	readAt time.Time // when to read the document for an #identity; zero: now
	drain  drainStep
}

// begin takes the next step of a backlog.
func (it *item) begin(l *backlog, now time.Time) {
	switch {
	case len(l.coalesced.marks) > 0:
		it.take(l, nil, now)
		it.job = jobCoalesced
	case l.drain:
		it.take(l, nil, now)
		it.job = jobDrain
	case l.refresh > 0:
		it.take(l, nil, now)
		it.job = jobRefresh
	case len(l.events) > 0:
		it.take(l, l.events[0], now)
	default:
		it.take(l, nil, now)
	}
}

// take resets the item for an event, or for a step without an event.
func (it *item) take(l *backlog, e *firehose.Event, now time.Time) {
	it.s, it.r, it.backlog, it.now, it.job = l.shard, l.shard.r, l, now, jobNothing
	it.outcome, it.need = outcomeSkipped, needNothing
	it.e, it.f, it.rev = e, nil, ""
	it.future, it.readAt = false, time.Time{}
	if it.reason = ""; e != nil {
		e.Trace.Step("verify")
		it.f, it.rev, it.job = &e.Frame, e.Frame.Rev, jobOf(e.Frame.Kind)
	}
	it.check.begin(l, it.f, now)
}

func jobOf(k frame.Kind) job {
	switch k {
	case frame.KindCommit:
		return jobCommit
	case frame.KindSync:
		return jobSync
	case frame.KindIdentity:
		return jobIdentity
	}
	return jobAccount
}

// end drops references to memory that the item does not own.
func (it *item) end() {
	it.check.end()
	if cap(it.drain.message) > keptBytesMax {
		it.drain.message = nil
	}
	it.backlog, it.e, it.f = nil, nil, nil
}

// park makes the backlog wait for a task.
func (it *item) park(n need) (done bool, err error) {
	it.outcome, it.need = outcomePark, n
	return true, nil
}

// finish ends an item with nothing to write.
func (it *item) finish(o outcome) (done bool, err error) {
	it.outcome = o
	return true, nil
}

// reject drops an invalid event.
func (it *item) reject(reason string) (done bool, err error) {
	it.r.tally.rejected.WithLabelValues(reason).Inc()
	it.reason = reason
	return it.finish(outcomeRejected)
}

// prepare does the work that needs no lock. done means that nothing is left to decide: according to
// the row that was read, there is nothing to write.
func (it *item) prepare() (done bool, err error) {
	switch it.job {
	case jobNothing:
		return true, nil
	case jobCoalesced:
		return false, nil
	case jobDrain:
		return it.prepareDrain()
	case jobRefresh:
		return it.prepareRefresh()
	}
	row, err := it.r.store.RepoOrNew(it.backlog.did)
	if err != nil {
		return true, err
	}
	switch reason := it.fault(&row); {
	case reason == reasonFuture:
		it.future = true
	case reason != "":
		return it.reject(reason)
	}
	if _, ok := it.wanted(&row); !ok {
		return it.finish(outcomeSkipped)
	}
	if host := it.e.Source.PDSHost(); host != "" {
		if done := it.authorise(&row, host); done {
			return true, nil
		}
	}
	if it.future {
		it.r.tally.rejected.WithLabelValues(reasonFuture).Inc()
		return false, nil
	}
	switch it.job {
	case jobIdentity:
		return it.prepareIdentity(&row)
	case jobAccount:
		return false, nil
	}
	return it.prepareCommit(&row)
}

// fault returns why an event is invalid regardless of our copy, as the reason for the metric; "" if
// it is valid.
func (it *item) fault(row *store.Repo) (reason string) {
	if !row.Known() && !validDID(it.backlog.did) {
		return reasonDID
	}
	if it.job == jobCommit || it.job == jobSync {
		return revFault(it.rev, it.now)
	}
	return "" // an #account or #identity counts even without a readable time
}

// revFault returns why a rev is invalid, "" if it is valid. A rev in the future would make all
// later commits look old.
func revFault(rev string, now time.Time) (reason string) {
	if _, err := repo.ParseTID(rev); err != nil {
		return reasonRev
	}
	if (repo.Commit{Rev: rev}).CheckRev(now) != nil {
		return reasonFuture
	}
	return ""
}

// decide applies the item to its row. The row is locked.
func (it *item) decide(w *writing, row *store.Repo) error {
	if it.future {
		it.decideFuture(w, row)
		return nil
	}
	switch it.job {
	case jobCommit, jobSync:
		return it.decideCommit(w, row)
	case jobIdentity, jobRefresh:
		return it.decideIdentity(w, row)
	case jobAccount:
		return it.decideAccount(w, row, false)
	case jobDrain:
		return it.decideDrain(w, row)
	case jobCoalesced:
		return it.decideCoalesced(w, row)
	}
	return nil
}
