package ingest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"cistern/ingest/frame"
	"cistern/ingest/identity"
	"cistern/store"
)

// need is what a parked lane waits for.
type need uint8

const (
	needNothing need = iota
	needKey          // the identity, as the directory knows it
	needRefresh      // the identity, read anew
	needHeavy        // an account event that moves much
)

// lane holds the events of one DID that a shard has taken, in order. It is owned by its shard, but for
// what an errand answers while the lane is parked.
type lane struct {
	shard *shard
	did   string

	events []*event // first is next
	bytes  int64    // of events, while parked
	fold   fold
	drain  bool // the buffer comes first
	queued bool // in shard.ready, or in the group at hand
	// refresh counts the times its identity was asked for because of an #identity, 0 when that is over.
	refresh int

	// parked says what it waits for. Then events come behind it, and nothing is handled.
	parked need
	tries  int
	due    time.Time // when the errand is to be tried again

	head *event // with needHeavy: what is to be done

	// Why its event waits for the identity: the key that the row holds fits, or none that we know does.
	held, mismatch bool

	// written by the errand:
	ident identity.Identity
	err   error
	read  time.Time // when the lookup began
	// got is what ident and err answer, until the next event is done.
	got need
}

// fold is what is left of events for which there was no room while their DID was parked. The repository of a commit is
// fetched again. It stands for events that came after those of the lane, and may be handled before them:
// they find a row then that remembers a rev above theirs.
type fold struct {
	revs  map[string]string // the highest, by the PDS that sent it, "" for all relays
	marks []mark
}

// add notes the rev of a commit.
func (f *fold) add(host, rev string) {
	if f.revs == nil {
		f.revs = map[string]string{}
	}
	f.revs[host] = max(f.revs[host], rev)
}

// rev is the highest of relays and of the PDS that speaks for the account: others may say what they like.
func (f *fold) rev(pds string) string { return max(f.revs[""], f.revs[pds]) }

// mark is an event that is done when what it says is written.
type mark struct {
	src *source
	seq int64
}

func (l *lane) empty() bool {
	return len(l.events) == 0 && len(l.fold.marks) == 0 && !l.drain && l.refresh == 0 && l.parked == needNothing
}

// web says that its document is at a host that anybody may run.
func (l *lane) web() bool { return webDID(l.did) }

func webDID(did string) bool { return strings.HasPrefix(did, "did:web:") }

// pop takes the first event out.
func (l *lane) pop() {
	n := copy(l.events, l.events[1:])
	l.events[n] = nil
	l.events = l.events[:n]
}

// park makes the lane wait for an errand, unless there is no room even for its first event.
func (s *shard) park(l *lane, n need) {
	l.parked, l.tries, l.due = n, 0, time.Time{}
	if n == needHeavy {
		l.head = l.events[0]
	}
	s.parked.Add(1)
	s.local -= len(l.events)
	events := l.events
	l.events = events[:0]
	for _, e := range events {
		s.wait(l, e)
	}
	clear(events[len(l.events):])
	switch {
	case len(events) > 0 && len(l.events) == 0:
		s.unpark(l)
		l.forget()
		s.requeue(l)
	case !s.ending:
		s.send(l)
	}
}

// send starts the errand.
func (s *shard) send(l *lane) {
	l.err = nil
	switch {
	case l.parked == needHeavy:
		s.r.heavy.add(l)
	case l.web():
		s.r.webs.add(l)
	case l.rereads():
		s.r.rereading.add(l)
	default:
		s.r.lookups.add(l)
	}
}

// unpark lets the events go on.
func (s *shard) unpark(l *lane) {
	l.got, l.parked, l.head = l.parked, needNothing, nil
	s.parked.Add(-1)
	s.parkedBytes -= l.bytes
	if l.web() {
		s.webBytes -= l.bytes
	}
	s.parkedEvents -= len(l.events)
	s.local += len(l.events)
	l.bytes = 0
}

// wait puts an event behind those of a parked lane. Of a commit for which there is no room only the rev is kept, of
// account and identity events only the newest.
func (s *shard) wait(l *lane, e *event) {
	if k := e.frame.Kind; (k == frame.KindCommit || k == frame.KindSync) && (len(l.fold.revs) > 0 || s.crowded(l, e)) {
		if revFault(e.frame.Rev, s.r.opts.Now()) == "" {
			l.fold.add(e.src.pdsHost(), e.frame.Rev)
		}
		s.fold(l, e)
		return
	}
	if s.crowded(l, e) {
		s.supersede(l, e)
	}
	l.events = append(l.events, e)
	l.bytes += e.cost
	s.parkedBytes += e.cost
	if l.web() {
		s.webBytes += e.cost
	}
	s.parkedEvents++
}

// fold leaves only the mark of an event.
func (s *shard) fold(l *lane, e *event) {
	l.fold.marks = append(l.fold.marks, mark{e.src, e.seq})
	s.folded++
	s.r.tally.folded.Inc()
	s.r.release(e)
}

// supersede drops the event of e's kind and source that waits: e, which is no commit and arrives later, counts in the
// end. A mark of an account and its status are two kinds. The first event may be in work, and stays.
func (s *shard) supersede(l *lane, e *event) {
	for i := 1; i < len(l.events); i++ {
		old := l.events[i]
		if old.src != e.src || old.frame.Kind != e.frame.Kind || hasMark(old) != hasMark(e) {
			continue
		}
		l.events = slices.Delete(l.events, i, i+1)
		s.leave(l, old)
		s.fold(l, old)
		return
	}
}

