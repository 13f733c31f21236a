package ingest

import (
	"errors"
	"time"

	"cistern/ingest/firehose"
	"cistern/ingest/frame"
	"cistern/ingest/identity"
	"cistern/store"
)

const (
	// rowIdentityMax is how long the identity in a row is used without reading the document again.
	rowIdentityMax = 24 * time.Hour
	// refusedPairsMax bounds the pairs of a PDS and a DID that are refused for Options.RefuseFor,
	// at about 100 bytes each.
	refusedPairsMax = 8192
)

// prepareIdentity has the document read, now or when the budget allows. It ignores the content of
// the event, which is not verified.
func (it *item) prepareIdentity(row *store.Repo) (done bool, err error) {
	at, l := stated(it.f, it.now), it.backlog
	if at == row.IdentityTime || l.superseded(it.e, row, it.now) {
		return it.finish(outcomeSkipped)
	}
	if at < row.IdentityTime && l.got != needRefresh {
		// The clock of another source may have been ahead when that source announced an earlier
		// change.
		it.readAt = it.now.Add(it.r.opts.RefuseFor)
		return false, nil
	}
	if l.got != needRefresh {
		if f, waits := it.s.refreshes[l.did]; waits {
			// one read serves all events until that time; the row records the read before the
			// cursor passes this event
			it.readAt = f.at
			return false, nil
		}
		if wait := it.r.rereads.wait(l.did, identity.HostOf(row.PDS), it.now); wait > 0 {
			it.readAt = it.now.Add(wait)
			return false, nil
		}
	}
	if l.got != needRefresh && l.web() && it.s.crowded(l, it.e) {
		// handled like a failed lookup
		l.ident, l.err, l.got = identity.Identity{}, errCrowded, needRefresh
	}
	if l.got != needRefresh {
		return it.park(needRefresh)
	}
	return false, nil
}

// errCrowded means that too many events wait for documents of did:web.
var errCrowded = errors.New("too many events wait for an identity")

// superseded reports whether a later #identity of the same source waits behind the first event and
// will have the document read: one read is enough. An event of another source does not count, since
// the cursor of this source may pass the first event before the other event is done. An event that
// will be skipped as known does not count either.
func (l *backlog) superseded(first *firehose.Event, row *store.Repo, now time.Time) bool {
	for _, e := range l.events[1:] {
		if e.Frame.Kind == frame.KindIdentity && e.Source == first.Source &&
			stated(&e.Frame, now) != row.IdentityTime {
			return true
		}
	}
	return false
}

// identify finds the identity without a request: from a finished task, the directory's cache, or
// the row.
func (l *backlog) identify(row *store.Repo, now time.Time) (ident identity.Identity, known bool) {
	dir := l.shard.r.opts.Directory
	if l.got != needNothing {
		return l.ident, l.err == nil
	}
	if ident, known = dir.Cached(l.did); known {
		return ident, true
	}
	at := time.Unix(row.Resolved, 0)
	if row.Resolved != 0 && now.Sub(at).Abs() < rowIdentityMax && row.Key != "" {
		dir.Remember(identity.Identity{DID: l.did, Handle: row.Handle, PDS: row.PDS, Key: row.Key}, at)
		ident, known = dir.Cached(l.did)
	}
	return ident, known
}

func (it *item) prepareRefresh() (done bool, err error) {
	if it.backlog.got != needRefresh {
		return it.park(needRefresh)
	}
	return false, nil
}

