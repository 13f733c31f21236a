package ingest

import (
	"time"

	"cistern/ingest/identity"
	"cistern/store"

	"golang.org/x/time/rate"
)

// Limits on documents that are read because of #identity events. Any host can send such events
// through a relay, for any DID, and each read is a request to a directory.
const (
	// rereadBurst is how many events of one DID have its document read at once; further ones do so
	// one in each Options.RefetchBase. A migration makes three.
	rereadBurst = 3
	// rereadDIDsMax bounds the DIDs remembered, at about 200 bytes each; further DIDs within three
	// minutes share a bucket.
	rereadDIDsMax = 16 << 10
	// rereadHostBurst is how many documents are read at once for the accounts of one host; further
	// ones are read five a second.
	rereadHostBurst     = 100
	rereadHostPerSecond = 5
	// rereadDelayMax is the longest delay of a read.
	rereadDelayMax = 10 * time.Minute
	// rereadShare: one in so many lookups may be such a read; the others
	// are for commits that wait for a key.
	rereadShare = 4
)

// rereads is the budget of reads for #identity events, by DID and by the account's host.
type rereads struct{ dids, hosts *buckets }

func newRereads(every time.Duration) *rereads {
	return &rereads{
		dids:  newBuckets(rate.Every(every), rereadBurst, rereadDIDsMax),
		hosts: newBuckets(rereadHostPerSecond, rereadHostBurst, refetchHostsMax),
	}
}

// wait takes a read from the budget and returns how long the read has to wait.
func (r *rereads) wait(did, host string, now time.Time) time.Duration {
	return max(r.dids.wait(did, rereadDelayMax, now), r.hosts.wait(host, rereadDelayMax, now))
}

// postponeRead has the document read when the budget allows. Until then the identity in the row is
// trusted, and no longer: if the read is lost (by a crash, or for lack of room), the next need of
// the key makes it.
func (it *item) postponeRead(w *writing, row *store.Repo) {
	it.outcome = outcomePostponed
	row.Resolved = min(row.Resolved, it.readAt.Add(-rowIdentityMax).Unix())
	w.b.PutRepo(row)
	it.r.opts.Directory.Purge(row.DID)
	it.s.refreshAt(row.DID, 1, it.readAt)
}

// refresh is a document read that is due later.
type refresh struct {
	at    time.Time
	tries int
}

// refreshLater has a document read again after tries attempts that failed. If too many are waiting,
// the next need of the key has it read.
func (s *shard) refreshLater(did string, tries int, now time.Time) {
	if tries <= refreshTriesMax {
		s.refreshAt(did, tries, now.Add(lookupDelay(tries)))
	}
}

// refreshAt has a document read at a time, unless a read is planned already.
func (s *shard) refreshAt(did string, tries int, at time.Time) {
	if _, waits := s.refreshes[did]; !waits && len(s.refreshes) < refreshesMax {
		s.refreshes[did] = refresh{at, tries}
	}
}

// startRefreshes begins the due reads. While the directories do not answer, reads of did:plc stay
// due.
func (s *shard) startRefreshes(now time.Time) {
	down := s.r.outage.lasts(now)
	for did, f := range s.refreshes {
		if f.at.After(now) || down && !webDID(did) {
			continue
		}
		delete(s.refreshes, did)
		l := s.backlog(did)
		l.refresh = f.tries
		s.enqueue(l)
	}
}

// rereads reports whether the backlog waits for a document because of an #identity.
func (l *backlog) rereads() bool {
	return l.parked == needRefresh &&
		(l.refresh > 0 || len(l.events) > 0 && jobOf(l.events[0].Frame.Kind) == jobIdentity)
}

// learned writes the result of a lookup into the row, unless the row already has a later one. A
// result dated in the future was read while our clock was ahead, and its time is ignored.
func (l *backlog) learned(w *writing, row *store.Repo) (moved bool) {
	if row.Resolved > l.read.Unix() && row.Resolved <= w.r.opts.Now().Unix() {
		return false
	}
	return setIdentity(w, row, l.ident, l.read)
}

// forget drops the result of the lookup.
func (l *backlog) forget() {
	l.held, l.mismatch = false, false
	if l.got != needNothing {
		l.ident, l.err, l.got, l.read = identity.Identity{}, nil, needNothing, time.Time{}
	}
}