// hasMark reports whether an #account says something that hides nothing.
func hasMark(e *event) bool {
	_, m := statusOf(e.frame.Active, e.frame.Status)
	return e.frame.Kind == frame.KindAccount && m != store.MarkNone
}

// leave counts an event out of those that wait.
func (s *shard) leave(l *lane, e *event) {
	l.bytes -= e.cost
	s.parkedBytes -= e.cost
	if l.web() {
		s.webBytes -= e.cost
	}
	s.parkedEvents--
}

// crowded says that an event had better not wait for its lane. Room that others make soon is waited for by full.
func (s *shard) crowded(l *lane, e *event) bool {
	if l.web() && s.webBytes+e.cost > s.parkedBytesMax()/websBytesShare {
		return true
	}
	return len(l.events) >= laneEventsMax || s.parkedBytes+e.cost > s.parkedBytesMax()
}

// parkedBytesMax leaves most of the readers' budget to events that go on: else a directory that does not
// answer would stop everybody.
func (s *shard) parkedBytesMax() int64 {
	return s.r.opts.QueueBytes / parkedShare / int64(len(s.r.shards))
}

// full says that no more events may be taken: too many wait that cannot be folded, or they wait for lookups which are
// being answered, so that it is better to wait than to fetch repositories again.
func (s *shard) full(now time.Time) bool {
	if s.folded >= foldsMax || s.parkedEvents >= parkedEventsMax {
		return true
	}
	return s.parkedBytes-s.webBytes >= s.parkedBytesMax()/2 && now.Sub(s.answered) < answeredWithin
}

// collect takes back lanes whose errands are done, and starts those that are due again.
func (s *shard) collect(now time.Time) {
	s.mu.Lock()
	s.back, s.inbox = append(s.back[:0], s.inbox...), s.inbox[:0]
	s.mu.Unlock()
	for _, l := range s.back {
		s.answer(l, now)
	}
	clear(s.back)
	if now.Before(s.nextDue) {
		return
	}
	s.nextDue = now.Add(dueEvery)
	s.later = slices.DeleteFunc(s.later, func(l *lane) bool {
		due := !l.due.After(now)
		if due {
			s.send(l)
		}
		return due
	})
	s.startRefreshes(now)
}

// answer is what follows from the end of an errand.
func (s *shard) answer(l *lane, now time.Time) {
	heavy := l.parked == needHeavy
	if l.err == nil && !heavy && !l.web() {
		s.answered = now
	}
	if passing(l.err) {
		if !errors.Is(l.err, context.Canceled) {
			l.tries++
		}
		if l.tries < s.triesMax(l) {
			l.due = now.Add(lookupDelay(l.tries))
			s.later = append(s.later, l)
			return
		}
	}
	s.unpark(l)
	if heavy {
		s.finish(l) // who did the errand has written and counted it
	}
	s.requeue(l)
}

// triesMax is how often the identity is asked for before the first event goes on without. Of commits
// a fetch of the repository brings everything, but of a status nobody tells again. See wantKey for commits whose
// signature we could check against some key.
func (s *shard) triesMax(l *lane) int {
	if len(l.events) > 0 && l.events[0].frame.Kind == frame.KindAccount {
		return lookupsMaxAccount
	}
	if l.refresh > 0 || len(l.events) > 0 && l.events[0].frame.Kind == frame.KindIdentity {
		return 1 // refreshLater sees to it, and holds no event
	}
	switch {
	case l.held:
		return 1
	case l.mismatch:
		return lookupsMaxMismatch
	}
	return lookupsMax
}

// passing says whether a failure says nothing about the DID.
func passing(err error) bool {
	return err != nil && !errors.Is(err, identity.ErrNotFound) && !errors.Is(err, identity.ErrInvalid) && !errors.Is(err, identity.ErrPrivateAddress)
}

// lookupDelay is how long to wait after so many failures.
func lookupDelay(tries int) time.Duration {
	return min(lookupDelayBase<<min(max(tries-1, 0), 16), lookupDelayMax)
}

// errands are lanes that wait for a goroutine of a pool. They are no more than there are parked lanes.
type errands struct {
	kick chan struct{}

	mu    sync.Mutex
	lanes []*lane // mu guards
}

func (q *errands) add(l *lane) {
	q.mu.Lock()
	q.lanes = append(q.lanes, l)
	q.mu.Unlock()
	signal(q.kick)
}

func (q *errands) take() *lane {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lanes) == 0 {
		return nil
	}
	l := q.lanes[0]
	q.lanes[0] = nil
	if q.lanes = q.lanes[1:]; len(q.lanes) > 0 {
		signal(q.kick)
	}
	return l
}

// clear forgets them.
func (q *errands) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lanes = nil
}

// work does errands until ctx ends.
func (q *errands) work(ctx context.Context, do func(context.Context, *lane) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.kick:
		}
		for ctx.Err() == nil {
			l := q.take()
			if l == nil {
				break
			}
			if err := do(ctx, l); err != nil {
				return err
			}
			l.shard.returned(l)
		}
	}
}

// lookUp reads an identity.
func (r *Runner) lookUp(ctx context.Context, l *lane) error {
	l.read = r.opts.Now()
	if !l.web() && r.outage.lasts(l.read) {
		l.err = errOutage
		return nil
	}
	if l.parked == needRefresh {
		r.opts.Directory.Purge(l.did)
	}
	l.ident, l.err = r.opts.Directory.Resolve(ctx, l.did)
	if !l.web() {
		r.outage.note(l.err, r.opts.Now())
	}
	if l.err == nil && l.ident.DID != l.did {
		l.err = identity.ErrInvalid
	}
	return nil
}