// decideIdentity writes the identity that the document states. If the document could not be read,
// the identity in the row is no longer trusted, and the lookup is tried again later.
func (it *item) decideIdentity(w *writing, row *store.Repo) error {
	l, tries := it.backlog, it.backlog.refresh
	l.refresh = 0
	if !row.Known() || row.Tracked == store.Untracked {
		return nil
	}
	if it.job == jobIdentity {
		row.IdentityTime = max(row.IdentityTime, stated(it.f, it.now))
		if !it.readAt.IsZero() {
			it.postponeRead(w, row)
			return nil
		}
	}
	if l.err != nil {
		it.outcome = outcomeFailed
		row.Resolved = it.keptResolved(row)
		if errors.Is(l.err, identity.ErrNotFound) && row.State == store.StateSynced {
			// The DID may have a tombstone: backfill decides when that hides and wipes the account.
			w.ask(row, "the DID has no document: looking it up again")
		} else {
			w.b.PutRepo(row)
		}
		if passing(l.err) {
			it.s.refreshLater(row.DID, tries+1, it.now)
		}
		return nil
	}
	it.outcome = outcomeApplied
	host := row.PDS
	moved := l.learned(w, row)
	switch {
	case row.State == store.StateGone && row.PDS == host && !row.HiddenByRelay():
		w.ask(row, "") // the host may have changed the status too
	case row.State == store.StateSynced && row.PDS != host && it.job == jobRefresh:
		// Events from the new host were refused until the document named it.
		w.ask(row, "the account has moved to "+identity.HostOf(row.PDS)+
			": asking its new host for missed commits")
	default:
		w.b.PutRepo(row)
	}
	if moved {
		w.b.Identity(row)
	}
	return nil
}

// keptResolved returns the value of Resolved for a row whose document could not be read again, so
// that its identity is no longer trusted. It is 0 if an #identity caused the lookup, because the
// event may have announced a new key.
func (it *item) keptResolved(row *store.Repo) int64 {
	if it.job == jobIdentity || !passing(it.backlog.err) {
		return 0
	}
	return min(row.Resolved, it.now.Add(-rowIdentityMax).Unix())
}

// setIdentity writes an identity that was just read into the row, and reports whether its host
// differs from the former. A former host's status of an inactive account no longer counts: the new
// host is asked at once. If the account waits in the queue of the former host, it is moved to the
// queue of the new host.
func setIdentity(w *writing, row *store.Repo, ident identity.Identity, now time.Time) (moved bool) {
	moved = row.Key != "" &&
		(row.Handle != ident.Handle || row.PDS != ident.PDS || row.Key != ident.Key)
	if row.State == store.StateGone && row.Tracked != store.Untracked && row.PDS != ident.PDS &&
		!row.HiddenByRelay() {
		row.Retry.Next = w.r.opts.Now().Unix()
		w.wake = true
	}
	if row.PDS != "" && row.Pending.Host != 0 &&
		identity.HostOf(row.PDS) != identity.HostOf(ident.PDS) {
		// The former host may be down or banned.
		w.b.Rehost(row, identity.HostOf(ident.PDS))
		w.wake = w.wake || row.State == store.StatePending
	}
	row.Handle, row.PDS, row.Key, row.Resolved = ident.Handle, ident.PDS, ident.Key, now.Unix()
	return moved
}

// learn writes the identity that was looked up for the first event into the row.
func (l *backlog) learn(w *writing, row *store.Repo) {
	if l.got == needNothing || l.err != nil || l.ident.DID == "" {
		return
	}
	if l.learned(w, row) {
		w.b.Identity(row)
	}
}

// authorise checks in the DID document that a PDS is the host of the event's account. Before it
// refuses the event, it has the document read again. done means that the event waits or is refused.
func (it *item) authorise(row *store.Repo, host string) (done bool) {
	ident, known := it.backlog.identify(row, it.now)
	if known && identity.HostOf(ident.PDS) == host {
		return false
	}
	s, l := it.s, it.backlog
	pair := l.did + " " + host
	if at, ok := s.refusedPairs[pair]; ok && it.now.Sub(at) < s.r.opts.RefuseFor {
		if row.Known() {
			// The account may be moving to this host just now: the document is read again when the
			// refusal has expired.
			s.refreshAt(l.did, 1, at.Add(s.r.opts.RefuseFor))
		}
		return it.refuse()
	}
	if l.got == needNothing {
		it.outcome, it.need = outcomePark, needKey
		if known {
			it.need = needRefresh
		}
		return true
	}
	if passing(l.err) {
		if identity.HostOf(row.PDS) == host {
			return false // the row names this host
		}
		return it.refuse()
	}
	if len(s.refusedPairs) >= refusedPairsMax/len(s.r.shards) {
		clear(s.refusedPairs)
	}
	s.refusedPairs[pair] = it.now
	return it.refuse()
}

func (it *item) refuse() (done bool) {
	it.e.Source.Refuse()
	it.outcome = outcomeRefused
	return true
}
