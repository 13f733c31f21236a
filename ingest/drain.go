package ingest

import (
	"errors"
	"fmt"

	"cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/store"
)

// drainStep is the result of one read of the buffer: the commits that the copy already includes,
// and the first commit that it lacks.
type drainStep struct {
	attempt uint64
	stale   []string
	found   bool
	rev     string
	message []byte
	frame   frame.Frame // of message
}

// staleMax bounds the commits that one step removes.
const staleMax = 256

var (
	errEnough   = errors.New("enough")
	errNoCommit = fmt.Errorf("a buffered message is not a commit: %w", repo.ErrInvalid)
)

// startDrain makes the shard handle the buffered commits of a backlog before its events.
func (s *shard) startDrain(l *backlog) {
	if !l.drain {
		l.drain = true
		s.draining++
	}
	s.enqueue(l)
}

// stopDrain lets the events of a backlog continue.
func (s *shard) stopDrain(l *backlog) {
	if l.drain {
		l.drain = false
		s.draining--
	}
}

// prepareDrain verifies the next buffered commit. Only the shard itself adds to the buffer of a
// row, and adds nothing while the row is draining.
func (it *item) prepareDrain() (done bool, err error) {
	row, err := it.r.store.RepoOrNew(it.backlog.did)
	if err != nil {
		return true, err
	}
	if row.State != store.StateDraining {
		it.s.stopDrain(it.backlog)
		return it.finish(outcomeSkipped)
	}
	d := &it.drain
	*d = drainStep{attempt: row.Attempt, stale: d.stale[:0], message: d.message[:0], frame: d.frame}
	err = it.r.store.BufferedCommits(row.DID, func(rev string, message []byte) error {
		if len(d.stale) == staleMax {
			return errEnough
		}
		if rev <= row.Rev {
			d.stale = append(d.stale, rev)
			return nil
		}
		d.found, d.rev = true, rev
		d.message = append(d.message, message...)
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return true, err
	}
	if !d.found {
		return false, nil
	}
	it.f, it.rev = &d.frame, d.rev
	it.check.f, it.check.made = it.f, true
	if err := d.frame.Decode(d.message); err != nil || d.frame.Kind != frame.KindCommit ||
		d.frame.Rev != d.rev || d.frame.DID != row.DID {
		it.check.bad = errNoCommit
		return false, nil
	}
	if d.frame.TooBig {
		return false, nil
	}
	if n := it.check.verify(&row); n != needNothing {
		return it.park(n)
	}
	return false, nil
}

// decideDrain removes one commit from the buffer. The batch that removes the last commit ends the
// drain. A crash before that leaves a draining row with the commits that its copy lacks.
func (it *item) decideDrain(w *writing, row *store.Repo) error {
	d := &it.drain
	if row.State != store.StateDraining {
		it.s.stopDrain(it.backlog)
		return nil
	}
	if row.Attempt != d.attempt || len(d.stale) > 0 && d.stale[len(d.stale)-1] > row.Rev ||
		d.found && d.rev <= row.Rev {
		it.outcome = outcomeAgain
		return nil
	}
	taken := len(d.stale)
	for _, rev := range d.stale {
		w.b.Unbuffer(row, rev)
	}
	if d.found {
		v := breaks
		if !d.frame.TooBig {
			var err error
			if v, err = it.check.judge(row); err != nil {
				return err
			}
		}
		if v != fits {
			it.s.stopDrain(it.backlog)
			it.fail(w, row, v)
			return nil
		}
		it.outcome = outcomeApplied
		if err := it.check.apply(w, row); err != nil {
			return err
		}
		w.b.Unbuffer(row, d.rev)
		taken++
	}
	if it.r.store.Buffered(row.DID) <= taken {
		it.drained(w, row)
		return nil
	}
	w.b.PutRepo(row)
	return nil
}

// drained ends a drain. If the announced rev is higher than all revs in the buffer, the repository
// is queued with Recheck, so that its host decides whether that rev exists.
func (it *item) drained(w *writing, row *store.Repo) {
	it.s.stopDrain(it.backlog)
	if row.SeenRev > row.Rev {
		it.desync(w, row, row.SeenRev, true, "the host has rev %s, %s was seen", row.Rev, row.SeenRev)
		return
	}
	row.SeenRev = ""
	w.b.Complete(row)
	w.b.PutRepo(row)
}
