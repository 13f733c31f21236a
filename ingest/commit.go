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

// prepareCommit verifies a #commit or #sync if it is to be applied. For other events no key is
// looked up: there may be millions of them.
func (it *item) prepareCommit(row *store.Repo) (done bool, err error) {
	switch row.State {
	case store.StatePending, store.StateResync:
		may := it.mayFollow(row)
		if it.rev <= row.Rev || row.State == store.StateResync && it.rev <= row.SeenRev && !may {
			return it.finish(outcomeSkipped)
		}
		if may && it.identify(row) && it.verify(row) != needNothing {
			it.prepared = false // the key may have changed: the fetch reads it again
		}
	case store.StateGone:
		if it.rev <= max(row.SeenRev, row.Rev) {
			return it.finish(outcomeSkipped)
		}
		if it.mayRevive(row) {
			if n := it.verify(row); n != needNothing {
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
		if it.e.broken != nil {
			it.prepared, it.bad = true, it.e.broken
			return false, nil
		}
		if n := it.verify(row); n != needNothing {
			return it.park(n)
		}
	}
	return false, nil
}

// verify checks everything that does not need the row to be locked, and returns what it lacks for
// that.
func (it *item) verify(row *store.Repo) need {
	it.prepared, it.large = true, len(it.f.Blocks) > keptBlocksMax
	p := &it.proof
	if it.job == jobSync {
		it.bad = p.readSync(it.f, it.now)
	} else {
		it.bad = p.read(it.f, it.now)
	}
	if it.bad != nil {
		return needNothing
	}
	if !it.r.opts.SkipSignatures {
		if n := it.checkSignature(row); n != needNothing || it.bad != nil || it.unsure {
			return n
		}
	}
	if it.job != jobSync && p.whole {
		it.prev, it.prevErr = p.before(func([]byte) (repo.CID, error) { return repo.CID{}, nil })
	}
	return needNothing
}

// checkSignature reads the document again, once, when the signature does not match the known key.
// While the directory does not answer, the key in the row is used (outage.go).
func (it *item) checkSignature(row *store.Repo) need {
	l := it.backlog
	if !it.identify(row) {
		switch {
		case l.got == needNothing:
			return it.wantKey(row)
		case passing(l.err) && !l.mismatch && it.signedByHeld(row):
			return it.accept()
		case passing(l.err):
			it.unsure = true
		default:
			it.bad = errIdentity
		}
		return needNothing
	}
	if it.bad = it.proof.signed(it.ident.PublicKey); it.bad == nil {
		return needNothing
	}
	if errors.Is(it.bad, repo.ErrSignature) && l.got == needNothing {
		l.mismatch = true
		return needRefresh
	}
	return needNothing
}

// identify finds the identity without a request: from a finished task, the directory's cache, or
// the row.
func (it *item) identify(row *store.Repo) bool {
	dir, l := it.r.opts.Directory, it.backlog
	if l.got != needNothing {
		it.ident, it.known = l.ident, l.err == nil
		return it.known
	}
	if it.ident, it.known = dir.Cached(l.did); it.known {
		return true
	}
	at := time.Unix(row.Resolved, 0)
	if row.Resolved != 0 && it.now.Sub(at).Abs() < rowIdentityMax && row.Key != "" {
		dir.Remember(identity.Identity{DID: l.did, Handle: row.Handle, PDS: row.PDS, Key: row.Key}, at)
		it.ident, it.known = dir.Cached(l.did)
	}
	return it.known
}

func (it *item) decideCommit(w *writing, row *store.Repo) error {
	if !row.Known() {
		it.discover(w, row, it.rev)
		return nil
	}
	switch row.State {
	case store.StatePending:
		if it.job == jobCommit && it.e.broken == nil && it.r.store.Fetching(row.DID) {
			it.buffer(w, row)
			return nil
		}
		return it.followWaiting(w, row)
	case store.StateResync:
		return it.followWaiting(w, row)
	case store.StateGone:
		it.seen(w, row, it.rev)
		if it.outcome == outcomeSeen && it.prepared && it.bad == nil && !it.unsure && it.mayRevive(row) {
			it.revive(w, row)
		}
		if hearsay(row) && it.outcome == outcomeSeen {
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

// mayFollow reports whether a commit may be applied to a repository that waits for its host: the
// copy that we hold must be complete.
func (it *item) mayFollow(row *store.Repo) bool {
	whole := row.Ordinal != 0 && row.Rev != "" && !row.Torn && !row.Lacks && !row.Status.Hidden() && row.Tracked != store.Untracked
	return whole && it.job == jobCommit && !it.f.TooBig && !it.r.store.Fetching(row.DID)
}

// followWaiting applies a commit that follows the tree we hold, although the repository waits for
// its host: a host that imported a repository may name a rev that no commit has, and the account
// writes meanwhile. If no newer rev was announced, the row is synced again.
func (it *item) followWaiting(w *writing, row *store.Repo) error {
	fit := false
	if it.prepared && it.rev > row.Rev && it.mayFollow(row) {
		v, err := it.judge(row)
		if err != nil {
			return err
		}
		fit = v == fits && !it.partial
	}
	if !fit {
		it.seen(w, row, it.rev)
		return nil
	}
	it.outcome = outcomeApplied
	if err := it.apply(w, row); err != nil {
		return err
	}
	if row.State == store.StateResync && row.SeenRev == "" && row.Mark == store.MarkNone {
		w.b.Complete(row)
	}
	w.b.PutRepo(row)
	return nil
}

// mayRevive reports whether a commit of an inactive account is a reason to ask its host: not if the
// host is asked soon anyway, nor if a relay has hidden the account, which the host cannot undo.
func (it *item) mayRevive(row *store.Repo) bool {
	soon := row.Retry.Next != 0 && row.Retry.Next <= it.now.Add(reviveSoon).Unix()
	return row.Tracked != store.Untracked && row.Resolved != 0 && !soon && !row.HiddenByRelay()
}

// revive queues a status check at the host of an inactive account, now or when the budget of
// refetches allows: a commit with the account's signature suggests that the account is active.
func (it *item) revive(w *writing, row *store.Repo) {
	it.learn(w, row)
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

// hearsay reports whether an account is inactive only by the listing of some host, or by an event
// that came first, without a lookup of its host. If such an account commits, it is checked.
func hearsay(row *store.Repo) bool {
	return row.State == store.StateGone && row.Tracked != store.Untracked && row.Ordinal == 0 && row.Resolved == 0 && row.Retry.Next == 0
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
	case !it.prepared:
		it.outcome = outcomeAgain // the row was not synced when we prepared
		return nil
	case it.job == jobSync:
		it.decideSync(w, row)
		return nil
	}
	return it.advance(w, row)
}

// advance applies a prepared commit to a complete repository, or has the repository fetched again.
func (it *item) advance(w *writing, row *store.Repo) error {
	v, err := it.judge(row)
	if err != nil {
		return err
	}
	if v == fits && it.partial && row.State == store.StateSynced && it.r.budget.rested(row, it.now) {
		v = unproven
	}
	if v != fits {
		it.fail(w, row, v)
		return nil
	}
	it.outcome = outcomeApplied
	if err := it.apply(w, row); err != nil {
		return err
	}
	w.b.PutRepo(row)
	return nil
}

// verdict is the relation of an event to our copy.
type verdict uint8

const (
	fits     verdict = iota
	breaks           // it follows a state that we do not have
	invalid          // see item.bad
	unsure           // no key could be found
	unproven         // it fits, as far as the message proves
)

// judge compares a verified commit with the row. The error is the store's.
func (it *item) judge(row *store.Repo) (verdict, error) {
	switch {
	case it.unsure:
		return unsure, nil
	case it.bad != nil:
		return invalid, nil
	case row.Ordinal == 0:
		return breaks, nil
	case it.proof.commit.Data == row.Data:
		// The commit's tree is the tree we hold, whatever its operations are: only the rev moves,
		// as by a #sync.
		it.proof.ops = it.proof.ops[:0]
		return fits, nil
	case it.f.PrevData.Defined() && it.f.PrevData != row.Data:
		return breaks, nil
	}
	prev, unheld, err, failure := it.before(row)
	switch {
	case failure != nil:
		return breaks, failure
	case err == nil && prev == row.Data:
		// The operations, undone, lead to the tree we hold, which makes a check of since
		// superfluous.
	case unheld, errors.Is(err, repo.ErrProof) && !it.f.PrevData.Defined():
		// Our rows do not have the replaced record, or a host older than sync v1.1 left out the
		// nodes beside the path.
		if it.f.Since != row.Rev {
			return breaks, nil
		}
		it.partial, it.bad = true, it.proof.claimed()
	case err != nil:
		it.bad = err
	default:
		return breaks, nil
	}
	if it.bad == nil {
		it.bad = overflow(row, it.proof.ops)
	}
	if it.bad != nil {
		return invalid, nil
	}
	return fits, nil
}

// before returns the root of the tree before the commit; err is why the message does not prove it.
// unheld reports that an operation replaces something at a path whose records the filter leaves
// out; the root then assumes that nothing stood there. failure is an error of the store.
func (it *item) before(row *store.Repo) (prev repo.CID, unheld bool, err, failure error) {
	if it.proof.whole {
		return it.prev, false, it.prevErr, nil
	}
	kept, failure := it.r.store.FilterAt(row.Filter)
	if failure != nil {
		return repo.CID{}, false, nil, failure
	}
	prev, err = it.proof.before(func(path []byte) (repo.CID, error) {
		unheld = unheld || row.Lacks || !kept.Keeps(path)
		cid, err := it.r.store.RecordCID(row, path)
		failure = errors.Join(failure, err)
		return cid, err
	})
	return prev, unheld, err, failure
}

// apply writes the records of a commit that fits. The caller writes the row.
func (it *item) apply(w *writing, row *store.Repo) error {
	b, p := w.b, &it.proof
	it.learn(w, row)
	it.ops = p.writes(it.ops[:0])
	if p.whole && !it.partial && row.Verified != store.VerifiedOps {
		// The tree before the commit, which is the one we hold, has nothing where a record is
		// created: the store need not look.
		for i := range it.ops {
			it.ops[i].New = p.ops[i].CID.Defined() && !p.ops[i].Prev.Defined()
		}
	}
	if err := b.Apply(row, true, p.commit.Rev, it.ops); err != nil {
		return err
	}
	it.move(row)
	return nil
}

// move sets the row to the commit.
func (it *item) move(row *store.Repo) {
	p := &it.proof
	row.Rev, row.Data, row.Commit = p.commit.Rev, p.commit.Data, p.block
	row.Withheld = row.Withheld && row.Mark != store.MarkNone
	if row.SeenRev <= row.Rev {
		row.SeenRev = ""
	}
	switch {
	case it.partial, row.Verified == store.VerifiedOps:
		row.Verified = store.VerifiedOps // until the next full copy
	case it.r.opts.SkipSignatures:
		row.Verified = store.VerifiedHashes
	default:
		row.Verified = store.VerifiedFull
	}
}

// learn writes the identity that was looked up for the event into the row.
func (it *item) learn(w *writing, row *store.Repo) {
	if it.backlog.got == needNothing || it.backlog.err != nil || it.backlog.ident.DID == "" {
		return
	}
	if it.backlog.learned(w, row) {
		w.b.Identity(row)
	}
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
		it.r.tally.rejected.WithLabelValues(reasonOf(it.bad)).Inc()
		it.desync(w, row, rev, true, "commit %s: %v", rev, it.bad)
	case unproven:
		// A host that leaves out the proof may leave out operations too. A full copy an hour
		// reveals that; until the next one the row states what its copy rests on (VerifiedOps).
		it.outcome = outcomeDesynced
		it.desync(w, row, rev, false, "commit %s lacks the proof that its operations are complete", rev)
	case unsure:
		it.outcome = outcomeFailed
		it.desync(w, row, rev, true, "commit %s: the identity could not be read: %v", rev, it.backlog.err)
	}
}

// desync queues a complete repository for a fetch, now or when the budget allows. With recheck the
// fetch first asks the host whether it has a newer rev: the event was wrong, or came from another
// party than the host.
func (it *item) desync(w *writing, row *store.Repo, rev string, recheck bool, why string, args ...any) {
	b := w.b
	it.learn(w, row)
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
	it.r.opts.Logger.Debug("repository is fetched again", "did", row.DID, "rev", rev, "err", fmt.Sprintf(why, args...))
}

// buffer keeps a commit until the copy in flight is complete. It is verified then.
func (it *item) buffer(w *writing, row *store.Repo) {
	if it.rev <= row.Rev {
		return
	}
	it.outcome = outcomeBuffered
	if b := w.b; !b.Buffer(row, it.rev, it.e.message) {
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

// decideCoalesced handles the commits that were dropped for lack of room.
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
	it.stopDrain()
	it.outcome = outcomeFailed
	it.desync(w, row, rev, true, "commit %s: too many events wait for an identity", rev)
	return nil
}

// overflow returns an error if a commit would make a repository exceed its share of what all
// repositories use. It may do so a little early.
func overflow(row *store.Repo, ops []repo.SliceOp) error {
	if int(row.Collections)+len(ops) <= collectionsMax && int(row.Hidden)+len(ops) <= hiddenMax {
		return nil
	}
	collections, hidden := map[string]struct{}{}, 0
	for _, op := range ops {
		collection, _, ok := repo.SplitPath(op.Path)
		switch {
		case !op.CID.Defined() || op.Prev.Defined():
		case ok:
			collections[string(collection)] = struct{}{}
		default:
			hidden++
		}
	}
	if int(row.Collections)+len(collections) > collectionsMax && len(collections) > 0 || int(row.Hidden)+hidden > hiddenMax && hidden > 0 {
		return errLimit
	}
	return nil
}

var (
	errIdentity = fmt.Errorf("no usable identity: %w", repo.ErrInvalid)
	errLimit    = fmt.Errorf("more collections or hidden keys than a repository may have: %w", repo.ErrInvalid)
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
